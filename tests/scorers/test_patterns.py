"""A job's own patterns: which can't be used, and what is found with the others."""

import pytest

from cometbatch.evaluation.scorers import PatternError, problem_of, scorer
from cometbatch.evaluation.scorers.patterns import groups_of
from cometbatch.job.scores import ScoreSettings


def of(pattern: str) -> ScoreSettings:
    """The settings of a score with this pattern."""
    return ScoreSettings(name="score", scorer="regex", pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "backreferences"),
        ("(", "unclosed group"),
        ("[z-a]", "invalid character class range"),
        ("a{1,100000000}", "size limit"),
        (r"\p{Nothing}", "property not found"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_told(pattern: str, words: str) -> None:
    """In one line that says why; and no score is made with it."""
    found = problem_of(pattern)
    assert found is not None
    assert words in found
    assert "\n" not in found
    with pytest.raises(PatternError, match=words):
        scorer(of(pattern))


@pytest.mark.parametrize(("pattern", "groups"), [("a", 0), ("(a)", 1), ("(?:a)(b)|(?P<c>c)", 2), ("", 0)])
def test_other_patterns_can_be_used(pattern: str, groups: int) -> None:
    """With groups that keep what they match, or without."""
    assert problem_of(pattern) is None
    assert groups_of(pattern) == groups


def test_signs_that_mark_matches_may_be_in_the_text() -> None:
    """An answer with private signs or with half of a surrogate pair is read like any other."""
    score = scorer(of(r"Final: (\w+)"))
    for answer in ("\ue000Final: red\ue002\ue001", "\ud800 Final: red", "Final: \ue001red"):
        assert score(answer, ("red",), ()).value == 1, answer
