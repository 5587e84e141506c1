"""The sections `score`, `choices` and `report`: each score read with its scorer's keys, and what must fit together.

Guards that every score has one scorer, that an option is never silently without a meaning, and that no code comes with
a job that was written into a pipe.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cometbatch.errors import did_you_mean
from cometbatch.job.kinds import expected
from cometbatch.job.report import ReportSettings
from cometbatch.job.score_keys import (
    COMMON_KEYS,
    MAX_SCORES,
    NAME_WORDS,
    OPTION_KEYS,
    REQUIRED_OPTIONS,
    SCORER_KEYS,
    is_name,
    keys_of,
)
from cometbatch.job.scores import SCORER_OPTIONS, SCORERS, ScoreSettings
from cometbatch.job.sections import Sections
from cometbatch.job.tree import Map, Node, is_null, place
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.prompt.template import TemplateError, compile_prompt

_BRACES: Final = ("{{", "{%")
_BY_PLACE: Final = ("index", "letter", "flags")
"""Ways of a gold cell to name one of several choices or labels by its place among them."""


def read_choices(sections: Sections) -> ChoiceSettings | None:
    """The choices of each question; None where the job has none, or wrong ones, which is noted."""
    values = sections.values["choices"]
    if not sections.has("choices") or None in values.values():
        return None
    if "columns" not in values and "labels" in values:
        values["columns"] = ()  # labels alone: the texts are in the question itself
        if "shuffle" in values:
            sections.refuse("choices.shuffle", "has a meaning only with choices.columns, which are put in order")
    return ChoiceSettings(**values)


def read_scores(sections: Sections, folder: Path, *, is_piped: bool) -> tuple[ScoreSettings, ...]:
    """The scores in the job's order, without those that are wrong, which is noted. `folder`: the job's."""
    found = []
    section = sections.free.get("score")
    if section is None:
        return ()
    if len(section.entries) > MAX_SCORES:
        sections.refuse("score", f"expected at most {MAX_SCORES} scores, found {len(section.entries)}")
        return ()
    for name, node in section.entries.items():
        sections.note_place(f"score.{name}", node)
        if is_null(node):
            sections.refuse(f"score.{name}", "found nothing: expected a scorer, such as {numeric: answer}")
        elif not is_name(name):
            sections.refuse(f"score.{name}", f"expected {NAME_WORDS}")
        elif (score := _read_score(sections, name, node, folder, is_piped=is_piped)) is not None:
            found.append(score)
    return tuple(found)


def read_report(sections: Sections, scores: Sequence[ScoreSettings]) -> ReportSettings:
    """What the leaderboard shows. Notes what no score of the job is."""
    values = sections.values["report"]
    if not sections.has("report") or None in values.values():
        return ReportSettings()
    names = [score.name for score in scores]
    if "score" not in sections.free:
        sections.refuse("report", "has a meaning only with the section score")
    elif (chosen := values.get("score")) is not None and chosen not in sections.free["score"].entries:
        near = did_you_mean(chosen, names) or f"the scores are {', '.join(names)}"
        sections.refuse("report.score", f"there is no score {chosen!r}; {near}")
    return ReportSettings(**values)


def _read_score(sections: Sections, name: str, node: Node, folder: Path, *, is_piped: bool) -> ScoreSettings | None:
    """One score; None where it is wrong."""
    path, before = f"score.{name}", len(sections.problems.lines)
    if not isinstance(node, Map):
        sections.refuse(path, str(expected("a mapping, such as {numeric: answer}", node)))
        return None
    chosen = [key for key, value in node.entries.items() if key in SCORER_KEYS and not is_null(value)]
    if len(chosen) != 1:
        sections.refuse(path, _scorer_words(chosen, list(node.entries)))
        return None
    scorer = chosen[0]
    values = sections.read_map(path, node, {**SCORER_KEYS, **COMMON_KEYS, **OPTION_KEYS})
    for key in values:
        if key not in keys_of(scorer):
            owners = [other for other in SCORERS if key in SCORER_OPTIONS[other]]
            sections.refuse(f"{path}.{key}", f"has a meaning only with {' or '.join(owners)}, and not with {scorer}")
    needed = REQUIRED_OPTIONS.get(scorer)
    if needed is not None and needed not in node.entries:
        sections.refuse(path, f"{needed} is missing: {scorer} needs it, {OPTION_KEYS[needed].meaning}")
    if scorer == "python":
        _check_python(sections, path, values, is_piped=is_piped)
    else:
        _check_gold(sections, path, scorer, values)
    if len(sections.problems.lines) > before:
        return None
    where = place(sections.where(path), path)
    return _settings(name, scorer, values, folder, where)


def _settings(name: str, scorer: Any, values: dict[str, Any], folder: Path, where: str) -> ScoreSettings:
    form, source = values.pop("gold", "value"), values.pop(scorer)
    if scorer == "python":
        return ScoreSettings(name, scorer, entry=source, folder=folder, place=where, **values)
    return ScoreSettings(name, scorer, source, form, place=where, **values)


def _scorer_words(chosen: Sequence[str], found: Sequence[str]) -> str:
    if chosen:
        return f"expected one scorer, found {' and '.join(chosen)}: give each a score of its own"
    known = ", ".join(SCORERS)
    near = next(filter(None, (did_you_mean(key, SCORERS) for key in found if key not in COMMON_KEYS)), "")
    return f"expected one scorer of {known}, found none" + (f"; {near}" if near else "")


def _check_python(sections: Sections, path: str, values: dict[str, Any], *, is_piped: bool) -> None:
    if is_piped:
        words = "a job from standard input or a pipe may have no Python scorer, which is code: put the job into a file"
        sections.refuse(f"{path}.python", words)
    for key in ("gold", "skip_missing"):
        if key in values:
            sections.refuse(f"{path}.{key}", "has no meaning with python: the function gets the whole row")


def _check_gold(sections: Sections, path: str, scorer: str, values: dict[str, Any]) -> None:
    """A template must compile, and a gold cell can name only what there is a list of."""
    gold, form = values.get(scorer), values.get("gold") or "value"
    if gold is not None and any(sign in gold for sign in _BRACES):
        try:
            compile_prompt([("user", gold)])
        except TemplateError as error:
            sections.refuse(f"{path}.{scorer}", f"in the template: {error.reason}")
    elif gold is not None and "\n" in gold.strip():
        sections.refuse(f"{path}.{scorer}", "expected the name of a column, or a template, found several lines")
    allowed = {"choice": _BY_PLACE, "label": ("index",)}.get(scorer, ())
    if form in _BY_PLACE and form not in allowed:
        words = "choice or label" if form == "index" else "choice"
        sections.refuse(f"{path}.gold", f"{form} has a meaning only with {words}, and not with {scorer}")
