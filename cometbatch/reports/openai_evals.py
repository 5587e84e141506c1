"""A cell as a record of OpenAI's evals: a line with the spec, a line for each event, a last line with the report.

Each line of the result is a `sampling` event, and one `match` event for each of its scores. A score is a match where
its value is 1. What was not scored has a `match` of no event, and a failed row an `error`. Pure: values in, values out.
"""

from collections.abc import Iterator
from typing import Any

from cometbatch.reports.eval_samples import CellLog, Mean, Sample, Totals, moment

CREATED_BY = "cometbatch"


def spec(cell: CellLog) -> dict[str, Any]:
    """The first line."""
    return {
        "spec": {
            "completion_fns": [cell.model],
            "eval_name": cell.task,
            "base_eval": cell.task,
            "split": cell.input_name,
            "run_config": {
                "completion_fns": [cell.model],
                "eval_spec": {"args": {"labels": dict(cell.labels), "scores": _scorers(cell)}},
                "seed": cell.params.get("seed"),
                "max_samples": None,
                "samples": cell.samples,
                "params": {name: value for name, value in cell.params.items() if value is not None},
            },
            "created_by": CREATED_BY,
            "run_id": cell.name,
            "created_at": cell.created,
        }
    }


def events(cell: CellLog, line: Sample, first: int) -> Iterator[dict[str, Any]]:
    """The events of a line. `first`: the number of the first of them."""
    whose = {"run_id": cell.name, "sample_id": f"{line.id}.{line.sample}"}
    when = {"created_by": CREATED_BY, "created_at": moment(line.cells["finished_at"], cell.created)}
    prompt = [{"role": role, "content": text} for role, text in line.messages]
    sampled = [] if line.cells["response"] is None else [line.cells["response"]]
    usage = {"prompt_tokens": line.cells.get("input_tokens"), "completion_tokens": line.cells.get("output_tokens")}
    data: dict[str, Any] = {"prompt": prompt, "sampled": sampled, "usage": usage}
    kinds: list[tuple[str, dict[str, Any]]] = [("sampling", data)]
    if line.error:
        kind = line.cells["error_kind"] or line.cells["finish_reason"]
        kinds.append(("error", {"type": kind, "message": line.error}))
    for name, score in {} if line.is_failed else line.scores.items():
        if score.known is not None:
            found = {"correct": score.known == 1, "expected": _expected(line), "picked": score.answer}
            kinds.append(("match", {**found, "score": score.known, "name": name}))
    for number, (kind, said) in enumerate(kinds, first):
        yield {**whose, "event_id": number, "type": kind, "data": said, **when}


def final_report(cell: CellLog, totals: Totals, means: dict[str, Mean]) -> dict[str, Any]:
    """The last line. `accuracy` is that of the job's first score; the others stand beside it under their names."""
    report: dict[str, Any] = {"samples": totals.lines, "failed": totals.failed}
    for number, (name, mean) in enumerate(means.items()):
        report |= {f"{name}/accuracy": mean.mean, f"{name}/standard_error": mean.error}
        report |= {f"{name}/score": mean.headline, f"{name}/unscored": mean.unscored}
        if number == 0:
            report["accuracy"] = mean.mean
    return {"final_report": report, "run_id": cell.name}


def _expected(line: Sample) -> object:
    return line.target[0] if len(line.target) == 1 else list(line.target)


def _scorers(cell: CellLog) -> dict[str, Any]:
    return {name: dict(settings) for name, settings in cell.scorers.items()}
