"""A cell as a log of Inspect (EvalLog, version 2, as JSON), which its viewer, its scorers and its readers take.

A failed row has an error and no score. An incomplete one has a score that is no number, which no metric counts, with
the reason beside it. `accuracy` is so the mean of what was scored; the headline of a leaderboard, in which incomplete
answers count 0, is in the metadata of each score. Pure: values in, values out.
"""

import math
from typing import Any, Final

from cometbatch.money.exact import format_amount
from cometbatch.reports.eval_samples import PROGRAM, CellLog, LineScore, Mean, Sample, Totals, moment

VERSION: Final = 2
STOP_REASONS: Final = {
    "stop": "stop",
    "length": "max_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "tool_calls": "tool_calls",
    "invalid": "stop",
}
"""Inspect's word for a finish reason; for every other one `unknown`."""
REASONS: Final = {"refused": "refusal", "empty": "no_response"}
"""Inspect's word for why there is no score; every other one is ours."""


def provider_model(cell: CellLog) -> str:
    """The model's name as a log has it: with the service before it, so that nobody takes it for another provider's."""
    return f"cometapi/{cell.model}"


def head(cell: CellLog, totals: Totals, means: dict[str, Mean]) -> dict[str, Any]:
    """Everything of a log but its samples, in the order in which they stand before these."""
    created = moment(totals.first, cell.created)
    names = {name: text for name, text in cell.params.items() if text is not None}
    return {
        "version": VERSION,
        "status": "success",
        "eval": {
            "eval_id": cell.name,
            "run_id": cell.run_id,
            "created": created,
            "task": cell.task,
            "task_id": cell.name,
            "task_version": 0,
            "task_args": dict(cell.labels),
            "dataset": {"name": cell.input_name, "samples": len(totals.rows), "shuffled": False},
            "model": provider_model(cell),
            "model_args": {},
            "model_generate_config": _generate_config(names),
            "config": {"epochs": cell.samples, "epochs_reducer": ["mean"]},
            "packages": dict(PROGRAM),
            "metadata": {"labels": dict(cell.labels), "format": cell.format, "params": names},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": totals.lines,
            "completed_samples": totals.lines - totals.failed,
            "scores": [_score(name, cell, mean, len(totals.rows)) for name, mean in means.items()],
        },
        "stats": {
            "started_at": created,
            "completed_at": moment(totals.last, cell.created),
            "model_usage": {provider_model(cell): _usage(totals.counts)},
        },
        "metadata": {"cost_usd": format_amount(totals.cost_usd)},
    }


def sample(cell: CellLog, line: Sample) -> dict[str, Any]:
    """One line. Its epoch counts from 1."""
    cells, latency = line.cells, line.cells.get("latency_s")
    said = cells["response"] or ""
    messages = [{"role": role, "content": text} for role, text in line.messages]
    answer = {"role": "assistant", "content": said, "source": "generate", "model": provider_model(cell)}
    usage = _usage(cells)
    found: dict[str, Any] = {
        "id": line.id,
        "epoch": line.sample + 1,
        "input": messages or "",
        "choices": list(line.choices) or None,
        "target": line.target[0] if len(line.target) == 1 else list(line.target) or "",
        "messages": messages if line.is_failed else [*messages, answer],
        "output": {
            "model": str(cells.get("response_model") or cell.model),
            "choices": [] if line.is_failed else [{"message": answer, "stop_reason": _stop_reason(line)}],
            "completion": "" if line.is_failed else said,
            "usage": usage,
            "time": latency,
            "error": line.error or None,
        },
        "scores": {} if line.is_failed else {name: _line_score(line, each) for name, each in line.scores.items()},
        "metadata": {**line.metadata, "row": line.row},
        "model_usage": {provider_model(cell): usage},
        "completed_at": moment(cells["finished_at"]) or None,
        "total_time": latency,
    }
    if line.is_failed:
        found["error"] = {"message": line.error, "traceback": "", "traceback_ansi": ""}
    return found


def _stop_reason(line: Sample) -> str:
    return STOP_REASONS.get(str(line.cells["finish_reason"]), "unknown")


def _line_score(line: Sample, score: LineScore) -> dict[str, Any]:
    known = score.known
    value = math.nan if known is None else known
    explanation = line.error or score.why
    found: dict[str, Any] = {"value": value, "answer": score.answer, "explanation": explanation}
    if score.why is not None:
        found["reason"] = REASONS.get(score.why, score.why)
    if known is None:
        found["metadata"] = {"stop_reason": line.cells["finish_reason"]}
    return found


def _score(name: str, cell: CellLog, mean: Mean, samples: int) -> dict[str, Any]:
    """What a score comes to. `samples`: how many questions there are, since their epochs are reduced to one."""
    metrics = {"accuracy": mean.mean, "stderr": mean.error}
    return {
        "name": name,
        "scorer": name,
        "reducer": "mean",
        "scored_samples": mean.questions,
        "unscored_samples": samples - mean.questions,
        "params": {key: value for key, value in cell.scorers.get(name, {}).items() if key != "name"},
        "metrics": {
            each: {"name": each, "value": value, "params": {}} for each, value in metrics.items() if value is not None
        },
        "metadata": {"score": mean.headline, "scored_answers": mean.scored, "unscored_answers": mean.unscored},
    }


def _usage(counts: Any) -> dict[str, Any]:
    known = {name: counts.get(name) or 0 for name in ("input_tokens", "output_tokens")}
    return {
        **known,
        "total_tokens": sum(known.values()),
        "input_tokens_cache_read": counts.get("cache_read_input_tokens"),
        "input_tokens_cache_write": counts.get("cache_write_input_tokens"),
        "reasoning_tokens": counts.get("reasoning_output_tokens"),
    }


def _generate_config(params: dict[str, Any]) -> dict[str, Any]:
    names = {"max_output_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
    found = {theirs: params[ours] for ours, theirs in names.items() if ours in params}
    stop = params.get("stop")
    return found | ({"stop_seqs": list(stop)} if stop else {})
