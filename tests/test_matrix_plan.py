"""`plan` of a job with a matrix: what each cell costs, what remains as it grows, what is refused and told."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import cometbatch
from cometbatch.commands.checks import check
from cometbatch.errors import JobError, UsageError
from tests import virtual_time
from tests.test_matrix_run import LARGE, SMALL, Asked

PRICES = {"models": {SMALL: {"input": 1, "output": 2}, LARGE: {"input": 3, "output": 4}}}
CELLS: dict[str, Any] = {"model": [SMALL, LARGE], "params.temperature": [0.5, 1], "samples": 3}


def planned(asked: Asked, matrix: Mapping[str, object] | None = None, **sections: Any) -> cometbatch.RunPlan:
    """The plan of a job with this matrix, or of a plain one."""
    job = asked.bench.job(**sections) if matrix is None else asked.job(matrix, **sections)
    return cometbatch.plan(job, http=asked.network)


def test_a_plan_is_the_sum_of_the_plans_of_its_cells(tmp_path: Path) -> None:
    """Calls are rows x slices, and each cell costs what the plain job of its settings costs, times its samples."""
    asked = Asked(tmp_path)
    found = planned(asked, CELLS, prices=PRICES)
    assert found.calls == 12 * 4 * 3
    assert [tuple(each.labels.values())[:2] for each in found.cells] == [
        (SMALL, 0.5), (SMALL, 1), (LARGE, 0.5), (LARGE, 1)
    ]  # fmt: skip
    for each in found.cells:
        model, temperature = list(each.labels.values())[:2]
        plain = planned(asked, target={"model": model}, params={"temperature": temperature}, prices=PRICES)
        assert plain.cost_usd is not None
        assert each.cost_usd == 3 * plain.cost_usd
        assert (each.requests, each.input_tokens) == (3 * 12, 3 * plain.input_tokens)
        assert each.output_tokens == 3 * plain.output_tokens
    assert found.cost_usd == sum(each.cost_usd or Decimal(0) for each in found.cells)
    said = found.to_dict()
    assert (said["rows"], said["calls"], said["samples"], len(said["cells"])) == (12, 144, 3, 4)
    assert sum(Decimal(each["estimated_cost_usd"]) for each in said["cells"]) == Decimal(said["estimated_cost_usd"])
    assert "matrix: 4 cells x 3 samples x 12 rows = 144 calls" in found.describe()
    assert f"  model={LARGE}, temperature=1, format=chat" in found.describe()


def test_a_plain_plan_says_nothing_of_cells(tmp_path: Path) -> None:
    """Without a matrix neither the page nor the JSON has anything more than before."""
    found = planned(Asked(tmp_path), prices=PRICES)
    assert found.cells == ()
    assert not {"cells", "samples", "calls"} & found.to_dict().keys()
    assert "cell" not in found.describe()


def test_each_cell_is_counted_with_its_own_cap_and_format(tmp_path: Path) -> None:
    """A variant's cap bounds its own answers, and no other cell's."""
    variants = [{"name": "short"}, {"name": "long", "format": "messages", "params": {"max_output_tokens": 900}}]
    short, long = planned(Asked(tmp_path), {"variant": variants}).cells
    assert (short.output_tokens, long.output_tokens) == (12 * 64, 12 * 900)


def test_a_plan_of_a_run_that_grows_counts_what_is_new(tmp_path: Path) -> None:
    """Finished cells have nothing left; further samples and models are counted alone, and a plan changes nothing."""
    asked = Asked(tmp_path)
    asked.run({"model": [SMALL], "samples": 2}, sections={"prices": PRICES})
    same = planned(asked, {"model": [SMALL], "samples": 2}, prices=PRICES)
    assert (same.finished, same.done, same.calls) == (True, 24, 24)
    grown = planned(asked, {"model": [SMALL, LARGE], "samples": 3}, prices=PRICES)
    assert (grown.finished, grown.done, grown.calls) == (False, 24, 72)
    assert [each.requests for each in grown.cells] == [12, 36]
    assert "resumes: 24 calls are done, 48 remain" in grown.describe()
    less = planned(asked, {"model": [SMALL], "samples": 1}, prices=PRICES)
    assert [each.requests for each in less.cells] == [0]
    _, sent = asked.run({"model": [SMALL, LARGE], "samples": 3}, sections={"prices": PRICES})
    assert sent == {SMALL: 12, LARGE: 36}


def test_a_plan_that_is_limited_is_for_the_first_rows_of_each_slice(tmp_path: Path) -> None:
    """As `run --limit` sends them."""
    asked = Asked(tmp_path)
    limited = cometbatch.plan(asked.job(CELLS, prices=PRICES), limit=2, http=asked.network).limited
    assert limited is not None
    assert limited.requests == 2 * 4 * 3


def test_the_budget_is_over_all_cells(tmp_path: Path) -> None:
    """It says how many calls it is enough for, and what all of them need."""
    asked = Asked(tmp_path)
    whole = planned(asked, CELLS, prices=PRICES, budget={"max_cost_usd": 5}).budget
    assert whole is not None
    assert whole.is_enough
    half = planned(asked, CELLS, prices=PRICES, budget={"max_cost_usd": 0.02})
    assert half.budget is not None
    assert half.budget.rows is not None
    assert 0 < half.budget.rows < 144
    assert f"enough for about {half.budget.rows} of 144 calls" in half.describe()


def test_earlier_answers_are_each_counted_once(tmp_path: Path) -> None:
    """One answer of an earlier run is taken by one sample of its row; the others are counted as sent."""
    asked = Asked(tmp_path)
    asked.run_job(asked.bench.job(target={"model": SMALL}, params={"temperature": 1}))
    first = asked.bench.output
    asked.bench.output = tmp_path / "grid.parquet"
    found = planned(asked, {"model": [SMALL], "params.temperature": [1], "samples": 3}, reuse={"from": str(first)})
    assert found.reuse is not None
    assert found.reuse.taken == 12
    assert [each.requests for each in found.cells] == [24]
    summary, sent = asked.run(
        {"model": [SMALL], "params.temperature": [1], "samples": 3}, sections={"reuse": {"from": str(first)}}
    )
    assert (sent, summary.tally.reused) == ({SMALL: 24}, 12)


# --- what is told -----------------------------------------------------------------------------------------------------


def test_samples_that_differ_little_are_told(tmp_path: Path) -> None:
    """With what they cost, by plan and by run."""
    asked = Asked(tmp_path)
    words = "4 samples at temperature 0 cost 4 times and differ little"
    assert words in planned(asked, {"samples": 4}, params={"temperature": 0}).warnings
    assert f"{words} (in 1 of 2 cells)" in planned(asked, {"params.temperature": [0, 1], "samples": 4}).warnings
    assert not any("differ little" in each for each in planned(asked, {"params.temperature": [0, 1]}).warnings)
    summary, _ = asked.run({"model": [SMALL], "params.temperature": [0], "samples": 4})
    assert words in summary.warnings


def test_seeds_that_are_left_out_are_told(tmp_path: Path) -> None:
    """Of the cells whose formats have no place for one. Without a matrix such a seed is refused."""
    asked = Asked(tmp_path)
    found = planned(asked, {"format": ["chat", "messages", "responses"]}, params={"seed": 3})
    assert (
        "params.seed is left out in 2 of 3 cells: it has no place in the format messages and responses"
        in found.warnings
    )
    assert not any("params.seed" in each for each in planned(asked, {"format": ["chat", "messages"]}).warnings)
    with pytest.raises(JobError, match=r"params\.seed has no place in the messages format"):
        asked.bench.job(target={"format": "messages"}, params={"seed": 3})


def test_prices_that_are_taken_for_several_models_are_told(tmp_path: Path) -> None:
    """They stand for one model in a plain job. Prices that name their models are meant."""
    asked = Asked(tmp_path)
    words = f"prices: 2 models have the same prices ({SMALL}, {LARGE}); prices.models has those of each"
    assert words in planned(asked, CELLS, prices={"input": 1, "output": 2}).warnings
    same = {"models": {model: {"input": 1, "output": 2} for model in (SMALL, LARGE)}}
    assert words not in planned(asked, CELLS, prices=same).warnings


def test_rows_with_the_same_prompt_are_told_once_however_many_samples_there_are(tmp_path: Path) -> None:
    """Samples of a row are meant to be equal."""
    asked = Asked(tmp_path)
    asked.bench.write_table(pa.table({"parcel": ["1", "2", "3"], "note": ["a", "b", "b"]}))
    found = planned(asked, CELLS, prompt={"user": "{{ note }}", "system": None})
    (told,) = (each for each in found.warnings if "the same prompt" in each)
    assert told.startswith("1 of 3 rows has the same prompt as an earlier row (first: row 2)")


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(asked: Asked, matrix: Mapping[str, object], **sections: Any) -> str:
    """Why plan refuses a job; run refuses it with the same words, and sends nothing."""
    job = asked.job(matrix, **sections)
    with pytest.raises(UsageError) as planning:
        cometbatch.plan(job, http=asked.network)
    with pytest.raises(UsageError) as running:
        virtual_time.run(cometbatch.run_async(job, progress=False, http=asked.network))
    assert str(running.value) == str(planning.value)
    assert asked.network.posts == 0
    return str(planning.value)


def test_a_cell_without_a_price_is_refused_under_a_budget(tmp_path: Path) -> None:
    """By the name of its model, also where all other cells have one."""
    asked, budget = Asked(tmp_path), {"max_cost_usd": 5}
    assert "there is no price for no-such-model" in refusal(asked, {"model": [SMALL, "no-such-model"]}, budget=budget)
    found = planned(asked, {"model": [SMALL, "no-such-model"]})
    assert [each.cost_usd is None for each in found.cells] == [False, True]
    assert "12 calls, unknown cost" in found.describe()
    assert any("no known price for 'no-such-model'" in each for each in found.warnings)


def test_a_cell_without_a_cap_is_refused_under_a_budget(tmp_path: Path) -> None:
    """One answer without a highest cost is enough to pass it."""
    matrix = {"v": [{"name": "capped"}, {"name": "free", "params": {"max_output_tokens": None}}]}
    assert "without params.max_output_tokens" in refusal(Asked(tmp_path), matrix, budget={"max_cost_usd": 5})


def test_input_that_the_service_may_add_in_one_cell_is_refused_under_a_budget(tmp_path: Path) -> None:
    """A search in one variant can pass the budget of all."""
    matrix = {"v": [{"name": "plain"}, {"name": "searches", "params": {"extra": {"web_search_options": {}}}}]}
    assert "the service may add input" in refusal(Asked(tmp_path), matrix, budget={"max_cost_usd": 5})


def test_the_templates_of_each_cell_are_held_against_the_columns(tmp_path: Path) -> None:
    """With the place of the template, which is that of the axis' value."""
    asked = Asked(tmp_path)
    matrix = {"v": [{"name": "a"}, {"name": "b", "prompt": {"user": "{{ noet }}"}}]}
    assert "'noet'" in (said := refusal(asked, matrix))
    assert said.startswith("job: prompt.user: ")
    column = {"v": [{"name": "a"}, {"name": "b", "params": {"columns": {"temperature": "heat"}}}]}
    assert "params.columns.temperature" in refusal(asked, column)


@pytest.mark.parametrize("name", ["model", "format", "sample", "row", "temperature"])
def test_a_column_of_the_input_named_like_one_of_the_matrix_is_refused(tmp_path: Path, name: str) -> None:
    """With the prefix that tells them apart; with it, the job is fine."""
    asked = Asked(tmp_path)
    asked.bench.write_table(pa.table({"parcel": ["1"], "note": ["a"], name: ["x"]}))
    said = refusal(asked, CELLS)
    assert f"the input has columns named like those that the matrix adds: {name}. Set output.prefix" in said
    assert planned(asked, CELLS, output={"prefix": "out_"}).calls == 12


def test_a_property_of_the_schema_named_like_a_column_of_the_matrix_is_refused(tmp_path: Path) -> None:
    """As one that is named like the input's."""
    schema = {"type": "object", "properties": {"model": {"type": "string"}}, "required": ["model"]}
    said = refusal(Asked(tmp_path), CELLS, response={"schema": schema | {"additionalProperties": False}})
    assert "the matrix adds a column named 'model', like a property of the schema. Set response.prefix" in said


def test_cells_with_one_prompt_share_its_template(tmp_path: Path) -> None:
    """However many models and formats there are; a conversation is fitted to each format by itself."""
    asked = Asked(tmp_path)
    other = [{"name": "a"}, {"name": "b", "prompt": {"system": "Be kind."}}]
    checked = check(asked.job({"model": [SMALL, LARGE], "format": ["chat", "messages"], "v": other}))
    assert len({id(each.template) for each in checked.cells}) == 2
    column = {"messages_column": "note", "user": None, "system": None}
    talks = check(asked.job({"model": [SMALL, LARGE], "format": ["chat", "messages"]}, prompt=column))
    assert len({id(each.template) for each in talks.cells}) == 2
    assert {each.format.name for each in talks.cells} == {"chat", "messages"}
