"""Each case of the rules comes out as it says: what is read of an answer, what it scores, and why nothing was found."""

import pytest

from tests.scorers.cases import FILES, SCORERS, Case, cases


def differs(case: Case) -> str | None:
    """How a case comes out otherwise, in words; None where it does not."""
    found = case.scored()
    assert found.value is not None
    if abs(found.value - case.score) < 1e-6 and found.why == case.reason:
        return None
    return f"{case.id}: {case.answer[:80]!r} gives {found}, not {case.score:g} {case.reason} ({case.why})"


@pytest.mark.parametrize("scorer_name", SCORERS)
@pytest.mark.parametrize("file", FILES)
def test_each_case_comes_out_as_it_says(file: str, scorer_name: str) -> None:
    """The score to six digits, and the word for why there is no answer."""
    found = list(cases(file, scorer_name))
    assert found
    assert [words for each in found if (words := differs(each)) is not None] == []


def test_no_case_is_there_twice() -> None:
    """Each has a name of its own, so that a failure says which it is."""
    names = [each.id for file in FILES for each in cases(file)]
    assert len(set(names)) == len(names)
