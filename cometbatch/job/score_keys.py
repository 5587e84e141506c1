"""The keys of one score: its scorer with the gold column, the options that all scorers have, and those of each.

Guards that the reading of a job, its JSON Schema and the documentation know the same options.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, get_args

import msgspec

from cometbatch.job.key import JobKey, Key, object_schema
from cometbatch.job.kinds import FLAG, PROSE, Kind, choice, expected, number, several, string, text
from cometbatch.job.scores import SCORER_OPTIONS, SCORERS, GoldForm, ScoreSettings
from cometbatch.job.tree import Node, Scalar

MAX_LABELS: Final = 1_000
"""The most labels that a scorer or a question may have."""
MAX_SCORES: Final = 50
"""The most scores of a job: each adds three columns to the result."""
NAME_WORDS: Final = "the name of a score: letters, digits and _, at most 60 of them"
_NAME: Final = re.compile(r"[^\W\d]\w{0,59}")
_ENTRY: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def _read_scalar(node: Node) -> str:
    """A value as it is written, also one that YAML takes for a number or a truth value: `no` is a fine label."""
    if not isinstance(node, Scalar) or node.tag not in {"str", "int", "float", "bool"}:
        raise expected(SCALAR.words, node)
    return _ONE_LINE.read(Scalar(node.where, "str", node.text))


def _read_entry(node: Node) -> str:
    found = _ONE_LINE.read(node)
    if not _ENTRY.fullmatch(found):
        raise expected(ENTRY.words, node, "my_scorers.py with a function brevity is my_scorers:brevity")
    return found


_ONE_LINE: Final = text("a text")
SCALAR: Final = Kind(
    "a text or a number",
    _read_scalar,
    takes_text=True,
    schema={"anyOf": [_ONE_LINE.schema, {"type": "number"}, {"type": "boolean"}]},
)
"""A label, or a value of an axis, as it is written."""
LABELS: Final = several(SCALAR, "a list of labels", MAX_LABELS)
ENTRY: Final = Kind(
    '"module:function"', _read_entry, takes_text=True, schema=string(_ENTRY.pattern, examples=["my_scorers:brevity"])
)
COLUMN: Final = text("the name of a column")
COLUMNS: Final = several(COLUMN, "a column or a list of columns", MAX_LABELS)
_GOLD: Final = Kind("a column, or a template", PROSE.read, takes_text=True, schema=PROSE.schema)

SCORER_KEYS: Final[dict[str, Key]] = {
    "choice": Key(_GOLD, "which of the `choices` the answer names; the gold is a choice's text or its letter"),
    "numeric": Key(_GOLD, "the number that the answer comes to, compared exactly"),
    "exact": Key(_GOLD, "whether the answer is the gold, but for blanks around it"),
    "normalized": Key(_GOLD, "the same without case, articles and punctuation"),
    "contains": Key(_GOLD, "whether the gold is in the answer, as whole words"),
    "regex": Key(_GOLD, "what `pattern` finds last in the answer: its first group, or the whole match"),
    "label": Key(_GOLD, "which of the `labels` the answer says"),
    "json": Key(_GOLD, "the share of the gold's fields that the answer's last JSON object has"),
    "token_f1": Key(_GOLD, "how far the words of answer and gold are the same (F1)"),
    "python": Key(ENTRY, "a function of your own: `function(answer, row)` gives a number, True, False or None"),
}
"""The scorers. Each score has one of these keys, whose value is the column with the right answer."""
COMMON_KEYS: Final[dict[str, Key]] = {
    "gold": Key(
        choice(*get_args(GoldForm)),
        "how the gold cell says what is right: by the answer itself (a list: any of them), by a choice's or label's "
        "`index` from 0, by its `letter`, by what follows the last `####` (`marker`), or by a list of 0 and 1 for "
        "the choices (`flags`)",
    ),
    "incomplete": Key(
        choice("zero", "score"),
        "what answers count that were cut: 0, or what their text scores; such without text count 0 either way",
    ),
    "skip_missing": Key(FLAG, "a row without gold has no score; without this key it is refused"),
}
"""The options that all scorers have."""
OPTION_KEYS: Final[dict[str, Key]] = {
    "multi": Key(FLAG, "the gold is a set of choices, and the answer has to name just these"),
    "decimal": Key(choice("point", "comma"), "the sign between a number's whole part and its fraction"),
    "percent": Key(choice("ignore", "divide"), "what a per cent sign does: nothing, or divide by 100"),
    "tolerance": Key(number(Decimal, 0, 10**18), "how far a number may be from the gold"),
    "relative": Key(number(Decimal, 0, 1), "the same as a share of the gold"),
    "pattern": Key(PROSE, "a regular expression without look-around, in the words of Rust's engine"),
    "labels": Key(LABELS, "what the answer may say"),
    "coerce": Key(FLAG, 'a text counts as the number or truth value that it spells: "3" is 3'),
    "unordered": Key(FLAG, "the order of lists does not matter"),
    "tokens": Key(choice("words", "characters"), "what answer and gold are cut into"),
    "no_answer": Key(
        text("a text"), "what the prompt asks for where there is no answer: the gold of a row whose list is empty"
    ),
}
"""The options of some scorers; `SCORER_OPTIONS` has which."""
REQUIRED_OPTIONS: Final[Mapping[str, str]] = {"regex": "pattern", "label": "labels"}
"""The option that a scorer can't do without."""


def is_name(name: str) -> bool:
    """Whether a score may have this name."""
    return _NAME.fullmatch(name) is not None


def keys_of(scorer: str) -> dict[str, Key]:
    """The keys that a score with this scorer may have."""
    return {scorer: SCORER_KEYS[scorer]} | COMMON_KEYS | {name: OPTION_KEYS[name] for name in SCORER_OPTIONS[scorer]}


def scores_schema() -> dict[str, Any]:
    """JSON Schema of the section: any name, and of each scorer its own options."""
    required = {scorer: [scorer, *_needed(scorer)] for scorer in SCORERS}
    kinds = [object_schema(keys_of(scorer), required=required[scorer]) for scorer in SCORERS]
    name = {"propertyNames": {"pattern": f"^(?:{_NAME.pattern})$"}}
    return {"type": "object", **name, "additionalProperties": {"anyOf": kinds}, "maxProperties": MAX_SCORES}


def _needed(scorer: str) -> list[str]:
    return [REQUIRED_OPTIONS[scorer]] if scorer in REQUIRED_OPTIONS else []


def score_job_keys() -> list[JobKey]:
    """Every key of a score, for documentation."""
    found = [
        JobKey(f"score.NAME.{name}", key.kind.words, "one of these", key.meaning) for name, key in SCORER_KEYS.items()
    ]
    defaults = {field.name: field.default for field in msgspec.structs.fields(ScoreSettings)} | {"gold": "value"}
    for name, key in {**COMMON_KEYS, **OPTION_KEYS}.items():
        of = [scorer for scorer in SCORERS if name in SCORER_OPTIONS[scorer]]
        meaning = f"{', '.join(of)}: {key.meaning}" if of else key.meaning
        default = "required" if name in REQUIRED_OPTIONS.values() else _shown(defaults[name])
        found.append(JobKey(f"score.NAME.{name}", key.kind.words, default, meaning))
    return found


def _shown(default: object) -> str:
    return "" if default in (None, "", ()) else str(default).lower()


def takes_text(path: str) -> bool:
    """Whether a `--set` of this key of a score gives a text as it stands, and no YAML."""
    _, _, name = path.rpartition(".")
    key = {**SCORER_KEYS, **COMMON_KEYS, **OPTION_KEYS}.get(name)
    return key is not None and key.kind.takes_text and not key.kind.brackets
