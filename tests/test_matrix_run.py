"""A run with a matrix, through `run`: what is sent as its job grows, shrinks and is renamed, and what the result says.

The service counts each request by its model and its bytes, so that "nothing was sent again" is its word, not ours.
"""

import hashlib
import itertools
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

import cometbatch
from cometbatch.errors import DriftError, JobError
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour
from tests import virtual_time
from tests.workbench import Network, Workbench, simulator

SMALL, LARGE, CACHING = "comet-sim-1-mini", "comet-sim-1", "comet-sim-cache"
ROWS = 12


class Asked:
    """A table, a service that counts, and a job over both."""

    def __init__(self, folder: Path, rows: int = ROWS, network: Network | None = None) -> None:
        self.bench, self.network = Workbench(folder), network or simulator()
        self.bench.write_rows(rows)

    def job(self, matrix: Mapping[str, object], **sections: Any) -> cometbatch.Job:
        """A job with this matrix. Its model is on an axis."""
        settings = self.bench.settings(matrix=matrix, **sections)
        if "model" in matrix:
            del settings["target"]["model"]
        return cometbatch.load_job(settings)

    def run(self, matrix: Mapping[str, object], *, sections: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it; the summary, and how many requests each model had."""
        return self.run_job(self.job(matrix, **(sections or {})), **options)

    def run_job(self, job: cometbatch.Job, **options: Any) -> tuple[cometbatch.RunSummary, Counter[str]]:
        """The same of any job."""
        before = len(self.network.requests)
        summary = virtual_time.run(cometbatch.run_async(job, progress=False, http=self.network, **options))
        return summary, Counter(map(model_of, posts(self.network.requests[before:])))

    def rows(self, *names: str) -> list[tuple[Any, ...]]:
        """These columns of the result, line by line."""
        return list(zip(*(self.bench.result().column(name).to_pylist() for name in names), strict=True))


def posts(requests: Sequence[httpx.Request]) -> list[httpx.Request]:
    """Those that ask a model."""
    return [request for request in requests if request.method == "POST"]


def model_of(request: httpx.Request) -> str:
    """The model that a request names, in its body or, in the gemini format, in its path."""
    return str(json.loads(request.content).get("model") or request.url.path.rpartition("/")[2].partition(":")[0])


def lines_of(axes: Mapping[str, Sequence[Any]], samples: int = 1) -> list[tuple[Any, ...]]:
    """The key of each line that a result of these axes has: the first axis slowest, then the sample, then the row."""
    cells = itertools.product(*axes.values())
    return [(*cell, sample, row) for cell in cells for sample in range(samples) for row in range(ROWS)]


# -- growth ------------------------------------------------------------------------------------------------------------


def test_a_matrix_sends_each_row_once_in_each_cell_and_sample(tmp_path: Path) -> None:
    """The result has the job's cells in its order, each sample whole; equal samples are all sent."""
    asked = Asked(tmp_path)
    axes: dict[str, list[Any]] = {"model": [SMALL, LARGE], "params.temperature": [0, 1]}
    summary, sent = asked.run({**axes, "samples": 3})
    assert sent == {SMALL: 2 * 3 * ROWS, LARGE: 2 * 3 * ROWS}
    assert (summary.finished, summary.rows, summary.succeeded) == (True, 12 * ROWS, 12 * ROWS)
    assert asked.rows("model", "temperature", "sample", "row") == lines_of(axes, 3)
    bodies = Counter(hashlib.sha256(request.content).hexdigest() for request in posts(asked.network.requests))
    assert set(bodies.values()) == {3}
    again, sent = asked.run({**axes, "samples": 3})
    assert (again.had_work, sent) == (False, Counter())


def test_a_model_that_is_added_is_all_that_is_sent(tmp_path: Path) -> None:
    """A finished matrix grows by rows x samples of the new model, and 0 of the others."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL], "samples": 2})
    summary, sent = asked.run({"model": [SMALL, LARGE], "samples": 2})
    assert sent == {LARGE: 2 * ROWS}
    assert summary.finished
    assert asked.rows("model", "sample", "row") == lines_of({"model": [SMALL, LARGE]}, 2)


def test_samples_that_are_added_are_all_that_is_sent(tmp_path: Path) -> None:
    """From 4 samples to 8: 4 x rows for each cell."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL, LARGE], "samples": 4})
    _, sent = asked.run({"model": [SMALL, LARGE], "samples": 8})
    assert sent == {SMALL: 4 * ROWS, LARGE: 4 * ROWS}
    assert asked.rows("model", "sample", "row") == lines_of({"model": [SMALL, LARGE]}, 8)


def test_a_value_that_is_left_out_is_kept_and_put_back_for_nothing(tmp_path: Path) -> None:
    """Its samples stay in the run directory, are no part of the result, and the summary says so."""
    asked = Asked(tmp_path)
    whole, _ = asked.run({"model": [SMALL, LARGE], "samples": 2})
    summary, sent = asked.run({"model": [LARGE], "samples": 2})
    assert (sent, summary.rows, summary.succeeded, summary.finished) == (Counter(), 2 * ROWS, 2 * ROWS, True)
    assert asked.rows("model", "sample", "row") == lines_of({"model": [LARGE]}, 2)
    left_out = f"2 samples of cells that the matrix does not name are kept, and no part of the result: {2 * ROWS} rows"
    assert left_out in summary.describe()
    assert summary.to_dict()["left_out"]["rows"] == 2 * ROWS
    assert whole.cost_usd is not None
    assert summary.cost_usd is not None
    assert summary.cost_usd < whole.cost_usd
    back, sent = asked.run({"model": [SMALL, LARGE], "samples": 2})
    assert (sent, back.cost_usd, back.left_out) == (Counter(), whole.cost_usd, None)
    assert asked.rows("model", "sample", "row") == lines_of({"model": [SMALL, LARGE]}, 2)


@pytest.mark.parametrize("limit", [None, 3], ids=["a finished run", "a run that has begun"])
def test_what_may_have_been_billed_stays_in_the_bill_whatever_the_matrix_names(
    tmp_path: Path, limit: int | None
) -> None:
    """Possible charges of a cell that is taken out are told by the summary, by `status` and the budget all the same."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(504) if request.method == "POST" and model_of(request) == LARGE else None

    asked = Asked(tmp_path, network=Network(create_app(Behaviour()), answer=answer))
    sections = {"retry": {"max_attempts": 2}, "prices": {"input": 1, "output": 2}}
    whole, sent = asked.run({"model": [SMALL, LARGE]}, sections=sections, limit=limit)
    assert whole.possible_charges.charges == sent[LARGE] > 0
    for models in ([SMALL], [SMALL, LARGE]):
        job = asked.job({"model": models}, **sections)
        summary, sent = asked.run_job(job, limit=limit)
        assert sent == Counter()
        assert summary.possible_charges == whole.possible_charges
        assert cometbatch.status(job).summary.possible_charges == whole.possible_charges


@pytest.mark.parametrize(("gone", "has_others"), [([LARGE], True), ([SMALL, LARGE], False)])
def test_others_went_on_only_where_there_are_others(tmp_path: Path, gone: list[str], has_others: bool) -> None:
    """Where every cell stopped, the message tells of no cells that went on."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        is_gone = request.method == "POST" and model_of(request) in gone
        return httpx.Response(404, json={"error": {"code": "model_not_found", "message": "gone"}}) if is_gone else None

    asked = Asked(tmp_path, network=Network(create_app(Behaviour()), answer=answer))
    with pytest.raises(cometbatch.RunStoppedError, match=f"{len(gone)} of 2 cells stopped") as stopped:
        asked.run({"model": [SMALL, LARGE]})
    assert ("the others went on" in str(stopped.value)) == has_others


def test_fewer_samples_cost_nothing_and_neither_do_the_same_again(tmp_path: Path) -> None:
    """The last samples are left out of the result, and put back."""
    asked = Asked(tmp_path)
    for samples, requests in ((3, 3 * ROWS), (1, 0), (3, 0)):
        _, sent = asked.run({"model": [SMALL], "samples": samples})
        assert sent.total() == requests
        assert asked.rows("sample", "row") == lines_of({}, samples)


def test_axes_in_another_order_and_other_names_cost_nothing(tmp_path: Path) -> None:
    """The result is published again, in the new order and under the new names."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL, LARGE], "variant": [{"name": "cold", "params": {"temperature": 0}}, {"name": "plain"}]})
    renamed = [{"name": "as it is"}, {"name": "zero", "params": {"temperature": 0}}]
    before = asked.bench.result()
    summary, sent = asked.run({"variant": renamed, "model": [LARGE, SMALL]})
    assert (sent, summary.had_work) == (Counter(), True)
    wanted = lines_of({"variant": ["as it is", "zero"], "model": [LARGE, SMALL]})
    assert asked.rows("variant", "model", "sample", "row") == wanted
    texts = dict(zip(before.column("request_hash").to_pylist(), before.column("response").to_pylist(), strict=True))
    assert dict(asked.rows("request_hash", "response")) == texts
    _, sent = asked.run({"variant": renamed, "model": [LARGE, SMALL]})
    assert sent == Counter()


def test_growth_in_the_middle_of_a_run_sends_what_is_missing(tmp_path: Path) -> None:
    """A run that was limited goes on with old cells and new ones alike, and sends nothing twice."""
    asked = Asked(tmp_path)
    summary, sent = asked.run({"model": [SMALL], "samples": 2}, limit=5)
    assert (sent, summary.finished) == ({SMALL: 10}, False)
    summary, sent = asked.run({"model": [SMALL, LARGE], "samples": 3})
    assert (sent, summary.finished) == ({SMALL: 3 * ROWS - 10, LARGE: 3 * ROWS}, True)
    assert asked.rows("model", "sample", "row") == lines_of({"model": [SMALL, LARGE]}, 3)


def test_an_axis_may_come_and_go(tmp_path: Path) -> None:
    """A cell is told by all that it asks: a setting that moves to an axis, or back, is the same cell."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL]}, sections={"params": {"temperature": 0}})
    _, sent = asked.run({"model": [SMALL], "params.temperature": [0, 1]})
    assert sent == {SMALL: ROWS}
    _, sent = asked.run({"model": [SMALL]}, sections={"params": {"temperature": 0}})
    assert sent == Counter()
    assert asked.rows("model", "sample", "row") == lines_of({"model": [SMALL]})


def test_whatever_is_added_left_out_and_put_back_each_call_is_sent_once(tmp_path: Path) -> None:
    """A walk over matrices, some of its runs cut short: no sample of a cell is asked of a row a second time."""
    asked, chance = Asked(tmp_path, rows=3), random.Random(int(os.environ.get("SEED", "1")))
    most = Counter[tuple[Any, ...]]()  # samples that were asked for, by cell
    for limit in [chance.choice([None, None, 1, 2]) for _ in range(int(os.environ.get("GROWTHS", "7")))] + [None]:
        models, temperatures = chance.sample([SMALL, LARGE], chance.randint(1, 2)), chance.sample([0, 1], 2)
        axes: dict[str, list[Any]] = {"model": models, "params.temperature": temperatures[: chance.randint(1, 2)]}
        samples = chance.randint(1, 3)
        if chance.random() < 0.5:
            axes = dict(reversed(axes.items()))
        summary, _ = asked.run({**axes, "samples": samples}, limit=limit)
        for cell in itertools.product(axes["model"], axes["params.temperature"]):
            most[cell] = max(most[cell], samples)
        if limit is not None:
            continue
        assert (summary.finished, summary.failed) == (True, 0)
        names = [name.rpartition(".")[2] for name in axes]
        cells = itertools.product(*axes.values())
        lines = [(*cell, sample, row) for cell in cells for sample in range(samples) for row in range(3)]
        assert asked.rows(*names, "sample", "row") == lines
    sent = Counter(request.content for request in posts(asked.network.requests))
    assert len(sent) == 3 * len(most)
    for body, times in sent.items():
        said = json.loads(body)
        assert times <= most[said["model"], said["temperature"]]
    assert cometbatch.verify(asked.job({**axes, "samples": samples})).ok


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_changes_outside_the_axes_is_refused(tmp_path: Path) -> None:
    """Field by field, as without a matrix, with the ways out; nothing is sent."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL]})
    posts_before = asked.network.posts
    with pytest.raises(DriftError, match=r"params\.temperature: was unset, is 0\.5") as refused:
        asked.run({"model": [SMALL, LARGE]}, sections={"params": {"temperature": 0.5}})
    assert "give output.path another name" in str(refused.value)
    assert "--retry" not in str(refused.value)
    with pytest.raises(DriftError, match=r"prompt\.messages\[1\]\.content"):
        asked.run({"model": [SMALL]}, sections={"prompt": {"user": "Other {{ note }}"}})
    assert asked.network.posts == posts_before


@pytest.mark.parametrize("begins_with_matrix", [False, True])
def test_a_plain_run_and_one_with_a_matrix_do_not_become_each_other(
    tmp_path: Path, *, begins_with_matrix: bool
) -> None:
    """Refused, with the ways that pay nothing: another output with `reuse`, and --update."""
    asked = Asked(tmp_path)
    matrix, plain = asked.job({"model": [LARGE, SMALL]}), asked.bench.job()
    first, second = (matrix, plain) if begins_with_matrix else (plain, matrix)
    asked.run_job(first)
    before = asked.network.posts
    with pytest.raises(DriftError, match="matrix: was") as refused:
        asked.run_job(second)
    assert "reuse.from" in str(refused.value)
    assert "--update" in str(refused.value)
    assert "params.extra" not in str(refused.value)
    assert asked.network.posts == before
    summary, sent = asked.run_job(second, update=True)
    assert summary.finished
    assert sent == (Counter() if begins_with_matrix else {SMALL: ROWS})


def test_dedupe_and_several_samples_contradict_each_other(tmp_path: Path) -> None:
    """Refused before anything is sent."""
    asked = Asked(tmp_path)
    with pytest.raises(JobError, match="dedupe"):
        asked.run({"model": [SMALL], "samples": 2}, sections={"dedupe": True})
    assert asked.network.requests == []


def test_dedupe_sends_equal_rows_once_in_each_cell(tmp_path: Path) -> None:
    """With one sample, a matrix and dedupe go together."""
    asked = Asked(tmp_path)
    sections = {"dedupe": True, "prompt": {"user": "Say yes"}}
    summary, sent = asked.run({"model": [SMALL, LARGE], "params.temperature": [0, 1]}, sections=sections)
    assert sent == {SMALL: 2, LARGE: 2}
    assert summary.finished
    assert summary.tally.reused == 4 * (ROWS - 1)


# -- options -----------------------------------------------------------------------------------------------------------


def test_a_limit_is_of_each_slice(tmp_path: Path) -> None:
    """`--limit` answers the first rows in each cell and sample."""
    asked = Asked(tmp_path)
    summary, sent = asked.run({"model": [SMALL, LARGE], "samples": 2}, limit=3)
    assert sent == {SMALL: 6, LARGE: 6}
    assert summary.limited is not None
    assert (summary.limited.rows, summary.limited.done, summary.finished) == (12, 12, False)
    again, sent = asked.run({"model": [SMALL, LARGE], "samples": 2}, limit=3)
    assert (again.had_work, sent) == (False, Counter())


def test_an_update_takes_what_the_input_left_as_it_was(tmp_path: Path) -> None:
    """A scheduled pipeline's daily life: of a changed table, only new and changed rows are sent, in each slice."""
    asked, matrix = Asked(tmp_path), {"model": [SMALL, LARGE], "samples": 2}
    asked.run(matrix)
    text = asked.bench.input.read_text(encoding="utf-8").replace("note 3, in", "note three, in")
    asked.bench.input.write_text(f'{text}{ROWS:04d},"note {ROWS}, in two\nlines"\n', encoding="utf-8")
    with pytest.raises(DriftError, match="1 added, 0 removed, 1 edited"):
        asked.run(matrix)
    summary, sent = asked.run(matrix, update=True)
    assert (sent, summary.finished) == ({SMALL: 4, LARGE: 4}, True)
    assert len(asked.rows("row")) == 4 * (ROWS + 1)


def test_a_retry_asks_each_call_of_its_own_cell_again(tmp_path: Path) -> None:
    """Only what matches, in all cells that the job names; every other answer stays as it is."""
    is_refusing = True

    def unwell(request: httpx.Request) -> httpx.Response | None:
        is_bad = request.method == "POST" and "note 5," in request.content.decode() and is_refusing
        return httpx.Response(400, json={"error": {"message": "no", "code": "bad"}}) if is_bad else None

    asked = Asked(tmp_path, network=Network(answer=unwell))
    matrix = {"model": [SMALL, LARGE], "samples": 2}
    summary, _ = asked.run(matrix)
    assert (summary.failed, summary.finished) == (4, True)
    is_refusing = False
    asked.run({"model": [LARGE], "samples": 2})
    summary, sent = asked.run({"model": [LARGE], "samples": 2}, retry="failed")
    assert (sent, summary.failed, summary.finished) == ({LARGE: 2}, 0, True)
    summary, sent = asked.run(matrix, retry="failed")
    assert (sent, summary.failed, summary.finished) == ({SMALL: 2}, 0, True)
    models = asked.rows("model", "response_model")
    assert {(model, (answered or model).startswith(model)) for model, answered in models} == {
        (SMALL, True),
        (LARGE, True),
    }


def test_a_retry_with_other_settings_is_refused(tmp_path: Path) -> None:
    """What is asked in a matrix is told by its axes: other settings outside of them are drift with --retry, too."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL]})
    with pytest.raises(DriftError, match=r"params\.max_output_tokens"):
        asked.run({"model": [SMALL]}, sections={"params": {"max_output_tokens": 128}}, retry="length")


def test_fresh_begins_anew(tmp_path: Path) -> None:
    """Everything is sent again."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL, LARGE]})
    _, sent = asked.run({"model": [SMALL, LARGE]}, fresh=True)
    assert sent == {SMALL: ROWS, LARGE: ROWS}


def test_an_earlier_file_gives_each_answer_once(tmp_path: Path) -> None:
    """Three answers to equal requests, and five samples: two requests a row, the first samples taking theirs."""
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    then = Asked(tmp_path / "then")
    then.run({"model": [SMALL], "samples": 3})
    now = Asked(tmp_path / "now", network=then.network)
    sections = {"reuse": {"from": [str(then.bench.output)]}}
    summary, sent = now.run({"model": [SMALL], "samples": 5}, sections=sections)
    assert (sent, summary.tally.reused, summary.finished) == ({SMALL: 2 * ROWS}, 3 * ROWS, True)
    taken = [sample for sample, run in now.rows("sample", "reused_from") if run is not None]
    assert Counter(taken) == {0: ROWS, 1: ROWS, 2: ROWS}
    taken_from = [ordinal for (ordinal,) in now.rows("reused_ordinal") if ordinal is not None]
    assert len(set(taken_from)) == len(taken_from) == 3 * ROWS


# -- what cells differ in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["native", "tool", "prompt"])
def test_cells_may_differ_in_format_and_prompt(tmp_path: Path, mode: str) -> None:
    """Each reply is read in its own format, second asks included, and each request has its own prompt."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    asked = Asked(tmp_path, rows=4)
    matrix = {
        "format": ["chat", "responses", "messages", "gemini"],
        "prompt.user": ["Say {{ note }} in JSON", "Tell {{ note }} in JSON"],
    }
    sections = {"response": {"schema": schema, "mode": mode}, "target": {"model": LARGE}}
    summary, _ = asked.run(matrix, sections=sections)
    assert (summary.finished, summary.rows) == (True, 32)
    assert {status for (status,) in asked.rows("status")} <= {"succeeded", "incomplete"}
    found = asked.rows("format", "user", "status", "a")
    assert {(each[0], each[1]) for each in found if each[2] == "succeeded"} == {
        (format_name, words) for format_name in matrix["format"] for words in matrix["prompt.user"]
    }
    assert all(value is not None for *_, status, value in found if status == "succeeded")


def test_samples_have_seeds_of_their_own(tmp_path: Path) -> None:
    """Sample k sends seed + k where the format takes a seed, and in a cell that does not, none."""
    asked = Asked(tmp_path, rows=2)
    asked.run({"model": [SMALL], "samples": 3}, sections={"params": {"seed": 7}})
    seeds = Counter(json.loads(request.content)["seed"] for request in posts(asked.network.requests))
    assert seeds == {7: 2, 8: 2, 9: 2}
    _, sent = asked.run({"model": [SMALL], "samples": 4}, sections={"params": {"seed": 7}})
    assert sent == {SMALL: 2}


def test_costs_of_cells_add_up_to_the_servers_bill(tmp_path: Path) -> None:
    """To the last digit, over all cells and in each, whatever each of them costs."""
    asked = Asked(tmp_path)
    summary, _ = asked.run({"model": [SMALL, LARGE, CACHING], "params.temperature": [0, 1], "samples": 2})
    ledger = asked.network.ledger
    assert summary.cost_usd == Decimal(ledger["cost_usd"])
    of_models = defaultdict[str, Decimal](Decimal)
    for cell in summary.cells:
        of_models[str(cell.labels["model"])] += cell.cost_usd or Decimal(0)
    assert of_models == {model: Decimal(sums["cost_usd"]) for model, sums in ledger["models"].items()}


def test_one_budget_is_over_all_cells(tmp_path: Path) -> None:
    """A run that stops at its budget names what it would take, and goes on from there with it."""
    asked, matrix = Asked(tmp_path, rows=60), {"model": [SMALL, LARGE]}
    sections = {"budget": {"max_cost_usd": 0.002}, "limits": {"concurrency": 4}}
    with pytest.raises(cometbatch.BudgetReachedError) as stopped:
        asked.run(matrix, sections=sections)
    spent = stopped.value.summary.cost_usd
    assert spent is not None
    assert spent == Decimal(asked.network.ledger["cost_usd"])
    needed = stopped.value.budget_to_finish
    assert needed is not None
    summary, _ = asked.run(matrix, sections=sections | {"budget": {"max_cost_usd": float(needed)}})
    assert summary.finished
    assert summary.cost_usd == Decimal(asked.network.ledger["cost_usd"])


def test_a_model_that_is_not_there_stops_its_cells_alone(tmp_path: Path) -> None:
    """The others finish; the run ends with exit code 5, names cells and what to do, and is resumed once repaired."""
    left = ROWS

    def half_way(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        if request.method != "POST" or model_of(request) != LARGE or left < 0:
            return None
        left -= left > 0
        if left:
            return None
        error = {"message": f"The model '{LARGE}' does not exist", "code": "model_not_found", "type": "invalid_request"}
        return httpx.Response(404, json={"error": error})

    asked = Asked(tmp_path, network=Network(answer=half_way))
    matrix = {"model": [SMALL, LARGE], "params.temperature": [0, 1], "samples": 2}
    sections = {"limits": {"concurrency": 2}, "retry": {"max_alike": 3}}  # one in flight of each model
    with pytest.raises(cometbatch.ServiceRefusedError) as stopped:
        asked.run(matrix, sections=sections)
    summary, words = stopped.value.summary, str(stopped.value)
    assert stopped.value.exit_code == 5
    assert f"model={LARGE}, temperature=0" in words
    assert f"model={LARGE}, temperature=1" in words
    assert SMALL not in words
    assert "run the same command again" in words
    by_model = Counter[str]()
    for cell in summary.cells:
        by_model[str(cell.labels["model"])] += cell.tally.succeeded
    assert by_model[SMALL] == 4 * ROWS
    assert 0 < by_model[LARGE] < 4 * ROWS
    left = -1
    summary, sent = asked.run(matrix, sections=sections)
    assert (summary.finished, summary.succeeded, summary.failed) == (True, 8 * ROWS, 0)
    assert sent == {LARGE: 4 * ROWS - by_model[LARGE]}
