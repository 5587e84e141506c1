"""The sample jobs that evaluate: each runs against the simulator, is scored as it says, and ends with a leaderboard."""

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import yaml

import cometbatch
from cometbatch.commands.connection import simulator_behaviour
from cometbatch.evaluation.statistics.means import estimate
from cometbatch.evaluation.statistics.sums import Sums
from cometbatch.records import Message, Prompt
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Accuracy, request_digest
from cometbatch.simulator.knowledge import right_answer, said
from tests.workbench import Network, carry_out

JOBS = Path(__file__).parent.parent / "jobs"
SHARES = {
    "evaluate": {"comet-sim-1": 0.75, "comet-sim-1-mini": 0.55, "comet-sim-cache": 0.85},
    "maths": {"comet-sim-1": 0.9},
    "classification": {"comet-sim-1": 0.9, "comet-sim-1-mini": 0.6},
    "short_answers": {"comet-sim-1": 0.8},
}


def sample_job(name: str, folder: Path, *, samples: int) -> cometbatch.Job:
    """A sample job with its output in this folder; `evaluate` with fewer samples, since it asks three models."""
    fewer = [f"matrix.samples={samples}"] if name == "evaluate" else []
    return cometbatch.load_job(JOBS / f"{name}.yaml", [f"output.path={folder / 'out.parquet'}", *fewer])


@pytest.mark.parametrize("name", SHARES)
def test_each_sample_job_is_scored_as_its_models_are(tmp_path: Path, name: str) -> None:
    """The answers of the data are those that the simulator takes for right; `verify` computes them again."""
    job = sample_job(name, tmp_path, samples=2)
    assert job.simulator is not None
    assert job.simulator.accuracy == SHARES[name]
    summary = carry_out(job, Network(create_app(simulator_behaviour(job))))
    table = pl.read_parquet(job.output.path)
    assert table["correct_why"].null_count() == len(table), "every answer has something to compare"
    named = table if "model" in table.columns else table.with_columns(model=pl.lit("comet-sim-1"))
    found = dict(named.group_by("model").agg(pl.col("correct").mean()).iter_rows())
    assert found == {model: pytest.approx(share, abs=0.15) for model, share in SHARES[name].items()}
    assert summary.leaderboard is not None
    assert all(model in summary.describe() for model in SHARES[name])
    assert cometbatch.verify(job).ok
    assert cometbatch.compare(job).notes == (), "the job scores answers as its result says"
    again = cometbatch.score(job)
    assert again.counts.lines == len(table)


def test_perfect_models_get_every_answer_right(tmp_path: Path) -> None:
    """The rule of the simulator, the prompts, the golds and the scorers fit together to the last row."""
    for name, shares in SHARES.items():
        job = sample_job(name, tmp_path / name, samples=1)
        assert job.simulator is not None
        sure = msgspec.structs.replace(job.simulator, accuracy=dict.fromkeys(shares, 1.0))
        job = msgspec.structs.replace(job, simulator=sure)
        carry_out(job, Network(create_app(simulator_behaviour(job))))
        assert set(pl.read_parquet(job.output.path)["correct"]) == {1.0}, name


@pytest.mark.parametrize(("share", "spread"), [(0.8, 0.5), (0.95, 0.25)])
def test_the_reported_interval_holds_the_share_that_the_simulator_was_given(share: float, spread: float) -> None:
    """Over 200 seeds of its answers: 30 questions with two samples each, decided alike as often as `spread` says."""
    questions = [f"Which is number {number}?\nA. red\nB. blue\nC. green\nD. grey" for number in range(30)]
    right = [right_answer(text) for text in questions]
    prompts = [Prompt((Message.of_text("user", text),)) for text in questions]
    held = 0
    for seed in range(200):
        accuracy = Accuracy({"m": share}, spread, seed)
        digests = [request_digest(seed, "/v1/chat/completions", text.encode()) for text in questions]
        asked = [
            [said(accuracy, "m", prompt, digest, seen) for seen in (1, 2)]
            for prompt, digest in zip(prompts, digests, strict=True)
        ]
        scores = [
            [float(each is not None and each.core == due) for each in answers]
            for answers, due in zip(asked, right, strict=True)
        ]
        found = estimate(Sums.of(scores))
        assert found is not None
        assert found.interval is not None
        held += found.interval.low <= share <= found.interval.high
    assert 0.9 <= held / 200 <= 1.0, held


def test_a_model_that_is_asked_for_json_is_right_in_it(tmp_path: Path) -> None:
    """Where the schema has the labels that the prompt offers."""
    schema = {"type": "object", "properties": {"label": {"enum": ["billing", "delivery", "returns", "technical"]}}}
    said: dict[str, Any] = yaml.safe_load((JOBS / "classification.yaml").read_text(encoding="utf-8"))
    said["response"] = {"schema": schema | {"required": ["label"], "additionalProperties": False}, "prefix": "said_"}
    said["output"]["path"] = str(tmp_path / "out.parquet")
    said["score"] = {"correct": {"json": '{"label": "{{ label }}"}'}}
    said["simulator"]["accuracy"] = dict.fromkeys(SHARES["classification"], 1.0)
    scored = cometbatch.load_job(said, base_dir=JOBS)
    carry_out(scored, Network(create_app(simulator_behaviour(scored))))
    assert set(pl.read_parquet(scored.output.path)["correct"]) == {1.0}


def test_the_sample_job_with_a_judge_is_judged(tmp_path: Path) -> None:
    """Each pair in both orders, by structured verdicts, none of which is missing."""
    job = cometbatch.load_job(JOBS / "judge.yaml", [f"output.path={tmp_path / 'out.parquet'}"])
    assert carry_out(job, Network(create_app(simulator_behaviour(job)))).all_succeeded
    network = Network(create_app(simulator_behaviour(job)))
    cometbatch.judge(job, progress=False, http=network)
    assert network.posts == 2 * 32
    (verdicts,) = (tmp_path / "out.judge").glob("[!_]*.parquet")
    assert set(pl.read_parquet(verdicts)["judge_status"]) == {"succeeded"}
