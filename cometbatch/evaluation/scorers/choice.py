"""The scorer `choice`: which of a question's choices an answer names.

Order: the last `####`, the last box, the last cue, a line that names a choice and nothing else, a conclusion in prose
("so it must be D"), a choice's own text in the last sentence. A statement that names none of the choices does not fall
back to what stands before it.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cometbatch.evaluation.scorers.cleaning import plain
from cometbatch.evaluation.scorers.expressions import expression
from cometbatch.evaluation.scorers.markup import plain_name
from cometbatch.evaluation.scorers.mentions import Names
from cometbatch.evaluation.scorers.naming import Line, Stated
from cometbatch.evaluation.scorers.scores import AMBIGUOUS, NO_ANSWER, Gold, Score, Scorer, Why
from cometbatch.evaluation.scorers.statements import (
    MAX_STATEMENT,
    Statement,
    all_boxed,
    boxed,
    cued,
    first_line,
    last_line,
    marked,
)
from cometbatch.job.scores import ScoreSettings
from cometbatch.prompt.choices import Choice

MAX_LIST_LINES: Final = 50
"""Lines in a row that each name a choice."""
RECITED_LINES: Final = 3
"""So many lines in a row, each with the next choice, are the question once more, and no answer."""
_OUTSIDE: Final = expression(
    r"[^\w]*(?:(?:option|choice|letter|answer|the|is)\W+){0,3}([A-Z])(?=\s*$|[).:,\]]|\s[-–—(])", re.IGNORECASE
)
_BESIDE_OUTSIDE: Final = expression(r"[)\s]{0,3}(?:,|;|&|/|\band\b|\bor\b){1,2}\s{0,3}\(?([A-Z])\)?\s*(?:$|[.,;])")
_PREFIX: Final = expression(r"[^\W\d_][\w /-]{0,40}:\s+(?=\S)")
_CHOSEN: Final = expression(
    r"\b(?:i|we)(?:'d|'ll| will| would)? (?:choose|chose|pick|picked|select|selected|go with|opt for)\b"
)
_CORRECTION: Final = expression(
    r"\b(?:no,? wait|wait,|actually,|correction:|scratch that|i mean|sorry,|on second thought)", re.IGNORECASE
)
"""What takes back the statement before it."""
_SENTENCE: Final = expression(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？])\s*(?=\S)")


def choice(settings: ScoreSettings) -> Scorer:
    """Scores by the choice that an answer names; gold: labels, any of which is right, or with `multi` all of them."""
    read = functools.partial(_read, is_multi=settings.multi)

    def score(answer: str, gold: Gold, choices: Sequence[Choice] = ()) -> Score:
        if not choices:
            return Score(0.0, None, NO_ANSWER)
        labels = tuple(each.label for each in choices)
        found = read(answer, names_of(labels, tuple(each.text for each in choices)))
        if isinstance(found, str):
            return Score(0.0, None, found)
        named = sorted(found)
        is_right = {labels[each] for each in named} == set(gold) if settings.multi else labels[named[0]] in gold
        return Score(float(is_right), ", ".join(labels[each] for each in named))

    return score


@functools.lru_cache(maxsize=256)
def names_of(labels: tuple[str, ...], texts: tuple[str, ...] = ()) -> Names:
    """The names of choices. Kept, since the answers of several models and samples have the same."""
    return Names(labels, texts)


def _read(answer: str, names: Names, *, is_multi: bool) -> tuple[int, ...] | Why:
    """The indices of the choices that an answer names, or why there is none."""
    found = stated_name(plain(answer), names, is_multi=is_multi)
    if isinstance(found, tuple) and len(set(found)) > 1 and not is_multi:
        return AMBIGUOUS
    return NO_ANSWER if found is None else found


def _in_prose(text: str, names: Names) -> Stated:
    """The choice that the end of a text comes to, or whose own text is the only one in the last sentence."""
    tail = text.rstrip()[-MAX_STATEMENT:]
    if found := Line(tail, names).conclusion():
        return found
    line = Line(_SENTENCE.split(last_line(tail))[-1], names)
    texts = {each.index for each in line.meant() if each.kind == "text"}
    return line.stated() if line.is_alone() or len(texts) == 1 else None


def stated_name(
    text: str, names: Names, *, is_multi: bool, or_else: Callable[[str, Names], Stated] = _in_prose
) -> Stated:
    """What the last statement of a text names; `or_else` where no statement is found. None: it names nothing."""
    if (marker := marked(text)) is not None:
        found = _statement(marker.text, names, is_multi=is_multi)
        if marker.is_tail or (found and Line(marker.text, names).is_alone()):
            return found
    if (box := boxed(text)) is not None:
        return _statement(all_boxed(text) if is_multi else box.text, names, is_multi=is_multi)
    if (cue := cued(text)) is not None:
        return _cued(cue, text, names, is_multi=is_multi)
    return _alone(text, names, is_multi=is_multi) or _begun(text, names, is_multi=is_multi) or or_else(text, names)


def _cued(cue: Statement, text: str, names: Names, *, is_multi: bool) -> Stated:
    """What a cue states; a later "I choose" is a cue, too, and lines of their own after one without a name count."""
    rest = text[cue.end :]
    chosen = _last_chosen(text[cue.begin :])
    if chosen is not None and (found := _statement(chosen, names, is_multi=is_multi)):
        return found
    found = _statement(cue.text, names, is_multi=is_multi)
    if is_multi and isinstance(found, tuple):
        return _with_list(found, rest, names)
    return _alone(rest, names, is_multi=is_multi) if found is None and not cue.is_tail else found


def _begun(text: str, names: Names, *, is_multi: bool) -> Stated:
    """What the last line or the first begins with, as in "B. Because ..."."""
    for shown in dict.fromkeys((last_line(text), first_line(text))):
        if Line(shown[:MAX_STATEMENT], names).begins_with_name():
            return _statement(shown[:MAX_STATEMENT], names, is_multi=is_multi)
    return None


def _last_chosen(text: str) -> str | None:
    """What follows the last "I choose"."""
    low = text[-MAX_STATEMENT:].lower()
    at = None
    for found in _CHOSEN.finditer(low):
        at = found.end()
    return None if at is None else text[-MAX_STATEMENT:][at:].split("\n", 1)[0]


def _statement(text: str, names: Names, *, is_multi: bool) -> Stated:
    corrected = _CORRECTION.split(text)[-1]
    if corrected != text and isinstance(found := Line(corrected, names).stated(), tuple):
        return found
    if is_multi and (together := _run_together(plain_name(text), names)):
        return together
    if names.has_letters and (outside := _OUTSIDE.match(plain_name(text))) is not None:
        letter = outside[1]
        if letter.isupper() and letter not in names.labels and letter.lower() not in names.labels:
            return NO_ANSWER
    line = Line(text, names)
    meant = line.meant()
    if is_multi and meant and names.has_letters:
        beside = _BESIDE_OUTSIDE.match(line.text, meant[-1].end)
        if beside is not None and beside[1] not in names.labels:
            return NO_ANSWER
    is_first = bool(meant) and meant[0].start <= line.start and not line.begins_with_denied_list()
    if meant and not is_first and (conclusion := line.conclusion()):
        return conclusion
    return line.stated()


def _run_together(text: str, names: Names) -> Stated:
    """Letters without anything between them, as in "AC", and numbers without a space, as in "1,3"."""
    numbers = re.split(r"[,;/&+]", text.strip(" .()[]"))
    if len(numbers) > 1 and all(each.isdecimal() and each in names.labels for each in numbers):
        return tuple(dict.fromkeys(map(names.labels.index, numbers)))
    found = re.fullmatch(r"\W*([^\W\d_]{2,26})\W*", text)
    if found is None or not names.has_letters:
        return None
    letters = found[1]
    if len(set(letters)) < len(letters) or not set(letters) <= set(names.labels):
        return None
    return tuple(names.labels.index(each) for each in letters)


def _lines_back(text: str) -> Iterator[str]:
    """The lines of a text that say anything, the last first."""
    end = len(text)
    while end >= 0:
        begin = text.rfind("\n", 0, end) + 1
        line = text[begin:end]
        if line.strip():
            yield line[: MAX_STATEMENT + 1]
        end = begin - 1


def _with_list(found: tuple[int, ...], rest: str, names: Names) -> tuple[int, ...]:
    """What a statement names, and what the lines after it name that name a choice alone."""
    for each in rest.lstrip("\n").split("\n", MAX_LIST_LINES)[:MAX_LIST_LINES]:
        line = Line(each[:MAX_STATEMENT], names)
        stated = line.stated()
        if not line.is_alone() or not isinstance(stated, tuple):
            break
        found = (*found, *(index for index in stated if index not in found))
    return found


def _line_names(text: str, names: Names) -> Stated:
    """What a line names that says nothing else, but for a word with a colon before it."""
    if len(text) > MAX_STATEMENT:
        return None
    line = Line(text, names)
    if not line.is_alone():
        prefix = _PREFIX.match(line.text)
        if prefix is None:
            return None
        line = Line(line.text[prefix.end() :], names)
        if not line.is_alone():
            return None
    return line.stated()


def _alone(text: str, names: Names, *, is_multi: bool) -> Stated:
    """What the last line names, where it names a choice alone, else the first line. A list of such is all of them."""
    last = last_line(text)
    if is_multi and (together := _run_together(plain_name(last), names)):
        return together
    found = _line_names(last, names)
    if not found:
        first = first_line(text)
        return _line_names(first, names) if first != last else None
    run = _run_of_lines(text, names)
    if is_multi:
        return tuple(dict.fromkeys(index for line in run for index in line))
    firsts = [line[0] for line in run]
    is_recited = len(run) >= RECITED_LINES and firsts == sorted(set(firsts))
    return tuple(firsts) if is_recited else found


def _run_of_lines(text: str, names: Names) -> list[tuple[int, ...]]:
    """What each of the last lines names that name a choice alone, in the text's order."""
    run: list[tuple[int, ...]] = []
    for line in _lines_back(text):
        named = _line_names(line, names)
        if not isinstance(named, tuple) or len(run) >= MAX_LIST_LINES:
            break
        run.insert(0, named)
    return run
