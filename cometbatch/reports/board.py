"""The figures of a leaderboard, each at full precision; how they are drawn is another matter.

Amounts of money are exact. A figure that is not known is None, never 0. Names of fields are those of the JSON.
"""

from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from cometbatch.evaluation.statistics.interval import Interval
from cometbatch.money.exact import format_amount
from cometbatch.reports import words
from cometbatch.reports.adding import Label

VERSION: Final = 1  # of the JSON: raised where a field goes or changes its meaning, not where one is added


class WithSamples(Struct, frozen=True):
    """What another number of samples would do: the standard error, and the smallest difference that could be told."""

    samples: int
    se: float
    detectable: float


class Precision(Struct, frozen=True):
    """How far a score can be trusted; `evaluation.statistics.means.Estimate` has what each field is."""

    se: float | None
    se_independent: float | None
    interval: Interval | None
    method: str
    effective_answers: float | None
    clusters: int
    within: float | None
    between: float | None
    correlation: float | None
    with_samples: tuple[WithSamples, ...] = ()


class PassK(Struct, frozen=True):
    """pass@k and pass^k with their errors; None where some questions, `lacking`, have fewer than k answers."""

    k: int
    at_least_one: float | None
    at_least_one_se: float | None
    all: float | None
    all_se: float | None
    lacking: int = 0


class GroupScore(Struct, frozen=True):
    """One group of questions; `name` is None for questions whose cell is empty."""

    name: str | None
    score: float
    se: float | None
    interval: Interval | None
    questions: int
    answers: int


class GroupScores(Struct, frozen=True):
    """All groups of a line. `micro`: over all answers, as the line's score; `micro_se` is its clustered error.

    `micro_stratified_se`: its error with the groups' sizes as given. `macro`: the mean of the groups' scores.
    """

    groups: tuple[GroupScore, ...]
    micro: float
    micro_se: float | None
    micro_stratified_se: float | None
    macro: float
    macro_se: float | None


class ScoreLine(Struct, frozen=True):
    """One line of a board. `name`: as in `Line`.

    `score`: what the model left incomplete counts 0, failed rows do not count; `answered`: scored rows only; `bounds`:
    with failed rows all 0 and all 1, None where none failed. `rows`: those that have a right answer to compare with;
    they are `scored`, `incomplete`, `failed`, or `scorer_errors`, and the other rows are `without_gold`. `reasons`: why
    rows are not scored. `questions`: that have an answer which counts. `cost_of_right_usd`: the cost of all rows over
    the sum of their scores, to 18 decimals.
    """

    name: str
    score: float | None
    precision: Precision | None
    answered: float | None
    bounds: Interval | None
    questions: int
    rows: int
    scored: int
    incomplete: int
    failed: int
    scorer_errors: int
    without_gold: int
    reasons: dict[str, int]
    cost_of_right_usd: Decimal | None
    pass_k: tuple[PassK, ...] = ()
    groups: GroupScores | None = None

    @property
    def unscored(self) -> int:
        """Rows without a score of their own."""
        return self.incomplete + self.failed + self.scorer_errors


class Needed(Struct, frozen=True):
    """How many questions tell a difference of this size (80 % power, two-sided 5 %)."""

    difference: float
    questions: int


class Comparison(Struct, frozen=True):
    """A line against the baseline, on the questions that both have.

    `difference`: the line's score minus the baseline's, questions counting alike. `p`: of `test`; `p_holm`: adjusted
    for all comparisons of the board. `p_mid`, `p_exact`: McNemar's, on the questions that one line alone has right;
    None unless each question has one answer of 0 or 1. `lost`: questions that only one of the two has;
    `is_thinned`: these are more than 5 %. `needed`: the first is for the observed difference. `detectable`: the
    smallest difference that this run could tell.
    """

    name: str
    baseline: str
    difference: float
    se: float | None
    interval: Interval | None
    p: float | None
    p_holm: float | None
    test: str
    t: float | None
    freedom: int
    p_t: float | None
    p_mid: float | None
    p_exact: float | None
    only_line_right: int | None
    only_baseline_right: int | None
    questions: int
    clusters: int
    lost: int
    is_thinned: bool
    correlation: float | None
    unpaired_se: float | None
    variance: float | None
    needed: tuple[Needed, ...]
    detectable: float | None
    with_samples: tuple[WithSamples, ...] = ()


class Board(Struct, frozen=True):
    """One score. `settings`: of its scorer, as the result tells them. `lines`: the best first.

    `is_bounded`: all scores are from 0 to 1; `is_binary`: each is 0 or 1. `samples`: the most answers to a question in
    a line. `common_questions`: that all lines have. `baseline`: its line's name; `baseline_is_best`: nobody chose it.
    """

    score: str
    settings: dict[str, Any]
    is_bounded: bool
    is_binary: bool
    questions: int
    samples: int
    common_questions: int
    lines: tuple[ScoreLine, ...]
    baseline: str | None = None
    baseline_is_best: bool = False
    comparisons: tuple[Comparison, ...] = ()


class Line(Struct, frozen=True):
    """What the rows of a line came to, whatever their scores. `labels`: by axis; `name`: these as one text.

    `cost_usd`: exact; None where `unknown_costs` rows have no known cost. `at_least`: rows whose cost is only a part of
    what they cost. `input_tokens`, `output_tokens`: over `counted` answers. `reused`: rows that earlier calls paid for.
    `p50_s`, `p95_s`: seconds within which half, and 95 %, of the rows had their last reply.
    """

    name: str
    labels: dict[str, Label]
    rows: int
    failed: int
    cost_usd: Decimal | None
    unknown_costs: int
    at_least: int
    counted: int
    input_tokens: int
    output_tokens: int
    tokens_each: float | None
    reused: int
    p50_s: float | None
    p95_s: float | None


class Figures(Struct, frozen=True):
    """A leaderboard of results. `results`: their names. `by`: the axes that tell lines apart.

    `joined_by`: how rows of several results go together; None for one. `cluster`, `groups`: columns of the input.
    `cost_usd`: of all rows; `answers`: how many rows were not failed. `possible_charges_usd`: what may have been billed
    without an answer, at most, where that is known: `charges_unknown` are not in it. `judge_cost_usd`: what judging
    cost, which is in no line. `is_partial`: a run is not finished. `needs_extra`: numpy or scipy is not installed, so
    that there are no intervals. `notes`: sentences for a person.
    """

    results: tuple[str, ...]
    by: tuple[str, ...]
    lines: tuple[Line, ...]
    boards: tuple[Board, ...]
    joined_by: str | None = None
    cluster: str | None = None
    groups: str | None = None
    cost_usd: Decimal | None = None
    answers: int = 0
    possible_charges_usd: Decimal = Decimal()
    charges_unknown: int = 0
    judge_cost_usd: Decimal | None = None
    is_partial: bool = False
    needs_extra: bool = False
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: every number at full precision, amounts of money as texts."""
        return {"version": VERSION, **_plain(msgspec.to_builtins(self, builtin_types=(Decimal,)))}

    def describe(self, width: int = words.WIDTH) -> str:
        """For a person, at most this many columns wide where the names of lines allow it."""
        return words.describe(self, width)


def _plain(value: Any) -> Any:
    """A value of JSON: amounts as texts in full, and lists."""
    match value:
        case Decimal():
            return format_amount(value)
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value
