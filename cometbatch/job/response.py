"""The section `response`: its schema read from a file or from the job, and refused where it can't be asked for.

Guards that no request is sent whose answer could not be checked, and that whatever a format can't express is said with
its place, and with a way out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cometbatch.job.document import Origin, parse
from cometbatch.job.extra import EXTRA
from cometbatch.job.paths import given, refuse_marks
from cometbatch.job.secrets import printable
from cometbatch.job.sections import Sections
from cometbatch.job.targets import Response
from cometbatch.job.tree import BrokenError, Map, Problems, WrongError
from cometbatch.prompt.answer_text import read_json
from cometbatch.prompt.answers import Misfit
from cometbatch.prompt.schema import MissingExtraError, SchemaError
from cometbatch.prompt.schema_tree import resolved, types_of
from cometbatch.wire.sent_schema import DIALECTS, sent_schema
from cometbatch.wire.structured import JSON_MODES, Mode, clash

MAX_SCHEMA_BYTES: Final = 1 << 20
"""A larger file is hardly a schema: a service takes a tenth of that."""
MAX_PROBLEMS: Final = 5
"""Places of a schema that are named where a format can't express them."""
_KINDS: Final = ("schema", "json", "pattern")
_AS_TEXT: Final = "response.mode: prompt sends the schema as text instead"


def check_response(sections: Sections, folder: Path, extra: Mapping[str, Any]) -> None:
    """Put the schema's content in the place of its file, and note whatever keeps answers from being asked for."""
    values = sections.values["response"]
    if not sections.has("response") or None in values.values():
        return
    chosen = [name for name in _KINDS if values.get(name)]
    if len(chosen) > 1:
        words = f"contradicts response.{chosen[0]}: an answer is checked in one way"
        sections.refuse(f"response.{chosen[1]}", words)
        return
    if not chosen:
        if "json" not in values:
            sections.refuse("response", "says nothing of what answers must be: set schema, json: true or pattern")
        return
    if isinstance(values.get("schema"), str):
        values["schema"] = _from_file(sections, folder, values["schema"])
        if values["schema"] is None:
            return
    format_name = sections.values["target"].get("format")
    if isinstance(format_name, str) and format_name in DIALECTS:
        _check_fit(sections, Response(**values), format_name, extra)


def _from_file(sections: Sections, folder: Path, text: str) -> dict[str, Any] | None:
    """The schema in a file; None where there is none, which is noted."""
    path, key = given(folder, text), "response.schema"
    name = printable(path.name)
    try:
        refuse_marks(key, text, folder)
        found = _parsed(_read(path, name).decode("utf-8-sig"), path, name)
    except UnicodeDecodeError:
        sections.refuse(key, f"{name} is not text in UTF-8")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        sections.refuse(key, f"{name} can't be read: {getattr(error, 'strerror', None) or error}")
    except (BrokenError, WrongError) as error:
        where = f"{error.where}: " if isinstance(error, BrokenError) else ""
        sections.refuse(key, f"{where}{error}")
    else:
        return found
    return None


def _read(path: Path, name: str) -> bytes:
    if path.exists() and not path.is_file():  # a pipe may never be written
        raise WrongError(f"{name} is not a plain file")
    with path.open("rb") as file:
        data = file.read(MAX_SCHEMA_BYTES + 1)
    if len(data) > MAX_SCHEMA_BYTES:
        raise WrongError(f"{name}: more than {MAX_SCHEMA_BYTES >> 20} MiB: this is hardly a schema")
    return data


def _parsed(text: str, path: Path, name: str) -> dict[str, Any]:
    if path.suffix.lower() in {".yaml", ".yml"}:
        problems = Problems()
        node = parse(text, Origin(name), problems)
        if problems.lines:
            raise WrongError(problems.lines[0])
        if not isinstance(node, Map):
            raise WrongError(f"{name}: expected a JSON Schema, which is a mapping")
        try:
            return EXTRA.read(node)
        except WrongError as error:
            raise WrongError(f"{name}: {error}") from None
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise WrongError(f"{name}:{error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise WrongError(f"{name}: nested too deeply") from None
    found = read_json(text)
    if isinstance(found, Misfit):
        raise WrongError(f"{name}: {found.words[0].removeprefix('$: ')}")
    if not isinstance(found, dict):
        raise WrongError(f"{name}: expected a JSON Schema, which is an object")
    return found


def _check_fit(sections: Sections, response: Response, format_name: str, extra: Mapping[str, Any]) -> None:
    """Note what is wrong with a schema or pattern, and where format, mode and extra can't ask for it."""
    key = "response.pattern" if response.pattern is not None else "response.schema"
    try:
        response.checker(format_name)
    except SchemaError as error:
        place = "" if response.pattern is not None else f"{error.path}: "
        hint = ': write "null" in quotes' if '",null' in str(error) or "[null" in str(error) else ""
        sections.refuse(key, f"{place}{error}{hint}")
        return
    except MissingExtraError:
        pass  # what runs a job refuses it; to look at a run that is there, nobody needs it
    if words := _mode_problem(response, format_name):
        sections.refuse("response.mode", words)
        return
    if response.pattern is None and (path := clash(format_name, response.mode, extra)) is not None:
        words = f"is written by response ({response.mode} in the {format_name} format); leave one of the two out"
        sections.refuse(f"params.extra.{path}", words)
    if response.prefix and response.schema is None:
        sections.refuse("response.prefix", "has a meaning only with response.schema, whose properties become columns")
    if response.schema is not None and response.mode in {"native", "tool"}:
        found = sent_schema(format_name, response.schema, root_object=response.mode == "tool")
        for problem in found.problems[:MAX_PROBLEMS]:
            words = f"{problem.path}: {problem.words} (the {format_name} format); {_AS_TEXT}"
            sections.refuse("response.schema", words)


def _mode_problem(response: Response, format_name: str) -> str | None:
    """Why answers can't be asked for in this mode, in words; None where they can."""
    mode: Mode = response.mode
    if response.pattern is not None:
        is_possible = mode in {"native", "prompt"}
        return None if is_possible else f"no format has a setting for a pattern, so {mode} can't ask for it: use prompt"
    if mode != "json" and not (response.json and mode == "native"):
        return None
    if format_name not in JSON_MODES:
        return f"the {format_name} format has no JSON mode: use response.mode: tool or prompt"
    if response.schema is not None and types_of(resolved(response.schema, response.schema)) != ["object"]:
        return "a JSON mode gives an object alone, and the schema asks for something else: use response.mode: prompt"
    return None
