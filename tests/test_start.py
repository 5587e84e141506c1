"""What a session finds when it starts, and what it must not lose, overwrite or pay for by mistake."""

import functools
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cometbatch
from tests import virtual_time
from tests.workbench import Network, Workbench, carry_out, files, leave_in_flight, simulator

SERVICE = "https://service.example"
Answer = Callable[[httpx.Request], httpx.Response | None]


def credit_for(posts: int) -> Answer:
    """A balance that pays for this many requests."""
    left = posts

    def answer(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        left -= request.method == "POST"
        refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
        return httpx.Response(403, json=refusal) if left < 0 else None

    return answer


def stopped_after(job: cometbatch.Job, answers: int, *, fresh: bool = False) -> cometbatch.RunStoppedError:
    """How a run stopped whose credit was spent after this many answers."""
    with pytest.raises(cometbatch.RunStoppedError) as caught:
        carry_out(job, Network(answer=credit_for(answers)), fresh=fresh)
    return caught.value


# -- whose file it is --------------------------------------------------------------------------------------------------


def edited(path: Path) -> None:
    """The result with a column more, as a data frame writes it."""
    pl.read_parquet(path).with_columns(checked=pl.lit("by hand")).write_parquet(path)


def noted(path: Path) -> None:
    """Something else under the result's name."""
    path.write_text("my notes", encoding="utf-8")


@pytest.mark.parametrize("change", [edited, noted])
def test_a_result_that_was_edited_is_not_overwritten(bench: Workbench, change: Callable[[Path], None]) -> None:
    """A run, plain or with retry, names the file and leaves it; moved away, the result is published again."""
    carry_out(bench.job(), Network())
    first = bench.result()
    change(bench.output)
    before, network = files(bench.folder), Network()
    for retry in ((), "failed"):
        with pytest.raises(cometbatch.UsageError, match=r"out\.parquet.*move that file away"):
            virtual_time.run(cometbatch.run_async(bench.job(), retry=retry, progress=False, http=network))
    assert (files(bench.folder), network.requests) == (before, [])
    bench.output.rename(bench.folder / "mine.parquet")
    assert carry_out(bench.job(), network).finished
    assert network.requests == []
    assert bench.result().equals(first)


def test_a_file_that_appears_while_the_run_goes_on_is_not_overwritten(bench: Workbench) -> None:
    """It is looked at again before the result is published, and the answers wait in the run directory."""

    def answer(request: httpx.Request) -> None:
        if request.method == "POST":
            noted(bench.output)

    with pytest.raises(cometbatch.UsageError, match="move that file away"):
        carry_out(bench.job(), Network(answer=answer))
    assert bench.output.read_text(encoding="utf-8") == "my notes"
    bench.output.unlink()
    network = Network()
    assert carry_out(bench.job(), network).all_succeeded
    assert network.requests == []


@pytest.mark.parametrize("answers", [0, 5])
@pytest.mark.parametrize("make", [noted, None])
def test_what_fresh_was_told_to_replace_is_replaced_by_a_later_session(
    bench: Workbench, answers: int, make: Callable[[Path], None] | None
) -> None:
    """A fresh run that stopped, with or without an answer, goes on without `fresh` and replaces what stood there."""
    if make is None:
        carry_out(bench.job(), Network())
    else:
        make(bench.output)
    before = bench.output.read_bytes()
    stopped_after(bench.job(), answers, fresh=True)
    assert bench.output.read_bytes() == before
    summary = carry_out(bench.job(), Network())
    assert summary.all_succeeded
    assert pq.read_metadata(bench.output).metadata[b"cometbatch.run_id"].decode() == summary.run_id


def test_what_changed_since_fresh_was_told_to_replace_it_stays(bench: Workbench) -> None:
    """The permission was for the file that stood there, not for whatever comes."""
    noted(bench.output)
    stopped_after(bench.job(), 5, fresh=True)
    bench.output.write_text("my later notes", encoding="utf-8")
    with pytest.raises(cometbatch.UsageError, match="move that file away"):
        carry_out(bench.job(), Network())
    assert bench.output.read_text(encoding="utf-8") == "my later notes"


def test_a_job_that_changed_before_its_first_answer_overwrites_nothing(bench: Workbench) -> None:
    """Where nothing is recorded a changed job begins anew, and then a file in the result's place is a stranger's."""
    stopped_after(bench.job(), 0)
    noted(bench.output)
    with pytest.raises(cometbatch.UsageError, match="exists"):
        carry_out(bench.job(prompt={"system": "Be long."}), Network())
    assert bench.output.read_text(encoding="utf-8") == "my notes"


def test_a_job_that_changed_before_its_first_answer_still_counts_what_was_in_flight(bench: Workbench) -> None:
    """A process that died with requests on the way may have been billed, whatever the prompt says by now."""
    stopped_after(bench.job(), 0)
    leave_in_flight(bench, [3, 7])
    summary = carry_out(bench.job(prompt={"system": "Be long."}), Network())
    assert (summary.all_succeeded, summary.resent, summary.possible_charges.charges) == (True, 2, 2)


def test_a_job_that_changed_before_its_first_answer_keeps_the_bill(bench: Workbench) -> None:
    """Attempts that may have been billed for nothing stay on the bill when the run begins anew."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            return None
        if asked:
            return credit_for(0)(request)
        asked.append(request)
        raise httpx.ReadTimeout("no reply in time", request=request)

    asked: list[httpx.Request] = []
    with pytest.raises(cometbatch.RunStoppedError) as caught:
        carry_out(bench.job(limits={"concurrency": 1}), Network(answer=answer))
    thrown = caught.value.summary.possible_charges
    assert thrown.charges == 1
    summary = carry_out(bench.job(prompt={"system": "Be long."}), Network())
    assert summary.possible_charges == thrown


def test_a_stopped_run_that_was_moved_is_resumed(bench: Workbench) -> None:
    """Job, input, output and run directory in another folder: only the rows that are missing are sent."""
    stopped_after(bench.job(), 5)
    elsewhere = Workbench(bench.folder.rename(bench.folder.with_name("elsewhere")))
    network = Network()
    assert carry_out(elsewhere.job(), network).all_succeeded
    assert network.posts == 12 - 5


# -- fresh -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stranger.parquet", "00000.parquet", "00007.parquet"])
@pytest.mark.parametrize("is_known", [True, False])
def test_fresh_does_not_remove_a_strangers_table(bench: Workbench, name: str, is_known: bool) -> None:
    """A data set's folder with a table that is no part of ours is refused by name, and nothing in it changes."""
    folder = bench.folder / "answers"
    job = bench.job(output={"path": f"{folder}/"})
    if is_known:
        carry_out(job, Network())
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": [1]}), folder / name)
    before, network = files(bench.folder), Network()
    with pytest.raises(cometbatch.UsageError, match=name):
        carry_out(job, network, fresh=True)
    assert (files(bench.folder), network.requests) == (before, [])


def lose_the_key(_: Workbench) -> dict[str, Any]:
    """No key in the environment."""
    return {"target": {"base_url": SERVICE}}


def break_the_input(bench: Workbench) -> dict[str, Any]:
    """A last line with too many cells."""
    with bench.input.open("ab") as file:
        file.write(b"1,2,3\n")
    return {}


def want_a_budget(_: Workbench) -> dict[str, Any]:
    """A budget that can't be held."""
    return {"prices": "none", "budget": {"max_cost_usd": 1}}


@pytest.mark.parametrize("spoil", [lose_the_key, break_the_input, want_a_budget])
@pytest.mark.parametrize("output", ["out.parquet", "answers/"])
def test_fresh_forgets_nothing_until_the_new_run_can_begin(
    bench: Workbench, output: str, spoil: Callable[[Workbench], dict[str, Any]]
) -> None:
    """Without a key, with a broken input or a budget that can't be held, the old answers are all still there."""
    place = {"path": f"{bench.folder}/{output}"}
    carry_out(bench.job(output=place), Network())
    job = bench.job(output=place, **spoil(bench))
    before = files(bench.folder)
    http = None if job.target.base_url == SERVICE else Network()
    with pytest.raises(cometbatch.UsageError):
        virtual_time.run(cometbatch.run_async(job, fresh=True, progress=False, http=http))
    assert files(bench.folder) == before


# -- prices ------------------------------------------------------------------------------------------------------------


def without_catalog(attempts: int, then: Answer | None = None) -> Answer:
    """A service whose catalog fails this many times."""
    left = attempts

    def answer(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        left -= request.method == "GET"
        if request.method == "GET" and left >= 0:
            raise httpx.ConnectError("connection refused", request=request)
        return None if then is None else then(request)

    return answer


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_catalog_that_fails_once_or_twice_is_asked_again(bench: Workbench, failures: int) -> None:
    """One lost reply must not make a whole run's cost unknown; and a run that has prices warns of nothing."""
    network = Network(answer=without_catalog(failures))
    summary = carry_out(bench.job(), network)
    assert summary.tally.unpriced == 0
    assert summary.warnings == ()
    assert sum(request.method == "GET" for request in network.requests) == failures + 1


def test_warnings_are_said_before_the_first_request(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever pays hears that costs are unknown while it can still be stopped; the summary repeats it."""
    said: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            said.append(capsys.readouterr().err)
        return without_catalog(99)(request)

    summary = carry_out(bench.job(), Network(answer=answer))
    assert f"Warning: {summary.warnings[0]}" in said[0]
    assert "no prices" in said[0]


def test_a_run_that_began_without_prices_finds_them_later(bench: Workbench) -> None:
    """A later session prices what it sends; what was recorded before stays unpriced, and a warning says so."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(), Network(answer=without_catalog(99, credit_for(5))))
    summary = carry_out(bench.job(), Network())
    assert (summary.tally.unpriced, summary.prices.source) == (5, "catalog")
    assert summary.cost_usd == sum(filter(None, bench.result()["cost_usd"].to_pylist())) > 0
    assert any("after 5 rows were recorded" in warning for warning in summary.warnings)
    assert not any("no prices" in warning for warning in summary.warnings)
    assert cometbatch.verify(bench.output).ok


def test_prices_that_are_set_in_the_job_later_are_used(bench: Workbench) -> None:
    """The advice of the warning, to set prices, helps the same run; the catalog is not asked any more."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(), Network(answer=without_catalog(99, credit_for(5))))
    network = Network()
    summary = carry_out(bench.job(prices={"per_request": 1}), network)
    assert (summary.cost_usd, summary.tally.unpriced) == (Decimal(7), 5)
    assert {request.method for request in network.requests} == {"POST"}


def test_a_run_without_an_answer_takes_its_prices_anew(bench: Workbench) -> None:
    """Nothing is priced yet, so nothing has to fit: today's prices count, and yesterday's warnings are gone."""
    with pytest.raises(cometbatch.RunStoppedError):
        carry_out(bench.job(), Network(answer=without_catalog(99, credit_for(0))))
    summary = carry_out(bench.job(), Network())
    assert (summary.tally.unpriced, summary.warnings) == (0, ())


@pytest.mark.parametrize("share", ["0.5", "1"])
def test_answers_without_token_counts_are_named_as_such(bench: Workbench, share: str) -> None:
    """The price is known, the counts are not: the words say so, and counts that nobody told are null, not 0."""
    summary = carry_out(bench.job(), simulator(f"no-usage:{share}"))
    uncounted = bench.result()["input_tokens"].null_count
    assert 0 < uncounted <= 12
    assert summary.warnings == (f"{uncounted:,} answers came without token counts: their cost is unknown",)
    assert "without a price" not in summary.describe()
    assert f"{uncounted:,} rows without token counts" in summary.describe()
    is_all = uncounted == 12
    assert ("tokens: unknown" in summary.describe()) == is_all
    assert all((count is None) == is_all for count in summary.to_dict()["usage"].values())
    assert cometbatch.status(bench.output).summary.warnings == summary.warnings


def test_a_run_of_a_version_before_the_first_release_is_refused_by_name(bench: Workbench) -> None:
    """By whoever is asked, and by whichever path: a new run beside it would pay for its answers again."""
    older = bench.output.with_name("out.parquet.run")
    older.mkdir()
    (older / "manifest.json").write_bytes(b'{"version": 2}')
    job = bench.job()
    asked: list[Callable[[], object]] = [functools.partial(cometbatch.status, path) for path in (bench.output, older)]
    asked += [functools.partial(cometbatch.verify, place) for place in (bench.output, older, job)]
    asked += [functools.partial(cometbatch.plan, job), functools.partial(carry_out, job, Network())]
    for ask in asked:
        with pytest.raises(cometbatch.CheckpointError, match=r"out\.parquet\.run: a version of cometbatch before"):
            ask()
    assert not (bench.run_directory / "manifest.json").exists()


def test_rows_in_flight_at_a_crash_count_once(bench: Workbench) -> None:
    """The next session counts them, whether or not it sends them itself; no later one counts them again."""
    stopped_after(bench.job(limits={"concurrency": 1}), 5)
    leave_in_flight(bench, [10, 11])
    for _ in range(3):
        assert stopped_after(bench.job(limits={"concurrency": 1}), 0).summary.resent == 2
    assert carry_out(bench.job(), Network()).resent == 2


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({}, 1024),
        ({"max_output_tokens": 64}, 2048),
        ({"max_output_tokens": 8192}, 1024),
        ({"max_output_tokens": 10**7}, 64),
    ],
)
def test_a_partition_is_small_enough_for_its_answers(bench: Workbench, params: dict[str, int], most: int) -> None:
    """Short inputs with long answers make no partition whose commit would not fit into memory."""
    bench.write_rows(9000)
    settings = bench.settings()
    plan = cometbatch.plan(cometbatch.load_job({**settings, "params": params, "prices": "none"}))
    assert plan.partition_rows == most


# -- the way on --------------------------------------------------------------------------------------------------------


def test_the_services_words_and_ours_do_not_run_together(bench: Workbench) -> None:
    """What the service says often has no full stop; the advice after it begins a sentence of its own."""
    stopped = stopped_after(bench.job(), 0)
    assert "not enough" in str(stopped)
    assert ". The account's balance" in str(stopped)


# -- plan --------------------------------------------------------------------------------------------------------------


def test_a_plan_of_a_run_half_done_is_of_what_remains(bench: Workbench) -> None:
    """Partitions are the run's own, and the estimate and the first request are of the rows that are not done."""
    stopped_after(bench.job(output={"partition_rows": 4}, limits={"concurrency": 1}), 6)
    plan = cometbatch.plan(bench.job(), http=Network())
    assert (plan.partition_rows, plan.done, plan.output_tokens) == (4, 6, 6 * 64)
    assert plan.first_request is not None
    assert "Parcel 0006" in str(plan.first_request["body"])
    assert "estimate for the 6 rows that remain" in plan.describe()


def test_a_plan_says_that_the_key_is_missing(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, since a plan itself needs no key."""
    job = bench.job(target={"base_url": SERVICE}, prices="none")
    assert any("COMETAPI_KEY" in warning for warning in cometbatch.plan(job).warnings)
    monkeypatch.setenv("COMETAPI_KEY", "sk-tests-need-no-real-key")
    assert cometbatch.plan(job).warnings == ()
