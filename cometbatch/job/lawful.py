"""Whether what a description says of a job could stand in a job file.

Guards: a description is read from a result or a manifest, which may come from anybody. What of it goes into a line for
a shell, or is counted with, obeys the rules of job files.
"""

import re
from collections.abc import Mapping
from typing import Final

from cometbatch.job.headers import are_lawful
from cometbatch.job.matrix import MAX_SLICES, Matrix
from cometbatch.job.tree import WrongError
from cometbatch.job.urls import normal_base_url
from cometbatch.job.variables import NAME_OF_VARIABLE

_VARIABLE: Final = re.compile(NAME_OF_VARIABLE)


def wrong_target(base_url: str, key_env: str, headers: Mapping[str, str]) -> str | None:
    """The setting of a target that no job file can have; None where each is lawful."""
    try:
        if normal_base_url(base_url) != base_url:
            return "target.base_url"
    except WrongError:
        return "target.base_url"
    if not _VARIABLE.fullmatch(key_env):
        return "target.key_env"
    return None if are_lawful(headers) else "target.headers"


def wrong_matrix(matrix: Matrix) -> str | None:
    """The part of a matrix that no job file makes; None where it is whole."""
    if not 1 <= matrix.samples * len(matrix.cells) <= MAX_SLICES or matrix.samples < 1:
        return "matrix.samples"
    axes, prompts = len(matrix.axes), range(len(matrix.prompts))
    is_whole = all(len(each.labels) == axes and each.prompt in prompts for each in matrix.cells)
    return None if is_whole else "matrix.cells"
