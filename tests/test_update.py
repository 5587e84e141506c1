"""`--update`: the table or the prompt changed since the run, and only new and changed rows are answered."""

import contextlib
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cometbatch
from cometbatch import cli
from cometbatch.cli import exit_codes
from cometbatch.commands.row_changes import compare
from cometbatch.errors import DriftError, UsageError
from cometbatch.job import settings as job_settings
from cometbatch.prompt.template import RENDERING
from cometbatch.store import local
from tests import virtual_time
from tests.workbench import USER, Network, Workbench, files

ROWS = 6
NIGHT_ROWS = int(os.environ.get("NIGHT_ROWS", "200"))
OTHER_PROMPT = {"user": "What is in parcel {{ parcel }}? {{ note }}"}


def no_credit_after(answers: int) -> Network:
    """A service whose account pays for this many answers."""
    left = itertools.count(answers, -1)

    def answer(request: httpx.Request) -> httpx.Response | None:
        refusal = {"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}
        return httpx.Response(403, json=refusal) if request.method == "POST" and next(left) <= 0 else None

    return Network(answer=answer)


class Nights(Workbench):
    """A table that grows and is edited, and a job over it."""

    def write(self, parcels: Iterable[int], *, edited: Iterable[int] = ()) -> None:
        """The table of a night."""
        changed = set(edited)
        lines = [f"{parcel:04d},note {parcel}{' again' if parcel in changed else ''}\n" for parcel in parcels]
        self.input.write_text("parcel,note\n" + "".join(lines), encoding="utf-8")

    def run(self, network: httpx.AsyncBaseTransport | None = None, **options: Any) -> cometbatch.RunSummary:
        """A night's run; `job` stands for sections of it."""
        sections = {"output": {"partition_rows": 2}, "limits": {"concurrency": 2, "adaptive": False}}
        job = self.job(**sections | options.pop("job", {}))
        return virtual_time.run(cometbatch.run_async(job, progress=False, http=network or Network(), **options))

    def stopped(self, answers: int, **options: Any) -> cometbatch.RunSummary:
        """A run that stops after some answers."""
        with pytest.raises(cometbatch.RunStoppedError) as stopped:
            self.run(no_credit_after(answers), **options)
        return stopped.value.summary

    @property
    def earlier(self) -> list[str]:
        """The ids of runs that stood here before."""
        return sorted(path.name for path in self.run_directory.glob("earlier/*"))

    @property
    def stands(self) -> str:
        """The id of the run whose result is there."""
        return str((pq.read_metadata(self.output).metadata or {})[b"cometbatch.run_id"], "ascii")


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """A table of some rows, not run yet."""
    bench = Nights(tmp_path)
    bench.write(range(ROWS))
    return bench


# -- what changed ----------------------------------------------------------------------------------------------------

ROW = st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["x", "y", None]))


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=8), st.lists(ROW, max_size=8))
def test_changes_add_up(old: list[tuple[str | None, str | None]], new: list[tuple[str | None, str | None]]) -> None:
    """Each row is counted once, also where ids repeat: the same, edited, and added or removed."""
    found = compare(old, new, len(old))
    assert found.same == (Counter(old) & Counter(new)).total()
    assert found.same + found.edited == (Counter(key for key, _ in old) & Counter(key for key, _ in new)).total()
    assert found.same + found.edited + found.added == len(new)
    assert found.same + found.edited + found.removed == len(old)
    by_request = compare(
        [(None, each) for _, each in old], [(None, each) for _, each in new], len(old), by_request=True
    )
    assert by_request.same == (Counter(each for _, each in old) & Counter(each for _, each in new)).total()
    assert (by_request.edited, by_request.same + by_request.added) == (0, len(new))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda bench: bench.write([0, 1, 2, 3, 5, 6, 7], edited=[1]),
            r"Rows: 2 added, 1 removed, 1 edited, 4 rows come",
        ),
        (
            lambda bench: bench.write(reversed(range(ROWS))),
            r"Rows: 0 added, 0 removed, 0 edited, 6 rows come out the same",
        ),
    ],
    ids=["rows", "their order"],
)
def test_the_plain_command_says_which_rows_changed_and_offers_the_update(
    nights: Nights, change: Callable[[Nights], None], words: str
) -> None:
    """Beside the other ways, which stay; nothing is sent, and `plan` says the same."""
    nights.run()
    change(nights)
    with pytest.raises(DriftError, match=words) as drift:
        nights.run(network := Network())
    with pytest.raises(DriftError, match=words):
        cometbatch.plan(nights.job(), http=Network())
    assert not network.posts
    for way in ("--update (in Python: update=True)", "Undo the change", "output.path", "--fresh"):
        assert way in str(drift.value)
    plan = cometbatch.plan(nights.job(), http=Network(), update=True)
    assert re.search(rf"updates the run that was begun .*{words}", plan.describe())
    assert plan.to_dict()["update"]["run_id"] == nights.stands


def test_rows_without_ids_are_told_by_their_requests(nights: Nights) -> None:
    """An edited one is one that is gone and one that is new, and the message says so."""
    without: dict[str, Any] = {"job": {"input": {"id": None}}}
    nights.run(**without)
    nights.write(range(ROWS + 1), edited=[1])
    with pytest.raises(
        DriftError, match=r"Rows: 2 added, 1 removed, 5 rows come out the same \(rows have no input\.id"
    ):
        nights.run(**without)


def test_an_edited_prompt_is_an_edit_of_the_rows_that_it_changes(nights: Nights) -> None:
    """Over the same table a row is told by its place, with ids or without."""
    prompt: dict[str, Any] = {"job": {"prompt": {"user": "{{ note }}{% if parcel == '0003' %} It is late.{% endif %}"}}}
    nights.run(job={"prompt": {"user": "{{ note }}"}})
    with pytest.raises(DriftError, match=r"0 added, 0 removed, 1 edited, 5 rows come out the same"):
        nights.run(**prompt)


def test_of_an_unfinished_run_the_answered_rows_are_compared(nights: Nights) -> None:
    """Of the others nothing is known yet."""
    done = nights.stopped(3).tally.calls
    nights.write(range(ROWS), edited=[0])
    with pytest.raises(
        DriftError, match=rf"Rows with an outcome so far: 0 removed, 1 edited, {done - 1} rows come out"
    ):
        nights.run()


# -- night after night -------------------------------------------------------------------------------------------------


def asked(network: Network) -> list[int]:
    """The parcels that a service was asked about, in order of their numbers."""
    found = (re.search(rb"Parcel ([0-9]+)", each.content) for each in network.requests if each.method == "POST")
    return sorted(int(each[1]) for each in found if each is not None)


def test_a_night_sends_its_new_and_edited_rows_alone(nights: Nights) -> None:
    """A row that was away is not paid again; `verify` holds each night; the server's own ledger is the witness.

    The job has no temperature, as the natural one.
    """
    one, half = max(1, NIGHT_ROWS // 100), max(1, NIGHT_ROWS // 200)  # 1 % and 0.5 %
    many: dict[str, Any] = {"job": {"output": {"partition_rows": 0}, "limits": {"concurrency": 64}}}
    many["job"]["output"]["partition_rows"] = max(16, NIGHT_ROWS // 10)
    service, all_rows = Network(), list(range(NIGHT_ROWS))
    away, edited = all_rows[half : 2 * half], all_rows[-half:]
    stays = [row for row in all_rows if row not in away]
    grown = [*stays, *range(NIGHT_ROWS, NIGHT_ROWS + one)]
    back = [*reversed(all_rows), *grown[-one:]]
    model = {"job": many["job"] | {"target": {"model": "comet-sim-1-mini"}}}
    prompt = {"job": many["job"] | {"prompt": {"user": "Parcel {{ parcel }} reads: {{ note }}"}}}
    table: list[tuple[list[int], list[int], dict[str, Any], list[int]]] = [
        (all_rows, [], many, all_rows),
        (grown, edited, many, sorted([*edited, *grown[-one:]])),
        (back, edited, many, []),
        (back, [], many, []),  # as they were
        (back, [], prompt, sorted(back)),
        (back, [], model, sorted(back)),
        (back[1:], edited, many, []),
    ]
    paid = 0
    for rows, changed, options, sent in table:
        nights.write(rows, edited=changed)
        service.requests.clear()
        summary = nights.run(service, **options, update=True)
        assert asked(service) == sent
        paid += len(sent)
        assert service.ledger["answered"] == paid
        assert (summary.succeeded, summary.tally.reused) == (len(rows), len(rows) - len(sent))
        result = nights.result()
        assert [int(each) for each in result.column("parcel").to_pylist()] == rows
        assert summary.cost_usd == sum(result.column("cost_usd").to_pylist())
        assert cometbatch.verify(nights.output).ok


def test_copies_of_one_answer_are_taken_once(nights: Nights) -> None:
    """After three nights, a row that was paid for once is one answer, however many rows ask the same then."""
    nights.write([1, 2])
    nights.run(update=True)
    for extra in (3, 4):
        nights.write([1, 2, extra])
        nights.run(update=True)
    nights.write([1, 1, 1, 1, 1])
    summary = nights.run(network := Network(), update=True)
    assert (summary.tally.reused, asked(network)) == (1, [1, 1, 1, 1])


def test_what_changes_no_request_sends_nothing(nights: Nights) -> None:
    """The order of rows, a column that no prompt uses, the id, the rules of rendering: the table is written anew."""
    nights.run()
    rows = list(reversed(range(ROWS)))
    nights.input.write_text(
        "note,parcel,more\n" + "".join(f"note {row},{row:04d},{row}\n" for row in rows), encoding="utf-8"
    )
    summary = nights.run(network := Network(), job={"input": {"id": "more"}}, update=True)
    assert (network.posts, summary.tally.reused) == (0, ROWS)
    assert summary.cost_usd == 0
    result = nights.result()
    assert result.column_names[:3] == ["note", "parcel", "more"]
    assert result.column("custom_id").to_pylist() == [str(row) for row in rows]
    assert result.column("reused_ordinal").to_pylist() == rows
    assert cometbatch.verify(nights.output).ok


def test_other_rules_of_rendering_send_the_rows_whose_request_they_change(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer program may render prompts otherwise: its run is an update, as of an edited prompt."""
    nights.run()
    monkeypatch.setattr(job_settings, "RENDERING", RENDERING + 1)
    with pytest.raises(DriftError, match=r"how prompts are rendered: was .*\n.*6 rows come out the same\. .*--update"):
        nights.run()
    summary = nights.run(network := Network(), update=True)
    assert (network.posts, summary.tally.reused) == (0, ROWS)


def test_a_failed_row_is_sent_again(nights: Nights) -> None:
    """Only what was answered is kept."""

    def refuse(request: httpx.Request) -> httpx.Response | None:
        refusal = {"error": {"message": "not this one", "code": "bad_row"}}
        return httpx.Response(400, json=refusal) if b"Parcel 0003" in request.content else None

    nights.run(Network(answer=refuse))
    nights.write(range(ROWS + 1))
    assert nights.run(network := Network(), update=True).all_succeeded
    assert asked(network) == [3, ROWS]


def test_answers_from_before_a_fresh_start_are_not_taken_any_more(nights: Nights) -> None:
    """Who starts over wants new answers: later updates go back to that start, and no further."""
    nights.run()
    nights.write([0, 1, 2])
    nights.run(update=True)
    nights.run(network := Network(), fresh=True)
    assert asked(network) == [0, 1, 2]
    nights.write(range(ROWS))
    nights.run(network := Network(), update=True)
    assert asked(network) == [3, 4, 5]


def test_answers_are_taken_from_the_last_run_once_earlier_ones_are_forgotten(nights: Nights) -> None:
    """The last run has all answers of its rows, whoever paid for them; only rows that were away are paid for again."""
    nights.run()
    nights.write([0, 1, 2, 3])
    nights.run(update=True, forget_earlier=True)
    nights.write(range(ROWS + 1))
    summary = nights.run(network := Network(), update=True)
    assert (asked(network), summary.tally.reused) == ([4, 5, ROWS], 4)


# -- an update that goes on ------------------------------------------------------------------------------------------


def test_the_result_stands_until_the_update_is_whole(nights: Nights) -> None:
    """Each command tells of the update while it is unfinished; the plain command resumes it."""
    nights.run()
    before, old = files(nights.output.parent)["out.parquet"], nights.stands
    nights.write(range(ROWS + 3))
    summary = nights.stopped(1, job={"prompt": OTHER_PROMPT}, update=True)
    assert (summary.updates, summary.rows) == (old, ROWS + 3)
    assert "as it was before this update: the run is not finished" in summary.describe()
    assert files(nights.output.parent)["out.parquet"] == before
    job = nights.job(output={"partition_rows": 2}, prompt=OTHER_PROMPT)
    for target in (job, nights.output, nights.run_directory):
        status = cometbatch.status(target)
        assert (status.summary.rows, status.summary.updates, status.summary.finished) == (ROWS + 3, old, False)
        with pytest.raises(UsageError, match="this run is not finished"):
            cometbatch.verify(target)
    assert len(list(cometbatch.show(job).lines())) == 1 + summary.tally.calls
    shown = cometbatch.show(nights.output)
    assert len(list(shown.lines())) == 1 + ROWS
    assert f"a run of this output is not finished: cometbatch show {nights.run_directory}" in shown.notes[0]
    assert cometbatch.plan(job, http=Network()).done == summary.tally.calls
    finished = nights.run(job={"prompt": OTHER_PROMPT})
    assert (finished.run_id, finished.finished, nights.stands) == (summary.run_id, True, summary.run_id)
    assert nights.earlier == [old]
    assert cometbatch.verify(job).ok


def test_what_was_given_up_is_on_the_bill_of_what_follows(nights: Nights) -> None:
    """An update has a bill of its own; what a stopped one had cost is told beside it, also over several."""
    nights.run()
    prompts = [{"prompt": {"user": words + " {{ note }}"}} for words in ("First", "Second")]
    spent = [nights.stopped(1, job=prompt, update=True).cost_usd or Decimal(0) for prompt in prompts]
    summary = nights.run(job={"prompt": {"user": "Third {{ note }}"}}, update=True)
    assert summary.given_up is not None
    assert summary.given_up.cost_usd == sum(spent)
    assert "unfinished runs that this update replaces cost $" in summary.describe()
    assert summary.cost_usd == sum(nights.result().column("cost_usd").to_pylist())
    assert summary.to_dict()["given_up"]["answers"] > 1
    assert len(nights.earlier) == 3
    assert cometbatch.status(nights.output).summary.given_up == summary.given_up
    nights.write(range(ROWS + 1))
    assert nights.run(job={"prompt": {"user": "Third {{ note }}"}}, update=True).given_up is None


def test_a_result_that_was_moved_away_is_no_run_that_was_given_up(nights: Nights) -> None:
    """Its cost was told with it: a job whose results are moved each night does not tell it again each night."""
    nights.run()
    for night in (1, 2):
        nights.output.unlink()
        nights.write(range(ROWS + night))
        summary = nights.run(network := Network(), update=True)
        assert (summary.given_up, network.posts) == (None, 1)


def test_an_update_that_was_given_up_before_it_paid_is_no_cost(nights: Nights) -> None:
    """It had taken answers alone."""
    nights.run()
    nights.write(range(ROWS), edited=[ROWS - 1])
    nights.stopped(0, update=True)
    nights.write(range(ROWS), edited=[ROWS - 2])
    assert nights.run(update=True).given_up is None


def test_a_damaged_earlier_run_is_named_with_the_way_that_keeps_the_others(nights: Nights) -> None:
    """Nothing is sent, `verify` goes on without it, and moving that folder away is enough."""
    first = nights.run().run_id
    nights.write(range(ROWS + 1))
    nights.run(update=True)
    manifest = nights.run_directory / "earlier" / first / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:50])
    assert "can't be read" in str(cometbatch.verify(nights.output))
    nights.write(range(ROWS + 2))
    with pytest.raises(UsageError, match=f"{first}: .* can't be read.*move that folder away") as refused:
        nights.run(network := Network(), update=True)
    assert (network.posts, "--fresh" in str(refused.value)) == (0, False)
    shutil.rmtree(manifest.parent)
    nights.run(network := Network(), update=True)
    assert network.posts == 1


def test_an_update_goes_back_to_the_run_that_stands_where_the_change_is_undone(nights: Nights) -> None:
    """The stopped update is kept among the earlier runs, and nothing is sent."""
    stands = nights.run().run_id
    given_up = nights.stopped(1, job={"prompt": OTHER_PROMPT}, update=True).run_id
    with pytest.raises(DriftError, match="add --update"):
        nights.run()
    summary = nights.run(network := Network(), update=True)
    assert (summary.run_id, summary.had_work, network.posts) == (stands, False, 0)
    assert nights.earlier == [given_up]


def test_an_unfinished_run_is_updated_like_a_finished_one(nights: Nights) -> None:
    """It has no result that could stand; its cost is told, since no summary of a result has it."""
    spent = nights.stopped(2).cost_usd
    nights.write(range(ROWS), edited=[5])
    summary = nights.run(update=True)
    assert summary.finished
    assert summary.given_up is not None
    assert summary.given_up.cost_usd == spent


def test_a_try_of_the_first_rows_is_a_part_of_the_update(nights: Nights) -> None:
    """`--limit` publishes nothing; without it the same update goes on."""
    stands = nights.run().run_id
    tried = nights.run(job={"prompt": OTHER_PROMPT}, update=True, limit=2)
    assert (tried.tally.calls, nights.stands) == (2, stands)
    network = Network()
    whole = nights.run(network, job={"prompt": OTHER_PROMPT}, update=True)
    assert (whole.run_id, network.posts) == (tried.run_id, ROWS - 2)


def test_an_update_without_an_outcome_stays_one(nights: Nights) -> None:
    """The plain command begins it anew where the job changed, with the columns that tell where answers are from."""
    nights.run()
    nights.stopped(0, job={"prompt": OTHER_PROMPT}, update=True)
    summary = nights.run(network := Network(), job={"prompt": {"user": USER + "{% if parcel == '0001' %}!{% endif %}"}})
    assert summary.finished
    assert (network.posts, summary.tally.reused) == (1, ROWS - 1)
    assert "reused_from" in nights.result().column_names
    assert len(nights.earlier) == 1


# -- what an update may replace --------------------------------------------------------------------------------------


def test_another_file_in_the_result_s_place_is_not_replaced(nights: Nights) -> None:
    """It is refused before anything is sent; where it came later, before the result would be overwritten."""
    nights.run()
    result = nights.output.read_bytes()
    nights.write(range(ROWS + 1))
    pl.DataFrame({"mine": [1]}).write_parquet(nights.output)
    with pytest.raises(UsageError, match="is not the file that this run wrote"):
        nights.run(network := Network(), update=True)
    assert not network.posts
    nights.output.write_bytes(result)  # another time, the same run: it is told by its id
    nights.stopped(1, job={"prompt": OTHER_PROMPT}, update=True)
    pl.DataFrame({"mine": [1]}).write_parquet(nights.output)
    with pytest.raises(UsageError, match="is not the file that this run wrote"):
        nights.run(job={"prompt": OTHER_PROMPT})
    assert nights.result().column_names == ["mine"]
    nights.output.unlink()
    assert nights.run(job={"prompt": OTHER_PROMPT}).finished


def test_a_data_set_is_not_updated_in_place(nights: Nights) -> None:
    """The refusal has the way that never pays again: a folder for each night."""
    folder: dict[str, Any] = {"job": {"output": {"path": f"{nights.folder}/out/monday/"}}}
    nights.run(**folder)
    nights.write(range(ROWS + 1))
    ways: list[dict[str, Any]] = [{}, {"update": True}]
    for options in ways:
        with pytest.raises(
            UsageError, match=r"folder of its own, .*/out/2026-11-30/, and set reuse\.from: \['.*/out/\*/'\]"
        ):
            nights.run(**folder, **options)


def test_the_folder_that_is_named_for_a_data_set_is_free(nights: Nights) -> None:
    """Whoever does what the refusal says begins a run there, wherever the data set is and whatever lies beside it."""
    nights.run(job={"output": {"path": f"{nights.folder}/out/2026-11-30/"}})
    (nights.folder / "out/_2026-11-30-2.run").mkdir()
    for rows in range(1, 4):
        nights.write(range(ROWS + rows))
        last = max((path.name for path in nights.folder.glob("out/2026*")), key=len)
        with pytest.raises(UsageError, match="folder of its own") as refused:
            nights.run(job={"output": {"path": f"{nights.folder}/out/{last}/"}}, update=True)
        found = re.search(r"output\.path: (.*/), and set reuse\.from: \['(.*)'\]", str(refused.value))
        assert found is not None
        network = Network()
        nights.run(network, job={"output": {"path": found[1]}, "reuse": {"from": [found[2]]}}, update=True)
        assert network.posts == 1, found[1]


@pytest.mark.parametrize("other", [{"fresh": True}, {"retry": "failed"}, {"set_aside": ["00000.1.jsonl"]}])
def test_options_that_say_the_contrary_are_refused(nights: Nights, other: dict[str, Any]) -> None:
    """With the way on."""
    with pytest.raises(UsageError, match=r"--update and --.* exclude each other: "):
        nights.run(update=True, **other)


def test_an_update_where_nothing_is_begins_the_run(nights: Nights) -> None:
    """A nightly job has one command. Where nothing changed, it does what the plain command does."""
    assert nights.run(update=True).finished
    assert {"reused_from", "reused_ordinal", "reused_cost_usd"} < set(nights.result().column_names)
    before = files(nights.folder)
    summary = nights.run(update=True)
    assert (summary.had_work, summary.updates) == (False, None)
    assert files(nights.folder) == before


def test_a_fresh_start_forgets_an_unfinished_update_too(nights: Nights) -> None:
    """Both runs go; earlier ones stay until they are forgotten by their own option."""
    first = nights.run().run_id
    nights.write(range(ROWS + 1))
    second = nights.run(update=True).run_id
    nights.stopped(1, job={"prompt": OTHER_PROMPT}, update=True)
    fresh = nights.run(fresh=True)
    assert nights.stands == fresh.run_id not in {first, second}
    assert not (nights.run_directory / "next").exists()
    assert nights.earlier == [first]


@pytest.mark.parametrize("sent", [0, 1])
def test_a_fresh_start_asks_for_all_that_it_deletes(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sent: int
) -> None:
    """The paid answers of an unfinished run are not deleted without a word because an update of it has begun."""
    monkeypatch.setattr("sys.argv", ["cometbatch", "run", "job.yaml", "--fresh"])
    nights.stopped(4)
    nights.write(range(10, 10 + ROWS) if sent else range(ROWS + 1))
    summary = nights.stopped(sent, update=True)
    job = nights.job(output={"partition_rows": 2}, limits={"concurrency": 2, "adaptive": False})
    with pytest.raises(SystemExit) as ended:
        cli._confirm_fresh(job, yes=False, waits=False)
    assert ended.value.code == exit_codes.WRONG_USAGE
    words = capsys.readouterr().err
    assert f"would delete the answers of {summary.tally.calls} of {summary.rows} rows, which cost $" in words
    assert "and of the run that it updates: 4 of 6 rows, which cost $0.0" in words


def test_earlier_runs_are_forgotten_when_the_run_is_finished(nights: Nights) -> None:
    """Not before: an unfinished run may take their answers still. The summary says what that frees."""
    nights.run()
    nights.write(range(ROWS + 1))
    nights.run(update=True)
    nights.stopped(1, job={"prompt": OTHER_PROMPT}, update=True, forget_earlier=True)
    assert len(nights.earlier) == 1
    summary = nights.run(job={"prompt": OTHER_PROMPT}, forget_earlier=True)
    assert summary.forgotten is not None
    assert summary.forgotten[0] == 2
    assert re.search(r"2 earlier runs removed: 0\.[0-9] MB", summary.describe())
    assert nights.earlier == []
    assert cometbatch.verify(nights.output).ok
    assert nights.run(job={"prompt": OTHER_PROMPT}, forget_earlier=True).forgotten == (0, 0)


def test_a_simulated_update_gives_way_to_the_run_that_stands(nights: Nights) -> None:
    """Its answers cost nothing; the answers of the service that were paid for stay where they are."""
    service: dict[str, Any] = {"job": {"target": {"base_url": "http://127.0.0.1:1/v1"}, "prices": "none"}}
    paid = nights.run(**service).run_id
    nights.stopped(1, job={"prompt": OTHER_PROMPT}, update=True)
    summary = nights.run(network := Network(), **service)
    assert (summary.run_id, summary.had_work, network.posts, nights.stands) == (paid, False, 0, paid)


def test_a_table_of_the_caller_is_updated_like_a_file(nights: Nights) -> None:
    """Another table is refused with the way on, and answered with `update`."""
    table = pl.DataFrame({"parcel": [1, 2], "note": ["one", "two"]})
    more = pl.concat([table, pl.DataFrame({"parcel": [3], "note": ["three"]})])
    nights.run(input=table)
    with pytest.raises(DriftError, match=r"1 added, 0 removed, 0 edited, 2 rows come out the same"):
        nights.run(input=more)
    assert nights.run(input=more, update=True).rows == len(more)
    assert len(list(nights.folder.glob("_out.parquet.input-*"))) == 1


# -- moves that were cut off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moves", [0, 1, 5, 8, 12])
def test_every_command_is_right_where_the_moves_were_cut_off(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """The new result stands, so every command tells of the new run, and changes nothing to do so."""
    nights.run()
    nights.write(range(ROWS + 2))
    left = iter(range(moves))
    really = local.move

    def cut_off(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        really(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(local, "move", cut_off)
        nights.run(update=True)
    before = files(nights.folder)
    job = nights.job(output={"partition_rows": 2})
    for target in (job, nights.output, nights.run_directory):
        status = cometbatch.status(target)
        assert (status.summary.run_id, status.summary.finished) == (nights.stands, True)
        assert cometbatch.verify(target).ok
        assert len(list(cometbatch.show(target, limit=99).lines())) == 1 + ROWS + 2
    for update in (False, True):
        assert cometbatch.plan(job, http=Network(), update=update).finished
    nights.write(range(ROWS + 3))
    plan = cometbatch.plan(job, http=Network(), update=True)
    assert (plan.rows, plan.update and plan.update.run_id) == (ROWS + 3, nights.stands)
    nights.write(range(ROWS + 2))
    os.utime(nights.input, ns=(before["in.csv"][1], before["in.csv"][1]))
    assert files(nights.folder) == before
    summary = nights.run(network := Network())
    assert (summary.run_id, summary.had_work, network.posts) == (nights.stands, False, 0)
    assert not (nights.run_directory / "next").exists()
    assert cometbatch.verify(job).ok
    shutil.rmtree(nights.folder)
