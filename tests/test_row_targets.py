"""Rows that say in their own cells how they are asked: model and parameters, each paid by its own model's prices."""

import json
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cometbatch
from cometbatch.commands.row_variants import RowVariants
from cometbatch.job import MessageTemplate, Target
from cometbatch.job.keys import MAX_MODELS
from cometbatch.records import Completion, Failure, Usage
from cometbatch.runner.row_maker import RowMaker
from cometbatch.wire import chat
from tests import virtual_time
from tests.workbench import MODEL, Network, Workbench, carry_out

MINI, CACHE, UNKNOWN = "comet-sim-1-mini", "comet-sim-cache", "no-such-model"
MODELS = [MODEL, MINI, None, UNKNOWN, CACHE, MINI, "", None]
PRICES = {MODEL: ("0.5", "1.5"), MINI: ("0.1", "0.4"), CACHE: ("3", "15")}  # the simulator's own, per million tokens
TEN_AND_FIVE = {model: (10 * Decimal(one) + 5 * Decimal(two)) / 10**6 for model, (one, two) in PRICES.items()}


def answer(request: httpx.Request) -> httpx.Response | None:
    """10 tokens in and 5 out from each model that there is; the simulator says of the others that it lacks them."""
    if request.method != "POST" or (model := json.loads(request.content)["model"]) not in PRICES:
        return None
    reply = chat.build_response(model, Completion("Yes.", "stop", Usage(10, 5)))
    return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


def write(bench: Workbench, **columns: list[Any]) -> None:
    """A table of these columns, with an id for each row."""
    rows = len(next(iter(columns.values())))
    ids = [f"{row:04d}" for row in range(rows)]
    bench.write_table(pa.table({"parcel": ids, "note": [f"note {row}" for row in range(rows)], **columns}))


def bodies(network: Network) -> dict[int, dict[str, Any]]:
    """What was sent for each row, by the number in its prompt."""
    found: dict[int, dict[str, Any]] = {}
    for request in network.requests:
        if request.method == "POST":
            body = json.loads(request.content)
            found[int(body["messages"][-1]["content"].split()[1])] = body
    return found


def by_model(bench: Workbench, **sections: Mapping[str, object]) -> cometbatch.Job:
    """A job whose rows name their models in the column `m`."""
    given = dict(sections)
    target = {"model_column": "m", **given.pop("target", {})}
    return bench.job(target=target, limits={"concurrency": 1}, retry={"max_attempts": 1}, **given)


def test_each_row_is_asked_of_its_own_model_at_its_own_price(bench: Workbench) -> None:
    """A null or blank cell is the job's model; a model that nobody knows fails its rows, and the run goes on."""
    write(bench, m=MODELS)
    network = Network(answer=answer)
    summary = carry_out(by_model(bench), network)
    asked = [model or MODEL for model in MODELS]
    assert [body["model"] for _, body in sorted(bodies(network).items())] == asked
    table = bench.result()
    assert table["cost_usd"].to_pylist() == [TEN_AND_FIVE.get(model) for model in asked]
    assert table["target"].to_pylist() == [0, 1, 0, 2, 3, 1, 0, 0]
    assert table["error_kind"].to_pylist() == [None if model in PRICES else "model_not_found" for model in asked]
    assert (summary.succeeded, summary.failed, summary.finished) == (7, 1, True)
    assert summary.cost_usd == sum(TEN_AND_FIVE[model] for model in asked if model in PRICES)
    assert any(f"'{UNKNOWN}' is not in the catalog" in warning for warning in summary.warnings)
    assert cometbatch.verify(bench.output).ok


def test_plan_prices_each_row_by_its_model_and_tells_of_the_unknown_one(bench: Workbench) -> None:
    """The estimate is the sum over the models that have a price; what is not in the catalog is said, by name."""
    write(bench, m=MODELS)
    plan = cometbatch.plan(by_model(bench))
    rows = cometbatch.plan(by_model(bench, prices={"models": {UNKNOWN: {"per_request": 1}}}))
    assert plan.cost_usd is not None
    assert rows.cost_usd == plan.cost_usd + 1
    assert any(UNKNOWN in warning for warning in plan.warnings)
    assert not any("no known price" in warning for warning in rows.warnings)


def test_under_a_budget_rows_of_a_model_without_a_price_are_not_sent(bench: Workbench) -> None:
    """They fail alone, unsent, and say why; the others are asked, and the cap is held."""
    write(bench, m=MODELS)
    network = Network(answer=answer)
    summary = carry_out(by_model(bench, budget={"max_cost_usd": 1}), network)
    assert UNKNOWN not in {body["model"] for body in bodies(network).values()}
    row = bench.result().slice(3, 1).to_pylist()[0]
    assert (row["error_kind"], row["attempts"], row["request_hash"]) == ("model_not_found", 0, None)
    assert "no price is known for the model no-such-model" in row["error_message"]
    assert (summary.succeeded, summary.failed) == (7, 1)
    assert cometbatch.verify(bench.output).ok


def test_prices_by_model_win_and_the_jobs_own_are_its_own_models(bench: Workbench) -> None:
    """The prices at the top are not taken for another model's."""
    write(bench, m=[None, MINI, CACHE])
    prices = {"input": 1, "output": 1, "models": {MINI: {"per_request": 0.25}}}
    carry_out(by_model(bench, prices=prices), Network(answer=answer))
    assert bench.result()["cost_usd"].to_pylist() == [Decimal("0.000015"), Decimal("0.25"), TEN_AND_FIVE[CACHE]]
    assert cometbatch.verify(bench.output).ok


def test_a_run_by_model_resumes_and_is_asked_again(bench: Workbench) -> None:
    """A stop, the plain command, then `--retry` of the failed row with another model in place of the column."""
    write(bench, m=MODELS)
    left = iter(range(4))

    def poor(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST" and next(left, None) is None:
            refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
            return httpx.Response(403, json=refusal)
        return answer(request)

    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(by_model(bench), Network(answer=poor))
    network = Network(answer=answer)
    assert carry_out(by_model(bench), network).failed == 1
    assert sorted(bodies(network)) == [4, 5, 6, 7]
    network = Network(answer=answer)
    job = by_model(bench, target={"model_column": None, "model": CACHE})
    again = virtual_time.run(cometbatch.run_async(job, retry="model_not_found", progress=False, http=network))
    assert (again.all_succeeded, {row: body["model"] for row, body in bodies(network).items()}) == (True, {3: CACHE})
    assert bench.result()["cost_usd"].to_pylist()[3] == TEN_AND_FIVE[CACHE]
    assert cometbatch.verify(bench.output).ok


def test_too_many_models_are_no_models(bench: Workbench) -> None:
    """A column of texts is refused before anything is sent or written."""
    write(bench, m=[f"text-{row}" for row in range(MAX_MODELS + 1)])
    for attempt in (lambda: carry_out(by_model(bench), Network()), lambda: cometbatch.plan(by_model(bench))):
        with pytest.raises(cometbatch.UsageError, match=r"target\.model_column.*hardly models"):
            attempt()
    assert not (bench.run_directory / "manifest.json").exists()


@pytest.mark.parametrize(("key", "section"), [("target.model_column", "target"), ("params.columns.seed", "params")])
def test_a_column_that_is_not_there_is_refused_by_its_key(bench: Workbench, key: str, section: str) -> None:
    """As an id column is: with what there is."""
    given = {"model_column": "nmae"} if section == "target" else {"columns": {"seed": "nmae"}}
    with pytest.raises(cometbatch.UsageError, match=rf"{key}.*nmae.*the columns are"):
        cometbatch.plan(bench.job(**{section: given}))


# -- parameters --------------------------------------------------------------------------------------------------------


def test_a_row_has_its_own_parameters(bench: Workbench) -> None:
    """Numbers as numbers or as text; null is the job's own value; a wrong cell fails its row with key and column."""
    cells = ["0.5", None, "hot", "3", " ", "1e-1"]
    write(bench, t=cells, n=[7, 8, 9, 10, None, 12])
    job = bench.job(params={"temperature": 1, "columns": {"temperature": "t", "max_output_tokens": "n"}})
    network = Network()
    carry_out(job, network)
    asked = {row: (body["temperature"], body["max_completion_tokens"]) for row, body in bodies(network).items()}
    assert asked == {0: (0.5, 7), 1: (1.0, 8), 4: (1.0, 64), 5: (0.1, 12)}
    failed = bench.result().take([2, 3]).to_pylist()
    assert [row["error_kind"] for row in failed] == ["template", "template"]
    assert failed[0]["error_message"] == (
        "params.columns.temperature: column 't': expected a number from 0 to 2, found 'hot'"
    )
    assert "target" not in bench.result().column_names
    assert cometbatch.verify(bench.output).ok


def test_csv_cells_are_texts_and_numbers_all_the_same(bench: Workbench) -> None:
    """In a CSV all cells are texts."""
    bench.input.write_text("parcel,note,t,s\n0,a,0.25,5\n1,b,,\n", encoding="utf-8")
    network = Network()
    carry_out(bench.job(params={"columns": {"temperature": "t", "seed": "s"}}), network)
    sent = bodies(network)
    assert (sent[0]["temperature"], sent[0]["seed"]) == (0.25, 5)
    assert not {"temperature", "seed"} & sent[1].keys()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("t", "expected a mapping of parameters to columns"),
        ({}, "expected a mapping of parameters to columns"),
        ({"temprature": "t"}, "did you mean 'temperature'"),
        ({"extra": "t"}, "'extra' is none of max_output_tokens"),
        ({"seed": 3}, "seed: expected the name of a column"),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_place(bench: Workbench, columns: object, words: str) -> None:
    """Key, what is wrong, and the nearest right word."""
    with pytest.raises(cometbatch.JobError, match=f"params.columns: .*{words}"):
        bench.job(params={"columns": columns})


def test_a_parameter_that_the_format_lacks_is_refused(bench: Workbench) -> None:
    """Before anything is sent, as the parameter itself is."""
    with pytest.raises(cometbatch.JobError, match=r"params\.columns\.seed: .*messages"):
        bench.job(target={"format": "messages"}, params={"columns": {"seed": "s"}})


def test_the_columns_are_part_of_what_a_run_is(bench: Workbench) -> None:
    """Another column of temperatures gives other answers: drift. Where there are none, the fingerprint is as ever."""
    write(bench, t=[0.5, 1.0], u=[0.1, 0.2])
    plain = bench.job().fingerprint()
    assert not {"params.columns", "target.model_column"} & plain.keys()
    carry_out(bench.job(params={"columns": {"temperature": "t"}}), Network())
    with pytest.raises(cometbatch.DriftError, match=r"params\.columns"):
        carry_out(bench.job(params={"columns": {"temperature": "u"}}), Network())


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.text(max_size=8),
    st.dates(),
    st.lists(st.text(max_size=3), max_size=3),
    st.binary(max_size=3),
)
TARGET = Target("chat", MODEL, (MessageTemplate("user", "{{ note }}"),), model_column="m")


@given(model=CELLS, value=CELLS)
def test_any_cell_asks_or_fails_its_own_row(model: object, value: object) -> None:
    """Whatever stands in a cell, the row is asked with a value that the job itself may have, or fails in words."""
    names = ("temperature", "max_output_tokens", "stop")
    for name in names:
        target = Target("chat", MODEL, TARGET.messages, model_column="m", param_columns={name: "v"})
        asked: list[Target] = []

        def make(variant: Target, _number: int, asked: list[Target] = asked) -> RowMaker:
            asked.append(variant)
            return RowMaker((), None, lambda _: (), chat.request_builder(MODEL, variant.params), lambda each: each,
                            None, lambda: None, None)  # type: ignore[arg-type, return-value]  # fmt: skip

        found = RowVariants(target, {}, {}, make)({"m": model, "v": value})
        if isinstance(found, Failure):
            assert (found.kind, asked) == ("template", [])
            assert found.message.startswith(("target.model_column: column 'm'", f"params.columns.{name}: column 'v'"))
        else:
            (variant,) = asked
            assert (variant.model_column, variant.param_columns) == (None, {})
            assert " " not in variant.model
            temperature, cap = variant.params.temperature, variant.params.max_output_tokens
            assert temperature is None or 0 <= temperature <= 2
            assert cap is None or cap >= 1


def test_cells_that_are_equal_and_not_the_same_are_told_apart() -> None:
    """1, 1.0 and true are equal in Python; as a seed the first two are one, and the third is no number."""
    target = Target("chat", MODEL, TARGET.messages, param_columns={"seed": "v"})
    variants = RowVariants(target, {}, {}, lambda *_: RowMaker((), None, *[None] * 6))  # type: ignore[arg-type]
    found = [variants({"v": value}) for value in (1, True, 1.0, date(2026, 1, 1))]
    assert [isinstance(each, Failure) for each in found] == [False, True, False, True]
