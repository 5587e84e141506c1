"""Rows that say in their own cells how they are asked: model and parameters, each checked as the job's own are."""

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

import msgspec

from cometbatch.job import Target
from cometbatch.job.keys import KEYS
from cometbatch.job.tree import List, Node, Scalar, WrongError
from cometbatch.records import Failure

MOST_KNOWN: Final = 4_096  # combinations of cells that are kept; tables have few of them
_MODEL: Final = KEYS["target"]["model"].kind
_Made = TypeVar("_Made")
_PLACE: Final = "cell"  # where a value stands, for the tree; the message names column and key


class RowVariants(Generic[_Made]):
    """Finds how a row is asked by its values; what that takes is made once for each combination of cells.

    `numbers`: the run's targets that differ from this one by their model alone, by that. `refused`: why a model is not
    asked. `make`: what is kept of a target that has no columns of its own, and of its number in the run.
    """

    def __init__(
        self,
        target: Target,
        numbers: Mapping[str, int],
        refused: Mapping[str, Failure],
        make: Callable[[Target, int], _Made],
    ) -> None:
        self._target = target
        self._numbers = numbers
        self._refused = refused
        self._make = make
        model = () if target.model_column is None else (target.model_column,)
        self._columns = (*model, *target.param_columns.values())
        self._known: dict[tuple[str, ...], _Made | Failure] = {}

    def __call__(self, values: Mapping[str, object]) -> _Made | Failure:
        """How the row is asked, or why it can't be."""
        cells = tuple([repr(values[name]) for name in self._columns])  # 1, 1.0 and true are equal and no cell is
        found = self._known.get(cells)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[cells] = self._found(values)
        return found

    def _found(self, values: Mapping[str, object]) -> _Made | Failure:
        target, given = self._target, dict[str, Any]()
        model = target.model
        try:
            if target.model_column is not None:
                model = model_in(values[target.model_column], target) or model
            for name, column in target.param_columns.items():
                if not _is_blank(value := values[column]):
                    given[name] = _read(f"params.columns.{name}", column, name, value)
        except WrongError as error:
            return Failure("template", str(error))
        if model in self._refused:
            return self._refused[model]
        params = msgspec.structs.replace(target.params, **given)
        variant = msgspec.structs.replace(target, model=model, params=params, model_column=None, param_columns={})
        return self._make(variant, self._numbers.get(model, 0))


def model_in(value: object, target: Target) -> str | None:
    """The model that a cell names; None where it names none. Raises `WrongError` where it names no model."""
    if _is_blank(value):
        return None
    node = _node(value) if isinstance(value, str) else Scalar(_PLACE, "other", _kind(value))
    try:
        model: str = _MODEL.read(node)
    except WrongError as error:
        raise WrongError(f"target.model_column: column {target.model_column!r}: {error}") from None
    return model


def _read(place: str, column: str, name: str, value: object) -> object:
    try:
        return KEYS["params"][name].kind.read(_node(value))
    except WrongError as error:
        raise WrongError(f"{place}: column {column!r}: {error}") from None


def _is_blank(value: object) -> bool:
    """Whether a cell says nothing, so that the job's own value counts: null, or no more than white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def _node(value: object) -> Node:
    """A cell as a value of a job file. Text may be a number, as all cells of a CSV are texts."""
    match value:
        case bool():
            return Scalar(_PLACE, "bool", str(value).lower())
        case int():
            return Scalar(_PLACE, "int", str(value))
        case float() | Decimal():
            return Scalar(_PLACE, "float", str(value))
        case str():
            return Scalar(_PLACE, "str", value.strip())
        case list():
            return List(_PLACE, [_node(item) for item in value])
    return Scalar(_PLACE, "other", _kind(value))


def _kind(value: object) -> str:
    return "date" if isinstance(value, date) else type(value).__name__
