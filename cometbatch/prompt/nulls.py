"""Nulls that the schema that was sent allows and the user's does not: taken out, and nothing else is changed.

A strict format wants every property in `required`, so an optional one is sent as "its own schema, or null". A null that
comes back for it says that the property is missing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cometbatch.prompt.schema_tree import Schema, all_schemas, branches, pointer_of, resolved

if TYPE_CHECKING:
    import jsonschema_rs


class Nulls:
    """Takes out the nulls of optional properties whose own schema does not let null be.

    `validators` check a value against each schema within the whole one, `root`.
    """

    def __init__(self, root: Schema, validators: "jsonschema_rs.ValidatorMap") -> None:
        self._root = root
        self._validators = validators
        self._pointers = {id(schema): pointer_of(path) for path, schema in all_schemas(root)}

    def without(self, value: Any) -> Any:
        """The value without such nulls, at every depth. A value that has none is given back as it is."""
        return self._without(value, self._root)

    def _without(self, value: Any, schema: Schema) -> Any:
        if not isinstance(value, dict | list):
            return value
        found = resolved(self._root, schema)
        if not isinstance(found, Mapping):
            return value
        if choice := branches(found):
            rest = {word: each for word, each in found.items() if word not in {"anyOf", "oneOf"}}
            value = self._within(value, rest)
            return self._of_a_branch(value, choice)
        return self._within(value, found)

    def _of_a_branch(self, value: Any, choice: list[Schema]) -> Any:
        """As the first branch has it that the value fits afterwards; unchanged where it fits none."""
        for branch in choice:
            candidate = self._without(value, branch)
            if self._fits(candidate, branch):
                return candidate
        return value

    def _within(self, value: Any, schema: Mapping[str, Any]) -> Any:
        if isinstance(value, list):
            items, places = schema.get("items"), schema.get("prefixItems")
            firsts = list(places) if isinstance(places, list) else list(items) if isinstance(items, list) else []
            rest = items if isinstance(items, Mapping) else True
            return [self._without(each, firsts[at] if at < len(firsts) else rest) for at, each in enumerate(value)]
        names = schema.get("properties")
        properties: Mapping[str, Any] = names if isinstance(names, Mapping) else {}
        others = schema.get("additionalProperties", True)
        required = schema.get("required") or ()
        return {
            name: self._without(each, properties.get(name, others))
            for name, each in value.items()
            if not (
                each is None and name in properties and name not in required and not self._fits(None, properties[name])
            )
        }

    def _fits(self, value: Any, schema: Schema) -> bool:
        if isinstance(schema, bool):
            return schema
        validator = self._validators.get(self._pointers.get(id(schema), ""))
        return validator is not None and validator.is_valid(value)
