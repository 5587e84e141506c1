"""Headers of one's own: their values are read from the environment here, and nothing but a request ever has them."""

import os
from collections.abc import Mapping

from cometbatch.errors import UsageError
from cometbatch.job.variables import filled, variables_in

MIN_SECRET_CHARACTERS = 8  # of a value with letters and digits; a shorter one can stand in any text by chance
MIN_WORD_CHARACTERS = 16  # of a value of letters alone, which may be a word


def read_values(
    headers: Mapping[str, str], environment: Mapping[str, str] | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The headers as they are sent, and what in them must not be kept or shown.

    `environment`: where variables are read; None is that of this process.

    Raises `UsageError` where a variable is not set, or can't stand in a header; it never quotes its value.
    """
    variables: dict[str, str] = {}
    environment = os.environ if environment is None else environment
    for header, value in headers.items():
        for name in variables_in([value]):
            found, needed = environment.get(name), f"target.headers.{header} needs it"
            if found is None:
                raise UsageError(f"The environment variable {name} is not set, and {needed}. Nothing was sent.")
            if not found or found != found.strip() or not found.isascii() or not found.isprintable():
                raise UsageError(
                    f"The environment variable {name} can't be sent, and {needed}: it is empty, or has a line break, "
                    "a space at its start or end, or a character that is not ASCII. Nothing was sent."
                )
            variables[name] = found
    secrets = tuple(value for value in variables.values() if looks_secret(value))
    return {header: filled(value, variables) for header, value in headers.items()}, secrets


def looks_secret(value: str) -> bool:
    """Whether a value may be a secret, and is no word that any text can hold."""
    is_mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    return len(value) >= (MIN_SECRET_CHARACTERS if is_mixed else MIN_WORD_CHARACTERS)
