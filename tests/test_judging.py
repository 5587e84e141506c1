"""`judge`: what is asked about which answers, what is never asked or paid twice, and what the verdicts come to.

The service here says what each test wants; where costs are compared, it is the simulator, which keeps a ledger.
"""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from click.testing import CliRunner

import cometbatch
from cometbatch import cli
from cometbatch.errors import DriftError, JobError, UsageError
from cometbatch.results.terminal import columns
from cometbatch.simulator.app import create_app
from cometbatch.simulator.behaviour import Behaviour
from tests.test_job import refused, written
from tests.test_matrix_run import model_of
from tests.workbench import Network, Workbench

SHORT, LONG, OTHER, JUDGE = "comet-sim-1", "comet-sim-1-mini", "comet-sim-parts", "comet-sim-cache"
ROWS = 6
PROMPT = "Parcel {{ parcel }}\n--1--\n{{ first }}\n--2--\n{{ second }}"
LENGTHS = {SHORT: 3, LONG: 9, OTHER: 6}


def answer_of(model: str, prompt: str) -> str:
    """What a model says of a parcel: the same each time, and of its own length."""
    parcel = re.search(r"[Pp]arcel (\d+)", prompt)
    assert parcel is not None
    return f"{parcel[1]} {'x' * LENGTHS[model]}"


def longer(first: str, second: str) -> str:
    """The verdict of a judge who likes long answers."""
    return "tie" if len(first) == len(second) else "1" if len(first) > len(second) else "2"


class Court:
    """A table, models that answer, and a judge. `judge`: what it says of two answers."""

    def __init__(self, folder: Path, judge: Callable[[str, str], object] = longer) -> None:
        self.bench = Workbench(folder)
        self.bench.write_rows(ROWS)
        self.judged: list[str] = []
        self.answers: dict[tuple[str, str], str] = {}
        self.judge = judge
        self.network = Network(create_app(Behaviour(latency_s=(0, 0))), answer=self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        model, body = model_of(request), json.loads(request.content)
        prompt = next(each["content"] for each in body["messages"] if each["role"] == "user")
        if model != JUDGE:
            return reply(model, self.answers.get((model, prompt), answer_of(model, prompt)))
        self.judged.append(prompt)
        if "--1--" not in prompt:
            return reply(model, json.dumps(self.judge(prompt, "")))
        first, second = (part.strip() for part in prompt.partition("--1--")[2].split("--2--"))
        verdict = self.judge(first, second)
        said = verdict if isinstance(verdict, dict) else {"reason": "so it is", "verdict": verdict}
        return reply(model, json.dumps(said))

    def job(self, *models: str, judge: Mapping[str, Any] | None = None, **sections: Any) -> cometbatch.Job:
        """A job over these models, or the first two, and its judge."""
        asked: dict[str, Any] = {
            "target": {"format": "chat", "model": JUDGE},
            "params": {"max_output_tokens": 100},
            "prompt": {"user": PROMPT},
            "pairwise": {"baseline": SHORT},
        }
        if judge is not None and "rubric" in judge:
            del asked["pairwise"]
        settings = self.bench.settings(
            matrix={"model": list(models or (SHORT, LONG)), "samples": 1} | sections.pop("matrix", {}),
            judge={**asked, **(judge or {})},
            limits={"stop_within_s": 0.1},
            **sections,
        )
        del settings["target"]["model"]
        return cometbatch.load_job(settings)

    def run(self, job: cometbatch.Job, **options: Any) -> cometbatch.RunSummary:
        """Run the job itself."""
        return cometbatch.run(job, progress=False, http=self.network, **options)

    def ask(self, job: cometbatch.Job, **options: Any) -> tuple[cometbatch.JudgeSummary, int]:
        """Run the judge; what it came to, and how often it was asked for that."""
        before = len(self.judged)
        found = cometbatch.judge(job, progress=False, http=self.network, **options)
        return found, len(self.judged) - before

    def both(self, job: cometbatch.Job) -> tuple[cometbatch.JudgeSummary, int]:
        """Run the job and then its judge."""
        self.run(job)
        return self.ask(job)


def reply(model: str, text: str) -> httpx.Response:
    """An answer in the chat format."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}
    return httpx.Response(200, json=body)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_each_pair_is_asked_in_both_orders(tmp_path: Path) -> None:
    """Each answer stands first once; who wins in both orders has won, and both orders agree."""
    court = Court(tmp_path)
    found, asked = court.both(court.job())
    assert asked == 2 * ROWS
    for parcel in range(ROWS):
        own = [each for each in court.judged if each.startswith(f"Parcel {parcel:04d}")]
        short, long = (f"{parcel:04d} {'x' * LENGTHS[model]}" for model in (SHORT, LONG))
        orders = ((short, long), (long, short))
        assert sorted(own) == sorted(f"Parcel {parcel:04d}\n--1--\n{a}\n--2--\n{b}" for a, b in orders)
    (pair,) = found.pairs
    assert (pair.x.labels["model"], pair.y.labels["model"]) == (LONG, SHORT)
    figures = pair.line.figures
    assert (figures.pairs, figures.missing, figures.win_rate) == (ROWS, 0, 1.0)
    assert (figures.consistent, figures.flips, figures.first_place) == (ROWS, 0, 0.5)
    assert pair.line.interval is not None
    assert pair.line.interval.high == 1
    assert found.ended_well
    verdicts = pl.read_parquet(pair.output)
    assert verdicts["judge_verdict"].to_list() == ["1"] * ROWS + ["2"] * ROWS
    assert verdicts["judge_order"].to_list() == ["xy"] * ROWS + ["yx"] * ROWS
    assert verdicts["judged_row"].to_list() == [*range(ROWS)] * 2


def test_a_judge_who_believes_whoever_stands_first_says_nothing(tmp_path: Path) -> None:
    """Each answer wins once: half a win for both, and every pair flips."""
    court = Court(tmp_path, lambda _first, _second: "1")
    figures = court.both(court.job())[0].pairs[0].line.figures
    assert (figures.win_rate, figures.consistent, figures.flips, figures.first_place) == (0.5, 0, ROWS, 1.0)


def test_one_order_is_asked_only_by_word(tmp_path: Path) -> None:
    """Half the calls; what both orders would tell is not told."""
    court = Court(tmp_path, lambda _first, _second: "1")
    found, asked = court.both(court.job(judge={"pairwise": {"baseline": SHORT, "swap": False}}))
    assert asked == ROWS
    said = found.pairs[0].to_dict()
    assert (said["win_rate"], said["pairs"], said["flips"], said["consistent"]) == (1.0, ROWS, None, None)


def test_what_is_no_verdict_is_missing(tmp_path: Path) -> None:
    """Never a tie and never a loss; half of a pair is missing as a whole, and the command says that some are."""

    def judge(first: str, second: str) -> object:
        if first.startswith("0000"):
            return {"reason": "?", "verdict": "both"}
        if first.startswith("0001") and len(first) > len(second):
            return {"reason": "?"}
        return longer(first, second)

    court = Court(tmp_path, judge)
    found, _ = court.both(court.job())
    figures = found.pairs[0].line.figures
    assert (figures.pairs, figures.missing, figures.win_rate) == (ROWS - 2, 2, 1.0)
    assert not found.ended_well


def test_an_answer_that_is_not_there_is_not_judged(tmp_path: Path) -> None:
    """Only pairs of whole answers are asked about; the others are counted."""
    court = Court(tmp_path)
    court.answers[SHORT, "Parcel 0002 says: note 2, in two\nlines"] = ""
    found, asked = court.both(court.job())
    assert asked == 2 * (ROWS - 1)
    assert (found.pairs[0].line.unanswered, found.pairs[0].line.figures.pairs) == (1, ROWS - 1)
    assert "1 (1 unanswered)" in found.describe()


def test_samples_are_compared_with_samples_of_the_same_number(tmp_path: Path) -> None:
    """And the questions are what is counted: two samples of one question are no two questions."""
    court = Court(tmp_path)
    found, asked = court.both(court.job(matrix={"samples": 3}))
    assert asked == 2 * 3 * ROWS
    table = pl.read_parquet(found.pairs[0].output)
    assert table["judged_sample"].unique().sort().to_list() == [0, 1, 2]
    assert found.pairs[0].line.figures.pairs == 3 * ROWS
    assert len({question for question, _ in found.pairs[0].line.values}) == ROWS


def test_all_cells_are_compared_and_have_strengths(tmp_path: Path) -> None:
    """One that never lost has none, in words, until a ridge is asked for."""
    court = Court(tmp_path)
    every = {"pairwise": {"all": True}}
    found, asked = court.both(court.job(SHORT, LONG, OTHER, judge=every))
    assert asked == 3 * 2 * ROWS
    assert len(found.pairs) == 3
    assert found.strengths == ()
    assert any("never lost" in note for note in found.notes)
    ridge = {"pairwise": {"all": True, "ridge": 0.1}}
    found, asked = court.ask(court.job(SHORT, LONG, OTHER, judge=ridge))
    assert asked == 0
    assert [each.words for each in found.strengths] == [LONG, OTHER, SHORT]
    assert sum(each.value for each in found.strengths) == pytest.approx(0, abs=1e-9)


def test_with_further_axes_a_cell_is_compared_with_the_baseline_of_its_own_kind(tmp_path: Path) -> None:
    """At each temperature the models of that temperature."""
    court = Court(tmp_path)
    job = court.job(matrix={"params.temperature": [0, 1]})
    found, _ = court.both(job)
    pairs = [(each.x.labels["temperature"], each.y.labels["temperature"]) for each in found.pairs]
    assert pairs == [(0, 0), (1, 1)]
    assert {each.y.labels["model"] for each in found.pairs} == {SHORT}


def test_a_rubric_gives_whole_numbers_within_their_range(tmp_path: Path) -> None:
    """Anything else is missing; the mean has a t interval, by question."""
    numbers = {"0000": 5, "0001": 4, "0002": 9, "0003": 2.5, "0004": 1, "0005": 2}

    def judge(prompt: str, _: str) -> object:
        return {"reason": "so", "clear": numbers[prompt[7:11]]}

    court = Court(tmp_path, judge)
    rubric = {"rubric": {"criteria": {"clear": "1-5"}}, "prompt": {"user": "Parcel {{ parcel }}: {{ answer }}"}}
    found, asked = court.both(court.job(judge=rubric))
    assert asked >= 2 * ROWS  # what does not fit is asked once more
    clear = found.cells[0].ratings["clear"]
    assert (clear.mean, clear.answers, clear.missing) == (3.0, 4, 2)
    assert clear.interval is not None
    assert clear.interval.low < 1, "of other scores than shares, the interval has no bounds"
    assert [each.cell.labels["model"] for each in found.cells] == [SHORT, LONG]


def test_questions_of_one_cluster_count_as_one(tmp_path: Path) -> None:
    """As the section `report` says, in which an empty cell is a cluster of its own; without it each question is."""
    court = Court(tmp_path, lambda first, _second: "1" if first < "0003" else "2")
    score: dict[str, Any] = {"score": {"s": {"contains": "{{ parcel }}"}}, "report": {"cluster": "note"}}
    notes = ["a", "a", None, "b", "b", None]
    court.bench.write_table(pl.DataFrame({"parcel": [f"{n:04d}" for n in range(ROWS)], "note": notes}).to_arrow())
    found, _ = court.both(court.job(**score))
    assert {question for question, _ in found.pairs[0].line.values} == {0, 1, 2, 3}


def test_without_the_extra_there_are_rates_and_no_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says how to get them; the verdicts are the same."""
    court = Court(tmp_path)
    court.both(court.job())
    monkeypatch.setattr("cometbatch.reports.judging._statistics", lambda: None)
    found, _ = court.ask(court.job())
    line = found.pairs[0].line
    assert (line.figures.win_rate, line.figures.se, line.interval, line.level) == (1.0, 0.0, None, None)
    assert "statistics need `pip install 'cometbatch[eval]'`: without it there are no intervals" in found.describe()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(tmp_path: Path, width: int) -> None:
    """Columns that do not fit come below, with the names again; wide characters are as wide as they are shown."""
    court = Court(tmp_path)
    variants: list[dict[str, Any]] = [{"name": "日本語"}, {"name": "x" * 30, "params": {"temperature": 1}}]
    found, _ = court.both(
        court.job(SHORT, matrix={"variant": variants}, judge={"pairwise": {"all": True}}, params={"temperature": 0})
    )
    lines = found.describe(width).partition("result: ")[0].splitlines()
    assert max(map(columns, lines)) <= width
    assert columns(lines[0].partition("rate")[0]) == columns(lines[1].partition("0.500")[0])
    assert "flips" in found.describe(width)


# --- never twice ------------------------------------------------------------------------------------------------------


def test_what_has_a_verdict_is_not_asked_again(tmp_path: Path) -> None:
    """Nor with other labels, nor as a pair of another baseline: a new model costs its own pairs alone."""
    court = Court(tmp_path)
    first, _ = court.both(court.job())
    again, asked = court.ask(court.job())
    assert asked == 0
    assert again.to_dict() == first.to_dict()
    assert "nothing was sent now" in again.describe()
    renamed = court.job(
        matrix={"model": [{"name": "little", "value": SHORT}, LONG]}, judge={"pairwise": {"baseline": "little"}}
    )
    court.run(renamed)
    found, asked = court.ask(renamed)
    assert (asked, found.pairs[0].y.words) == (0, "little")
    turned, asked = court.ask(court.job(judge={"pairwise": {"baseline": LONG}}))
    assert asked == 0
    assert turned.pairs[0].line.figures.win_rate == 0, "the pair is the same, seen from the other side"
    more = court.job(SHORT, LONG, OTHER, judge={"pairwise": {"all": True}})
    court.run(more)
    _, asked = court.ask(more)
    assert asked == 2 * 2 * ROWS, "the pairs of the new model"


def test_the_budget_is_one_over_all_pairs(tmp_path: Path) -> None:
    """The judge stops at it, says which pair and which key, and goes on with what is left: no call is made twice."""
    court = Court(tmp_path)
    prices = {"input": 0, "output": 1000}  # half a cent for each verdict
    budget = {"prices": prices, "budget": {"max_cost_usd": 0.17}, "params": {"max_output_tokens": 5}}
    job = court.job(SHORT, LONG, OTHER, judge=budget)
    court.run(job)
    with pytest.raises(cometbatch.BudgetReachedError) as stopped:
        court.ask(court.job(SHORT, LONG, OTHER, judge=budget | {"budget": {"max_cost_usd": 0.08}}))
    assert "comet-sim-parts against comet-sim-1: what is left of judge.budget.max_cost_usd" in str(stopped.value)
    assert len(court.judged) == 16
    assert stopped.value.budget_to_finish is not None
    assert Decimal("0.12") <= stopped.value.budget_to_finish <= Decimal("0.13"), "with what the other pair has spent"
    found, asked = court.ask(job)
    assert (asked, len(set(court.judged)), len(court.judged)) == (8, 24, 24)
    assert (found.cost_usd, found.spent_usd) == (Decimal("0.12"), Decimal("0.12"))


def test_changed_answers_are_never_judged_as_those_that_they_were(tmp_path: Path) -> None:
    """The pair is named, nothing is sent, and `update` asks about what changed; all that was paid stays counted."""
    court = Court(tmp_path)
    job = court.job(SHORT, LONG, OTHER, judge={"prices": {"input": 0, "output": 1000}})
    court.both(job)
    court.answers[LONG, "Parcel 0004 says: note 4, in two\nlines"] = "0004 y"
    court.run(job, fresh=True)
    with pytest.raises(DriftError, match=f"{LONG} against {SHORT}: .*this has changed: answers of the run.*--update"):
        court.ask(job)
    assert len(court.judged) == 24
    assert not list((tmp_path / "out.judge").glob("*.new"))
    found, asked = court.ask(job, update=True)
    assert asked == 2
    assert found.pairs[0].line.figures.win_rate == pytest.approx(5 / 6)
    assert found.spent_usd == Decimal("0.13"), "24 verdicts, and the two that replaced others"
    assert "in all, $0.1300 was spent" in found.describe()
    assert court.ask(job)[1] == 0


def test_another_way_to_ask_is_never_mixed_with_the_first(tmp_path: Path) -> None:
    """A changed prompt is refused by its key, and `update` asks anew."""
    court = Court(tmp_path)
    court.both(court.job())
    changed = court.job(judge={"prompt": {"user": PROMPT.replace("Parcel", "The parcel")}})
    with pytest.raises(DriftError, match=r"this has changed: judge\.prompt"):
        court.ask(changed)
    assert court.ask(changed, update=True)[1] == 2 * ROWS


def test_more_samples_add_their_own_pairs(tmp_path: Path) -> None:
    """The table of answers has grown, which is told; `update` asks about what is new."""
    court = Court(tmp_path)
    court.both(court.job())
    more = court.job(matrix={"samples": 2})
    court.run(more)
    with pytest.raises(DriftError):
        court.ask(more)
    assert court.ask(more, update=True)[1] == 2 * ROWS


def test_all_that_was_paid_is_what_the_server_counted(tmp_path: Path) -> None:
    """Of all cells and of the judge, to the last digit; and the plan has said at least as much before."""
    court = Court(tmp_path)
    court.network = Network(create_app(Behaviour(latency_s=(0, 0))))
    job = court.job(SHORT, LONG, matrix={"samples": 2})
    ran = court.run(job)
    planned = cometbatch.plan_judge(job, http=court.network)
    assert (planned.calls, (tmp_path / "out.judge").exists()) == (2 * 2 * ROWS, False)
    found, _ = court.ask(job)
    assert ran.cost_usd is not None
    assert found.cost_usd is not None
    assert ran.cost_usd + found.cost_usd == Decimal(court.network.ledger["cost_usd"])
    assert planned.cost_usd is not None
    assert planned.cost_usd >= found.cost_usd
    assert cometbatch.plan_judge(job, http=court.network).calls == 0
    assert cometbatch.verify(found.pairs[0].output).ok


# --- what is refused --------------------------------------------------------------------------------------------------


def test_only_a_finished_run_is_judged(tmp_path: Path) -> None:
    """And only by a job that says how."""
    court = Court(tmp_path)
    with pytest.raises(UsageError, match="This job has not begun"):
        court.ask(court.job())
    court.run(court.job(), limit=2)
    with pytest.raises(UsageError, match=r"this run is not finished \(4 of 12 rows have an outcome\)"):
        court.ask(court.job())
    with pytest.raises(UsageError, match="no section judge"):
        court.ask(court.bench.job())
    assert court.judged == []


def test_a_column_named_like_an_answer_is_refused(tmp_path: Path) -> None:
    """The prompt could not tell it from the answer."""
    court = Court(tmp_path)
    court.bench.write_table(pl.DataFrame({"parcel": ["0001"], "note": ["a"], "first": ["b"]}).to_arrow())
    court.run(court.job())
    with pytest.raises(UsageError, match="the input has a column named first, which stands for an answer here"):
        court.ask(court.job())


def test_the_right_answer_may_stand_beside_a_pair(tmp_path: Path) -> None:
    """A column `answer` stands for an answer by rubric alone."""
    court = Court(tmp_path)
    court.bench.write_table(pl.DataFrame({"parcel": ["0001"], "note": ["a"], "answer": ["so"]}).to_arrow())
    shown: dict[str, Any] = {"prompt": {"user": "Right: {{ answer }}. " + PROMPT}}
    found, asked = court.both(court.job(judge=shown))
    assert (asked, found.ended_well) == (2, True)
    assert all(each.startswith("Right: so. Parcel 0001") for each in court.judged)
    with pytest.raises(UsageError, match="the input has a column named answer, which stands for an answer here"):
        court.ask(court.job(judge=shown | {"rubric": {"criteria": {"clear": "1-5"}}}))


def test_a_column_that_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    """As in any prompt."""
    court = Court(tmp_path)
    job = court.job(judge={"prompt": {"user": PROMPT + "{{ parzel }}"}})
    court.run(job)
    with pytest.raises(JobError, match=r"judge: job: prompt\.user: .*'parzel'.*did you mean"):
        court.ask(job)


TEXT = """\
input:  {path: t.csv}
output: {path: out.parquet}
target: {format: chat, base_url: simulator}
prompt: {user: "{{ body }}"}
matrix: {model: [a, b]}
judge:
  target: {format: chat, model: j}
  prompt: {user: "{{ first }} {{ second }}"}
"""
WRONG = [
    ("", "judge: expected one of pairwise and rubric, found none"),
    ("pairwise: {}", "judge.pairwise: expected one of baseline and all: true"),
    ("pairwise: {baseline: c}", "judge.pairwise.baseline: no axis has this label: the labels are a, b"),
    ("pairwise: {baseline: a, all: true}", "judge.pairwise: expected one of baseline and all: true"),
    ("pairwise: {basline: a}", "judge.pairwise.basline: unknown key; did you mean 'baseline'?"),
    ("pairwise: {all: true}\n  rubric: {criteria: {x: 1-5}}", "expected one of pairwise and rubric, found both"),
    ("rubric: {criteria: {x: 1-5}}", "judge.prompt: does not show what is judged: write {{ answer }}"),
    ("rubric: {criteria: {x: 5-1}}", "judge.rubric.criteria: x: expected the lowest and the highest number, as 1-5"),
    ("rubric: {}", "judge.rubric.criteria: is missing"),
    ("pairwise: {all: true}\n  response: {schema: {}}", "judge.response.schema: is the judge's own"),
    ("pairwise: {all: true}\n  params: {seed: x}", "judge.params.seed: expected a whole number"),
    ("pairwise: {all: true}\n  matrix: {samples: 2}", "judge.matrix: unknown key"),
]


@pytest.mark.parametrize(("line", "words"), WRONG)
def test_what_is_wrong_with_a_judge_is_told_with_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    """Its sections are checked as those of a job are."""
    said = refused(written(tmp_path, f"{TEXT}  {line}\n"))
    assert words in said
    assert re.search(r"job\.yaml:\d+: judge", said)


def test_the_judge_is_no_part_of_the_run_that_it_judges(tmp_path: Path) -> None:
    """Its section may come, go and change without the run being another one; nothing of it is in the manifest."""
    court = Court(tmp_path)
    job = court.job()
    plain = court.bench.job(matrix={"model": [SHORT, LONG], "samples": 1}, limits={"stop_within_s": 0.1})
    assert job.fingerprint() == plain.fingerprint()
    assert "judge" not in job.describe()


def test_the_command_ends_with_the_exit_codes_of_a_run(tmp_path: Path) -> None:
    """0 where each call has a verdict, 2 for a wrong job, 4 at the budget; --plan sends nothing."""
    bench = Workbench(tmp_path)
    bench.write_rows(3)
    judge = {
        "target": {"format": "chat", "model": JUDGE},
        "params": {"max_output_tokens": 100},
        "prompt": {"user": "{{ first }} {{ second }}"},
        "pairwise": {"all": True},
    }
    path = bench.write_job(matrix={"model": [SHORT, LONG]}, judge=judge, simulator={"latency_s": 0})

    def ran(*arguments: str) -> tuple[int, str, str]:
        found = CliRunner().invoke(cli.cli, ["judge", str(path), *arguments])
        return found.exit_code, found.stdout, found.stderr

    with pytest.raises(UsageError):
        cometbatch.judge(path)
    cometbatch.run(path, progress=False)
    code, out, _ = ran("--plan", "--json")
    assert (code, json.loads(out)["calls"]) == (0, 6)
    code, _, err = ran("--set", "judge.budget.max_cost_usd=0.0001", "--quiet")
    assert (code, "what is left of judge.budget.max_cost_usd is too little" in err) == (4, True)
    assert re.search(r"stopped; continue with: .* --set judge\.budget\.max_cost_usd=0\.0\d+$", err.strip())
    code, out, _ = ran("--json", "--quiet")
    assert (code, json.loads(out)["pairs"][0]["pairs"]) == (0, 3)
    code, out, _ = ran()
    assert code == 0
    assert "nothing was sent now" in out
