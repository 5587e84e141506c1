"""The text of a new job file: its values, and the comments that tell a beginner what they are for."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cometbatch.commands.first_look import FirstLook
from cometbatch.job.urls import DEFAULT_BASE_URL
from cometbatch.prompt.names import reach
from cometbatch.prompt.template import TemplateError, compile_prompt

WIDTH: Final = 80
"""Columns of the terminal that a beginner has."""
MAX_PLACEHOLDERS: Final = 30  # further columns that the comment at the prompt lists
_MODEL_TO_CHANGE: Final = "write the address and the model that stand in the two comments below"
_ADDRESS_TO_CHANGE: Final = "write the address that stands in the comment below"
_BARE: Final = re.compile(r"[A-Za-z_](?:[\w./-]*\w)?", re.ASCII)
_NO_TEXT: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
"""Words that YAML reads as something other than text."""


def placeholder(name: str) -> str:
    """What stands in a template for a column of any name."""
    try:
        is_name = name.isidentifier() and compile_prompt([("user", f"{{{{ {name} }}}}")]).columns_needed == {name}
    except TemplateError:
        is_name = False
    return f"{{{{ {name if is_name and name.isascii() else reach(name)} }}}}"


def job_text(
    settings: Mapping[str, Mapping[str, Any]],
    look: FirstLook,
    *,
    table: str,
    job_file: str,
    schema: str,
    model: str | None,
) -> str:
    """The text that reads as these settings. `table`, `job_file`: as a person types them. `schema`: the file beside."""
    real = model or "an id that `cometbatch models` lists"
    output, target, prompt = settings["output"], settings["target"], settings["prompt"]
    prefix = [f"  prefix: {quoted(output['prefix'])}  # the table has columns like ours"] if "prefix" in output else []
    lines = [
        *_head(look, (f"Asks a language model about each row of {table}.", _MODEL_TO_CHANGE), table, job_file, schema),
        "input:",
        *_input(settings["input"]),
        "",
        "output:",
        f"  path: {quoted(output['path'])}",
        *prefix,
        "",
        "target:",
        f"  base_url: {target['base_url']}  # for real: {DEFAULT_BASE_URL}",
        f"  model: {target['model']}  # for real: {real}",
        f"  format: {target['format']}  # or responses, messages, gemini",
        "",
        "prompt:",
        *_prompt(prompt, look),
        "",
        "params:",
        f"  max_output_tokens: {settings['params']['max_output_tokens']}  # of one answer, thinking included",
        "",
        "# budget: {max_cost_usd: 5}  # the run stops before it could cost more",
        "",
        "simulator:  # unused once a service is named",
        f"  latency_s: {json.dumps(settings['simulator']['latency_s'])}",
    ]
    return "\n".join(lines) + "\n"


def batch_job_text(
    settings: Mapping[str, Mapping[str, Any]],
    look: FirstLook,
    *,
    vendor: str,
    table: str,
    job_file: str,
    schema: str,
    model: str | None,
) -> str:
    """The text of the short job of a vendor's batch file, which says itself what is asked."""
    target, real = settings["target"], model or "an id that `cometbatch models` lists"
    has_model = "model" in target
    task = f"Sends the requests of {table}, which has the shape of {vendor}'s batch files, as they are."
    change = _MODEL_TO_CHANGE if has_model else _ADDRESS_TO_CHANGE
    lines = [
        *_head(look, (task, change), table, job_file, schema),
        "input:",
        f"  path: {quoted(settings['input']['path'])}",
        "",
        "output:",
        f"  path: {quoted(settings['output']['path'])}",
        "",
        "target:" if has_model else "target:  # the lines name the model and what is asked",
        f"  base_url: {target['base_url']}  # for real: {DEFAULT_BASE_URL}",
        *([f"  model: {target['model']}  # for real: {real}"] if has_model else []),
        "",
        "# A cap on each answer, over the requests' own; a budget needs one:",
        "# params: {override: true, max_output_tokens: 500}",
        "# budget: {max_cost_usd: 5}  # the run stops before it could cost more",
        "",
        "simulator:  # unused once a service is named",
        f"  latency_s: {json.dumps(settings['simulator']['latency_s'])}",
    ]
    return "\n".join(lines) + "\n"


def _head(look: FirstLook, words: tuple[str, str], table: str, job_file: str, schema: str) -> Iterator[str]:
    task, change = words
    yield f"# yaml-language-server: $schema={schema}"
    yield "#"
    yield from _comment(task)
    yield f"#   cometbatch plan {job_file}   checks this file and estimates the cost"
    yield f"#   cometbatch run {job_file}    runs it, or resumes it where it stopped"
    yield "#"
    yield from _comment(
        "The first run is free: the built-in simulator answers, with words at random and a bill that nobody pays. For "
        f"real answers, {change}, put your API key into the environment variable COMETAPI_KEY, and run it again: the "
        "simulator's answers are replaced."
    )
    yield "#"
    yield from _comment(f"The first rows of {table}:" if look.rows else f"{table} has no rows yet.")
    yield from (f"#   {line}".rstrip() for line in look.lines(WIDTH - 4))
    yield ""


def _input(source: Mapping[str, str]) -> Iterator[str]:
    yield f"  path: {quoted(source['path'])}"
    if "id" in source:
        yield f"  id: {quoted(source['id'])}  # your own name for each row"
    else:
        yield "  # id: COLUMN  # a column that names each row, if there is one"
    yield from (f"  {key}: {quoted(source[key])}" for key in ("encoding", "delimiter") if key in source)


def _prompt(prompt: Mapping[str, str], look: FirstLook) -> Iterator[str]:
    if "messages_column" in prompt:
        yield f"  messages_column: {quoted(prompt['messages_column'])}  # each row's own conversation"
        return
    yield "  # What to do with each row:"
    yield f"  system: {quoted(prompt['system'])}"
    yield "  user: |-"
    yield from (f"    {line}" for line in prompt["user"].split("\n"))
    yield from _others(look)


def quoted(text: str) -> str:
    """A text as YAML reads it: as it is where that is plain, else in double quotes."""
    if _BARE.fullmatch(text) and text.casefold() not in _NO_TEXT:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else _escape(char) for char in escaped) + '"'


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"  # noqa: PLR2004 - four digits' worth


def _comment(text: str) -> Iterator[str]:
    yield from (f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False))


def _others(look: FirstLook) -> Iterator[str]:
    """A comment that lists what stands for the other columns."""
    names: Sequence[str] = [name for name in look.columns if name != look.text_column]
    if not names:
        return
    rest = len(names) - MAX_PLACEHOLDERS
    words = [placeholder(name) for name in names[:MAX_PLACEHOLDERS]] + ([f"and {rest:,} more"] if rest > 0 else [])
    line = "  # Other columns:"
    for word in words:
        if len(line) + 1 + len(word) > WIDTH and line.strip(" #"):
            yield line
            line = "  #"
        line += f" {word}"
    yield line
