"""Regular expressions that are compiled when they are first used.

A run without scores imports the scorers, too, and compiling all of their expressions would take it a twentieth of a
second.
"""

import re
from typing import Any, Final, cast

_METHODS: Final = ("match", "search", "fullmatch", "finditer", "findall", "split", "sub")


class _Expression:
    """Stands for a compiled expression. After the first use its methods are those of the compiled one."""

    def __init__(self, source: str, flags: re.RegexFlag) -> None:
        self.source, self.flags = source, flags

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(name)
        compiled = re.compile(self.source, self.flags)
        for each in _METHODS:
            setattr(self, each, getattr(compiled, each))
        return getattr(compiled, name)


def expression(source: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """What `re.compile` gives, later: for expressions of this package, which are known to be right."""
    return cast("re.Pattern[str]", _Expression(source, flags))
