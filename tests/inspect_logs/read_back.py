"""Reads logs back with Inspect, in an environment that has it: `python tests/inspect_logs/read_back.py FOLDER`."""

import math
import sys
from pathlib import Path

from inspect_ai.log import EvalLog, read_eval_log

SAMPLES, FAILED, CUT = 20, 2, 2


def check(log: EvalLog, name: str) -> None:
    """What the log says holds together."""
    assert (log.version, log.status) == (2, "success")
    assert log.eval.model == f"cometapi/{name}"
    assert log.eval.config.epochs == 2
    assert log.samples is not None
    assert len(log.samples) == SAMPLES
    assert {(sample.id, sample.epoch) for sample in log.samples} == {(f"{n:04d}", e) for n in range(10) for e in (1, 2)}
    failed = [sample for sample in log.samples if sample.error is not None]
    unscored = [each for each in log.samples if each.scores and math.isnan(each.scores["correct"].as_float())]
    is_first = name == "model-a"
    assert (len(failed), len(unscored)) == ((FAILED, CUT) if is_first else (0, 0))
    assert all(each.output.stop_reason == "max_tokens" for each in unscored)
    assert all(not each.scores for each in failed)
    assert log.results is not None
    (score,) = log.results.scores
    assert (score.name, score.scored_samples) == ("correct", 8 if is_first else 10)
    values = [each.scores["correct"].as_float() for each in log.samples if each.scores]
    known = [value for value in values if not math.isnan(value)]
    assert math.isclose(score.metrics["accuracy"].value, sum(known) / len(known))
    usage = log.stats.model_usage[log.eval.model]
    found = [each.model_usage[log.eval.model] for each in log.samples]
    assert (usage.input_tokens, usage.output_tokens) == (
        sum(each.input_tokens for each in found),
        sum(each.output_tokens for each in found),
    )


def main(folder: Path) -> None:
    """Read each log, and its head alone."""
    for number, name in enumerate(("model-a", "model-b")):
        path = str(folder / f"0000{number}-{name}-chat.json")
        check(read_eval_log(path), name)
        assert read_eval_log(path, header_only=True).eval.model == f"cometapi/{name}"
        sys.stdout.write(f"read back: {path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
