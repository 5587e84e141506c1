"""The keys of the section `judge`: how a judge is asked, and the sections of a job that it has of its own."""

import re
from typing import Final

from cometbatch.job.judging import REASON
from cometbatch.job.key import JobKey, Key
from cometbatch.job.kinds import FLAG, Kind, expected, number, string
from cometbatch.job.score_keys import SCALAR
from cometbatch.job.secrets import shown
from cometbatch.job.tree import Map, Node, Scalar, WrongError

MAX_CRITERIA: Final = 20
_RANGE: Final = re.compile(r"(\d{1,4})-(\d{1,4})")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def _read_criteria(node: Node) -> dict[str, tuple[int, int]]:
    if not isinstance(node, Map) or not 1 <= len(node.entries) <= MAX_CRITERIA:
        raise expected(CRITERIA.words, node)
    criteria = {}
    for name, bounds in node.entries.items():
        if not _NAME.fullmatch(name) or name == REASON:
            raise WrongError(f"{shown(name)} is no name for a criterion: letters, digits and _, and not {REASON}")
        found = _RANGE.fullmatch(bounds.text.strip()) if isinstance(bounds, Scalar) and bounds.tag == "str" else None
        if found is None or int(found[1]) >= int(found[2]):
            raise WrongError(f"{name}: {expected('the lowest and the highest number, as 1-5', bounds)}")
        criteria[name] = int(found[1]), int(found[2])
    return criteria


CRITERIA = Kind(
    "a mapping of names to ranges, as {clear: 1-5}",
    _read_criteria,
    schema={
        "type": "object",
        "additionalProperties": string(_RANGE.pattern),
        "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
        "minProperties": 1,
        "maxProperties": MAX_CRITERIA,
    },
)
PAIRWISE: Final = "pairwise"
RUBRIC: Final = "rubric"
WAYS: Final[dict[str, dict[str, Key]]] = {
    PAIRWISE: {
        "baseline": Key(SCALAR, "the label of the cells with which the others are compared"),
        "all": Key(FLAG, "compare each cell with each other one"),
        "swap": Key(FLAG, "ask each pair in both orders; false asks one, and believes whoever stands first"),
        "ridge": Key(number(float, 0, 100), "a penalty that gives strengths also where a cell never lost"),
    },
    RUBRIC: {"criteria": Key(CRITERIA, "what each answer is rated by, and within which whole numbers")},
}
"""The ways to ask a judge, and their keys."""
DEFAULTS: Final = {"all": "false", "swap": "true", "ridge": "0"}
SECTIONS: Final = ("target", "prompt", "params", "prices", "budget", "response", "limits", "retry", "accept")
"""Sections of a job that a judge has of its own. The judge's `limits` and `retry` are laid over the job's."""
SINGLE: Final = ("dedupe",)
"""Keys of a job that stand in no section, and that a judge has of its own."""
RESPONSE_KEYS: Final = ("mode", "max_asks")
"""The keys of `judge.response`: the schema is the judge's own."""


def judge_job_keys() -> list[JobKey]:
    """The keys that only a judge has, for documentation."""
    return [
        JobKey(f"judge.{way}.{name}", key.kind.words, DEFAULTS.get(name, ""), key.meaning)
        for way, keys in WAYS.items()
        for name, key in keys.items()
    ]
