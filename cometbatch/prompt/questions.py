"""The choices of a row's question, as a job says where they are: for the prompt that shows them and for who scores.

Guards: their order depends on the seed and on their texts alone, so that every model and every sample is asked the
same, a row keeps its order wherever it stands, and whoever scores an answer finds the order that the prompt had.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from cometbatch.prompt.cells import PathError, cell_at, roots
from cometbatch.prompt.choices import Choice, ChoicesError, choices_of, order_of

NAME: Final = "choices"
"""The name by which a prompt shows them."""
MAX_CHOICES: Final = 1_000
"""The most choices of one question."""
_KEY_BYTES: Final = 8


class ChoiceSettings(Struct, frozen=True, omit_defaults=True):
    """Where the choices of a question are.

    `columns`: one that holds a list, or one for each choice; paths may lead into structures. None: the texts are in
    the question itself, and `labels` alone are known. `labels`: in their order; A, B, C where empty, or what the column
    says. `shuffle`: with a seed, the choices of each row get another order, the same for all models and samples, which
    prompts show, too.
    """

    columns: tuple[str, ...] = ("choices",)
    labels: tuple[str, ...] = ()
    shuffle: int | None = None


def columns_of(settings: ChoiceSettings) -> frozenset[str]:
    """The columns that the choices may be in, for who reads only those that are needed."""
    return frozenset(name for path in settings.columns for name in roots(path))


def question(settings: ChoiceSettings, values: Mapping[str, object]) -> tuple[Choice, ...]:
    """The choices of a row in the order in which they are shown. Raises `ChoicesError` where it has none."""
    if not settings.columns:
        return tuple(Choice(label, "", place) for place, label in enumerate(settings.labels))
    found = choices_of(_cell(settings, values), settings.labels)
    if len(found) > MAX_CHOICES:
        raise ChoicesError(f"{len(found):,} choices are more than {MAX_CHOICES:,}")
    if settings.shuffle is None:
        return found
    order = order_of(len(found), settings.shuffle, _key([each.text for each in found]))
    return tuple(Choice(found[place].label, found[origin].text, origin) for place, origin in enumerate(order))


def over(settings: ChoiceSettings, values: Mapping[str, object]) -> dict[str, object]:
    """A row's values with its choices under their name, each with `label` and `text`. Raises `ChoicesError`."""
    shown = [{"label": each.label, "text": each.text} for each in question(settings, values)]
    return {**values, NAME: shown}


def _cell(settings: ChoiceSettings, values: Mapping[str, object]) -> object:
    try:
        cells = [cell_at(path, values) for path in settings.columns]
    except PathError as error:
        raise ChoicesError(str(error)) from None
    if len(cells) == 1:
        if cells[0] is None:
            raise ChoicesError(f"{settings.columns[0]} is null")
        return cells[0]
    if all(cell is None for cell in cells):
        raise ChoicesError("all of their columns are null")
    return [cell for cell in cells if cell is not None]


def _key(texts: list[str]) -> int:
    """A number for these texts: in the place of a row's number, so that a row keeps its order wherever it stands."""
    digest = hashlib.sha256(msgspec.json.encode([text.encode(errors="surrogatepass") for text in texts])).digest()
    return int.from_bytes(digest[:_KEY_BYTES])
