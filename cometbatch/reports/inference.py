"""Intervals, comparisons and groups of a board. Needs the extra `eval`, so whoever needs this loads it late."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from msgspec import Struct

from cometbatch.errors import UsageError, did_you_mean
from cometbatch.evaluation.statistics.groups import group_totals
from cometbatch.evaluation.statistics.means import Estimate, estimate
from cometbatch.evaluation.statistics.paired import Paired, holm, paired
from cometbatch.evaluation.statistics.pass_k import pass_all, pass_at, tries
from cometbatch.evaluation.statistics.planning import detectable, questions_needed, with_samples
from cometbatch.evaluation.statistics.sums import Booleans, Counts, Floats, Sums
from cometbatch.reports.adding import LINE, QUESTION
from cometbatch.reports.board import (
    Board,
    Comparison,
    GroupScore,
    GroupScores,
    Needed,
    PassK,
    Precision,
    WithSamples,
)

MAX_GROUPS: Final = 1_000
DIFFERENCES: Final = (0.01, 0.02, 0.05)
"""For these, beside the observed one, a comparison says how many questions it takes."""
TIMES: Final = (1, 2, 4)
"""What more samples would do is said for so many times as many."""


class Asked(Struct, frozen=True, eq=False):
    """What a board is about. `names`: of its lines, in the order of `lines` of the frame.

    `frame`: `adding.Scored` has it, without rows that have no gold. `facts`: the questions, with columns `cluster` and
    `group` where these were asked for. `baseline`: the name of a line, or a label of one.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    frame: pl.DataFrame
    facts: pl.DataFrame
    baseline: str | None


def with_statistics(board: Board, asked: Asked) -> Board:
    """The board with intervals, pass@k, groups and comparisons. Raises `UsageError` for a baseline that is no line."""
    questions = asked.frame[QUESTION].unique().sort()
    clusters = _codes(asked.facts, "cluster", questions)
    groups = _groups(asked.facts, questions)
    sums = {
        name: _sums(asked.frame.filter(pl.col(LINE) == line), questions, clusters)
        for line, name in enumerate(asked.names)
    }
    lines = []
    for line in board.lines:
        found = estimate(sums[line.name], is_bounded=board.is_bounded)
        lines.append(
            msgspec.structs.replace(
                line,
                precision=None if found is None else _precision(found, _samples(sums[line.name])),
                pass_k=_pass_k(sums[line.name]) if board.is_binary and board.samples > 1 else (),
                groups=_group_scores(sums[line.name], groups, found, is_bounded=board.is_bounded),
            )
        )
    common: Booleans = np.logical_and.reduce([each.counts > 0 for each in sums.values()])
    baseline = _baseline(asked, sums, common)
    others = [line.name for line in lines if line.name != baseline]
    return msgspec.structs.replace(
        board,
        lines=tuple(lines),
        baseline=baseline if others else None,
        baseline_is_best=asked.baseline is None and bool(others),
        comparisons=_comparisons(sums, others, baseline, is_bounded=board.is_bounded),
    )


def _sums(frame: pl.DataFrame, questions: pl.Series, clusters: Counts | None) -> Sums:
    """The sums of a line, an entry for each question of the board."""
    at = questions.search_sorted(frame[QUESTION]).to_numpy()
    totals, squares = np.zeros(len(questions)), np.zeros(len(questions))
    counts = np.zeros(len(questions), np.int64)
    totals[at], squares[at] = frame["total"].to_numpy(), frame["squares"].to_numpy()
    counts[at] = (frame["scored"] + frame["incomplete"]).to_numpy()
    return Sums(totals, squares, counts, clusters)


def _codes(facts: pl.DataFrame, column: str, questions: pl.Series) -> Counts | None:
    """A number for each value of a column of questions; a question without a value has one of its own."""
    if column not in facts.columns:
        return None
    values = questions.to_frame(QUESTION).join(facts, on=QUESTION, how="left", maintain_order="left")[column]
    codes = values.rank("dense").cast(pl.Int64)
    return codes.fill_null(-1 - pl.int_range(len(codes), eager=True)).to_numpy()


def _groups(facts: pl.DataFrame, questions: pl.Series) -> list[tuple[str | None, Booleans]]:
    if "group" not in facts.columns:
        return []
    values = questions.to_frame(QUESTION).join(facts, on=QUESTION, how="left", maintain_order="left")["group"]
    names = values.unique().sort(nulls_last=True)
    if len(names) > MAX_GROUPS:
        raise UsageError(
            f"groups: the column has {len(names):,} values, and at most {MAX_GROUPS:,} groups are compared. Name a "
            "column with fewer values."
        )
    return [(name, values.eq_missing(name).to_numpy()) for name in names]


def _precision(found: Estimate, samples: int | None) -> Precision:
    sampling = None if found.within is None or samples is None else found.within / samples
    return Precision(
        found.se,
        found.se_independent,
        found.interval,
        found.method,
        found.effective,
        found.clusters,
        found.within,
        found.between,
        found.correlation,
        _more(found.se, sampling, found.questions, samples),
    )


def _more(se: float | None, sampling: float | None, questions: int, samples: int | None) -> tuple[WithSamples, ...]:
    """What as many samples, and more, would come to; nothing where samples differ by question, or there is one.

    `sampling`: the variance of a question's mean, or difference, that comes from drawing answers. It is an estimate,
    and never more than all the variance there is, so that as many samples come to the error that was found.
    """
    if not se or sampling is None or samples is None:
        return ()
    variance = questions * se**2
    sampling = min(sampling, variance)
    between, within = variance - sampling, sampling * samples
    found = [with_samples(between, within, questions, samples * times) for times in TIMES]
    return tuple(WithSamples(each.samples, each.se, each.detectable) for each in found)


def _pass_k(sums: Sums) -> tuple[PassK, ...]:
    """pass@k and pass^k for the k that some question has answers for."""
    counts, rights = sums.counts, sums.totals.astype(np.int64)
    pairs, places = np.unique(np.column_stack([counts, rights]), axis=0, return_inverse=True)
    found = []
    for k in tries(int(counts.max(initial=0))):
        lacking = int((counts < k).sum())
        if lacking:
            found.append(PassK(k, None, None, None, None, lacking))
            continue
        chances = (np.array([chance(int(n), int(c), k) for n, c in pairs]) for chance in (pass_at, pass_all))
        means = [_mean(each[places.ravel()], sums.clusters) for each in chances]
        found.append(PassK(k, *means[0], *means[1]))
    return tuple(found)


def _mean(values: Floats, clusters: Counts | None) -> tuple[float, float | None]:
    """The mean over questions, and its error."""
    found = estimate(Sums(values, values**2, np.ones(len(values), np.int64), clusters), is_bounded=False)
    return (0.0, None) if found is None else (found.mean, found.se)


def _group_scores(
    sums: Sums, groups: Sequence[tuple[str | None, Booleans]], whole: Estimate | None, *, is_bounded: bool
) -> GroupScores | None:
    """The groups in which a line has answers."""
    pairs = [(name, estimate(sums.only(members), is_bounded=is_bounded)) for name, members in groups]
    known = [(name, found) for name, found in pairs if found is not None]
    totals = group_totals([found for _, found in known])
    if totals is None or whole is None:
        return None
    scores = tuple(
        GroupScore(name, found.mean, found.se, found.interval, found.questions, found.answers) for name, found in known
    )
    return GroupScores(scores, whole.mean, whole.se, totals.micro_se, totals.macro, totals.macro_se)


def _baseline(asked: Asked, sums: dict[str, Sums], common: Booleans) -> str:
    """The line that others are compared with: the one that was asked for, or the best on the common questions."""
    if asked.baseline is None or len(asked.names) == 1:
        return max(asked.names, key=lambda name: _score(sums[name], common))
    if asked.baseline in asked.names:
        return asked.baseline
    found = [name for name, labels in zip(asked.names, asked.labels, strict=True) if asked.baseline in labels]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"baseline: {asked.baseline!r} is the label of {len(found)} lines; name one of them: "
            f"{', '.join(map(repr, found))}."
        )
    hint = did_you_mean(asked.baseline, asked.names) or f"The lines are: {', '.join(map(repr, asked.names))}"
    raise UsageError(f"baseline: no line is called {asked.baseline!r}. {hint}")


def _score(sums: Sums, common: Booleans) -> float:
    """The score on the common questions; where there are none, on the line's own."""
    kept = sums.only(common) if common.any() else sums
    answers = kept.counts.sum()
    return float(kept.totals.sum() / answers) if answers else -np.inf


def _comparisons(
    sums: dict[str, Sums], others: Sequence[str], baseline: str, *, is_bounded: bool
) -> tuple[Comparison, ...]:
    pairs = [(name, paired(sums[name], sums[baseline], is_bounded=is_bounded)) for name in others]
    known = [(name, found) for name, found in pairs if found is not None]
    tested = [found.p for _, found in known if found.p is not None]
    adjusted = iter(holm(tested))
    return tuple(
        _comparison(
            name, baseline, found, None if found.p is None else next(adjusted), _samples(sums[name], sums[baseline]),
            is_bounded=is_bounded,
        )
        for name, found in known
    )  # fmt: skip


def _samples(*lines: Sums) -> int | None:
    """How many answers each question has that all of these lines have; None where that differs."""
    common = np.logical_and.reduce([each.counts > 0 for each in lines])
    found = np.unique(np.concatenate([each.counts[common] for each in lines]))
    return int(found[0]) if len(found) == 1 else None


def _comparison(
    name: str, baseline: str, found: Paired, p_holm: float | None, samples: int | None, *, is_bounded: bool
) -> Comparison:
    only = found.discordance
    return Comparison(
        name=name,
        baseline=baseline,
        difference=found.difference,
        se=found.se,
        interval=found.interval,
        p=found.p,
        p_holm=p_holm,
        test=found.test,
        t=found.t,
        freedom=found.freedom,
        p_t=found.p_t,
        p_mid=None if only is None else only.p_mid,
        p_exact=None if only is None else only.p_exact,
        only_line_right=None if only is None else only.first_only,
        only_baseline_right=None if only is None else only.second_only,
        questions=found.questions,
        clusters=found.clusters,
        lost=found.only_one,
        is_thinned=found.is_thinned,
        correlation=found.correlation,
        unpaired_se=found.unpaired_se,
        variance=found.variance,
        needed=_needed(found, is_bounded=is_bounded),
        detectable=None if not found.se else detectable(found.se),
        with_samples=_more(found.se, found.sampling, found.questions, samples),
    )


def _needed(found: Paired, *, is_bounded: bool) -> tuple[Needed, ...]:
    """For the observed difference, and for those of `DIFFERENCES` where scores are from 0 to 1."""
    if not found.variance:
        return ()
    variance, wanted = found.variance, (found.difference, *(DIFFERENCES if is_bounded else ()))
    pairs = [(each, questions_needed(variance, each)) for each in wanted]
    return tuple(Needed(each, questions) for each, questions in pairs if questions is not None)
