"""`${NAME}` in a value of a job: a variable of the environment, read where a run begins. The job has its name alone."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

NAME_OF_VARIABLE: Final = "[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE: Final = re.compile(rf"\$\{{({NAME_OF_VARIABLE})\}}")
_NEARLY_VARIABLE: Final = re.compile(r"\$(?:\{|\(|[A-Za-z_])")


def variables_in(values: Iterable[str]) -> list[str]:
    """The environment variables that these values name, each once."""
    return list(dict.fromkeys(name for value in values for name in _VARIABLE.findall(value)))


def filled(value: str, variables: Mapping[str, str]) -> str:
    """A value with its variables replaced. What replaces one is not looked at again."""
    return _VARIABLE.sub(lambda found: variables[found[1]], value)


def without_variables(value: str) -> str:
    """What a value has beside its variables."""
    return _VARIABLE.sub("", value)


def has_stray_dollar(value: str) -> bool:
    """Whether a `$` in it begins something like a variable that is none: `$NAME`, `${`, `$(`."""
    return _NEARLY_VARIABLE.search(without_variables(value)) is not None
