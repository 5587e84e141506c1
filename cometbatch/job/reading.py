"""Tree -> `Job`, with every problem found on the way.

Guards that a job that loads can be carried out, as far as the job alone can tell: no required key is missing, the
settings fit together, the templates compile, and the chosen format can say it all.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cometbatch.job.keys import KEYS, MESSAGE_KEYS, PRICES, REQUIRED, SECTIONS, Key
from cometbatch.job.kinds import Kind, did_you_mean, expected
from cometbatch.job.paths import absolute, given, place_result
from cometbatch.job.secrets import join, refuse_secrets
from cometbatch.job.settings import DELIMITERS, Job, template_words
from cometbatch.job.sources import read_tree
from cometbatch.job.targets import MessageTemplate
from cometbatch.job.tree import List, Map, Node, Problems, Scalar, WrongError, is_null, place
from cometbatch.job.urls import DEFAULT_BASE_URL, SIMULATOR, is_loopback
from cometbatch.money.prices import PriceSettings
from cometbatch.prompt.template import TemplateError, compile_prompt
from cometbatch.records import GenerationParams, Role
from cometbatch.wire import FORMATS
from cometbatch.wire.messages import DEFAULT_MAX_TOKENS

MAX_MESSAGES = 1_000
MAX_MINUTES_FOR_A_ROW = 60
TLS_FILES = ("ca_file", "client_cert", "client_key")
TOKEN_PRICES = ("input", "output", "cache_read", "cache_write")
"""Prices that mean nothing where a request has a price."""


def load_job(
    source: str | os.PathLike[str] | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    base_dir: str | os.PathLike[str] | None = None,
) -> Job:
    """The job in a file, or in a mapping of the same shape, with `--set key.sub=value` strings put over it.

    Relative paths start at `base_dir`, which by default is the job file's folder, or for a mapping the current one.
    Raises `JobError` with every problem found, one a line: file and line, key, what was expected and what was found.
    """
    problems = Problems()
    source = source if isinstance(source, Mapping) else Path(source)
    path = source if isinstance(source, Path) else None
    tree = read_tree(source, overrides, problems)
    problems.stop_if_any()
    refuse_secrets(tree, "", problems)
    problems.stop_if_any()  # before anything else could quote from near a secret
    folder = Path(base_dir) if base_dir is not None else path.parent if path else Path()
    return _Reading(tree, problems, folder, absolute(Path(), path) if path else None).job()


class _Placed(Struct, frozen=True):
    """A message, and the key path of its text."""

    message: MessageTemplate
    path: str


class _Reading:
    """One walk over the tree: values by section and key, None for those that are wrong, and what is wrong with them."""

    def __init__(self, tree: Map, problems: Problems, folder: Path, source_path: Path | None) -> None:
        self._tree = tree
        self._problems = problems
        self._folder = folder
        self._source_path = source_path
        self._where: dict[str, str] = {}
        self._values: dict[str, dict[str, Any]] = {section: {} for section in KEYS}

    def job(self) -> Job:
        """The job. Raises `JobError` where there are problems."""
        for section, node in self._tree.entries.items():
            self._read_section(section, node)
        self._require()
        self._check_target()
        self._check_tls()
        self._check_paths()
        self._check_prices()
        self._check_token_limit()
        messages = self._messages()
        self._problems.stop_if_any()
        return self._built(messages)

    # --- values ---

    def _refuse(self, path: str, words: str) -> None:
        """Note a problem where the key is, or where its section is if the key isn't there."""
        where = self._where.get(path) or self._where.get(path.partition(".")[0]) or self._tree.where
        self._problems.add(where, path, words)

    def _read_section(self, section: str, node: Node) -> None:
        self._where[section] = node.where
        if section not in KEYS:
            self._refuse_unknown(self._tree, "", section, KEYS)
        elif isinstance(node, Map):
            self._values[section] = self._read_map(section, node, KEYS[section])
        elif section == "prices" and isinstance(node, Scalar) and not is_null(node):
            self._values["prices"] = {"catalog": self._read("prices", PRICES, node) == "catalog"}
        elif not is_null(node):
            choice = f" or {PRICES.words}" if section == "prices" else ""
            self._refuse(section, str(expected(f"a mapping{choice}", node)))
            self._values[section] = dict.fromkeys(KEYS[section])

    def _read_map(self, path: str, node: Map, known: Mapping[str, Key]) -> dict[str, Any]:
        """The values of a mapping; what is null is left out."""
        values: dict[str, Any] = {}
        for name, value in node.entries.items():
            self._where[f"{path}.{name}"] = node.keys[name].where
            if name not in known:
                self._refuse_unknown(node, path, name, known)
            elif not is_null(value):
                values[name] = self._read(f"{path}.{name}", known[name].kind, value)
        return values

    def _refuse_unknown(self, node: Map, path: str, name: str, known: Mapping[str, object]) -> None:
        near = did_you_mean(name, known)
        self._problems.add(node.keys[name].where, join(path, name), "unknown key" + (f"; {near}" if near else ""))

    def _read(self, path: str, kind: Kind[Any], node: Node) -> Any:
        """A value, or None, with the problem noted."""
        self._where[path] = node.where
        try:
            return kind.read(node)
        except WrongError as error:
            self._refuse(path, str(error))
            return None

    def _given(self, section: str) -> dict[str, Any]:
        return {name: value for name, value in self._values[section].items() if value is not None}

    # --- settings that have to fit together ---

    def _require(self) -> None:
        for section, name in REQUIRED:
            if name not in self._values[section]:
                self._refuse(f"{section}.{name}", "is missing")

    def _check_target(self) -> None:
        base_url = self._values["target"].get("base_url", DEFAULT_BASE_URL)
        if base_url is None:
            return
        if base_url != SIMULATOR and not is_null(self._tree.entries.get("simulator")):
            self._refuse("simulator", f"has a meaning only with target.base_url: {SIMULATOR}")
        is_open = base_url.startswith("http://") and not is_loopback(base_url)
        if is_open and not self._values["target"].get("allow_http"):
            words = "http:// would send the key and all texts without encryption: use https://"
            self._refuse("target.base_url", f"{words}, or set target.allow_http: true if that is meant")

    def _check_tls(self) -> None:
        """The files of `target`, which mean something where there is TLS."""
        target = self._values["target"]
        named = [name for name in TLS_FILES if target.get(name)]
        base_url = target.get("base_url", DEFAULT_BASE_URL)
        if named and base_url is not None and not base_url.startswith("https://"):
            self._refuse(f"target.{named[0]}", "has a meaning only with an https:// address in target.base_url")
        if "client_key" in named and "client_cert" not in target:
            self._refuse("target.client_key", "has a meaning only with target.client_cert")
        for name in named:
            target[name] = given(self._folder, target[name])

    def _check_paths(self) -> None:
        source, output = self._values["input"], self._values["output"]
        if source.get("path"):
            source["path"] = given(self._folder, source["path"])
            source.setdefault("delimiter", DELIMITERS[source["path"].suffix.lower()])
        if output.get("path"):
            place = (self._folder, source.get("path"), self._source_path)
            try:
                output["path"], output["is_dataset"] = place_result(output["path"], *place)
            except WrongError as error:
                self._refuse("output.path", str(error))

    def _check_prices(self) -> None:
        others = [name for name in self._given("prices") if name in TOKEN_PRICES]
        if others and "per_request" in self._given("prices"):
            self._refuse("prices.per_request", f"contradicts prices.{others[0]}: requests or tokens are paid for")

    def _check_token_limit(self) -> None:
        """A row waits until the limit has room for all of it, and that shall be within the hour."""
        limit, cap = self._given("limits").get("tokens_per_minute"), self._params().max_output_tokens
        if limit is not None and cap is not None and limit * MAX_MINUTES_FOR_A_ROW < cap:
            words = f"one answer of params.max_output_tokens ({cap}) would take more than an hour"
            self._refuse("limits.tokens_per_minute", f"{words}: raise this or lower that")

    # --- the prompt ---

    def _messages(self) -> list[_Placed]:
        """The prompt's messages, checked to compile and to fit the format."""
        before = len(self._problems.lines)
        messages = self._prompt_list() if "messages" in self._values["prompt"] else self._prompt_pair()
        for placed in messages:
            self._check_template(placed)
        if len(self._problems.lines) == before and self._values["target"].get("format"):
            self._check_format([placed.message.role for placed in messages])
        return messages

    def _prompt_pair(self) -> list[_Placed]:
        """The messages of a prompt that is written as `system` and `user`."""
        if "user" not in self._values["prompt"]:
            self._refuse("prompt.user", "is missing")
        roles: tuple[Role, ...] = ("system", "user")
        given = self._given("prompt")
        return [_Placed(MessageTemplate(role, given[role]), f"prompt.{role}") for role in roles if role in given]

    def _prompt_list(self) -> list[_Placed]:
        """The messages of a prompt that is written as `messages`."""
        given = self._given("prompt")
        node = given.pop("messages", None)
        for name in given:
            self._refuse(f"prompt.{name}", "can't be there beside prompt.messages: use one of the two")
        if node is None:
            return []
        if not isinstance(node, List) or not 1 <= len(node.items) <= MAX_MESSAGES:
            words = f"a list of 1 to {MAX_MESSAGES} messages, each with role and content"
            self._refuse("prompt.messages", str(expected(words, node)))
            return []
        read = [self._message(f"prompt.messages[{at}]", item) for at, item in enumerate(node.items)]
        return [placed for placed in read if placed]

    def _message(self, path: str, node: Node) -> _Placed | None:
        self._where[path] = node.where
        if not isinstance(node, Map):
            self._refuse(path, str(expected("a mapping with role and content", node)))
            return None
        values = self._read_map(path, node, MESSAGE_KEYS)
        for name in MESSAGE_KEYS:
            if name not in values:
                self._refuse(path, f"{name} is missing")
        role, content = values.get("role"), values.get("content")
        return _Placed(MessageTemplate(role, content), f"{path}.content") if role and content else None

    def _check_template(self, placed: _Placed) -> None:
        try:
            compile_prompt([(placed.message.role, placed.message.template)])
        except TemplateError as error:
            self._refuse(placed.path, template_words(error))

    def _check_format(self, roles: Sequence[Role]) -> None:
        wire = FORMATS[self._values["target"]["format"]]
        if words := wire.unsupported_messages(roles):
            self._refuse("prompt", words)
        if words := wire.unsupported_params(self._params()):
            self._refuse("params", words)

    # --- the result ---

    def _params(self) -> GenerationParams:
        given = self._given("params")
        if self._values["target"].get("format") == "messages":
            given.setdefault("max_output_tokens", DEFAULT_MAX_TOKENS)
        return GenerationParams(**given)

    def _prices(self) -> PriceSettings:
        """The catalog is asked only for what the job does not say itself."""
        prices = PriceSettings(**self._given("prices"))
        return msgspec.structs.replace(prices, catalog=prices.needs_catalog)

    def _built(self, messages: Sequence[_Placed]) -> Job:
        settings: dict[str, Any] = {name: kind(**self._given(name)) for name, kind in SECTIONS.items()}
        settings |= {"params": self._params(), "prices": self._prices()}
        if not settings["target"].is_simulator:
            settings["simulator"] = None
        return Job(
            messages=tuple(placed.message for placed in messages),
            places=tuple(place(self._where[placed.path], placed.path) for placed in messages),
            source_path=self._source_path,
            **settings,
        )
