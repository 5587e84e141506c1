"""Tree -> `Job`, with every problem found on the way.

Guards that a job that loads can be run, as far as the job alone can tell: no required key is missing, the settings fit
together, the templates compile, and the wire format has all messages and parameters.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cometbatch.job.keys import PROMPT_TEXTS, REQUIRED, SECTIONS, takes_text
from cometbatch.job.messages import PlacedMessage, read_messages
from cometbatch.job.paths import absolute, given, place_result, refuse_marks
from cometbatch.job.prices import fit_prices
from cometbatch.job.secrets import refuse_secrets
from cometbatch.job.sections import Sections
from cometbatch.job.settings import DELIMITERS, Job
from cometbatch.job.sources import is_piped, read_tree
from cometbatch.job.tree import Problems, WrongError, place
from cometbatch.job.urls import DEFAULT_BASE_URL, SIMULATOR, is_loopback
from cometbatch.money.prices import PriceSettings
from cometbatch.records import GenerationParams, Role
from cometbatch.wire import FORMATS, output_cap
from cometbatch.wire.messages import DEFAULT_MAX_TOKENS

MAX_MINUTES_FOR_A_ROW = 60
"""Minutes that a row may wait for `limits.tokens_per_minute` to have room for its answer; a lower limit is refused."""
SAMPLES: dict[str, Any] = {"max_output_tokens": 1, "temperature": 1.0, "top_p": 0.5, "stop": ("x",), "seed": 1}
"""A value of each parameter that a row may have, to see whether a format knows it."""
TLS_FILES = ("ca_file", "client_cert", "client_key")


def load_job(
    source: str | os.PathLike[str] | Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    base_dir: str | os.PathLike[str] | None = None,
) -> Job:
    """The job in a file, or in a mapping of the same shape, with `--set key.sub=value` strings put over it.

    Relative paths start at `base_dir`, which by default is the job file's folder; for a mapping, a pipe and `-`, which
    is standard input, it is the current one.
    Raises `JobError` with every problem found, one a line: file and line, key, what was expected and what was found.
    """
    problems = Problems()
    source = source if isinstance(source, Mapping) else Path(source)
    path = source if isinstance(source, Path) and not is_piped(source) else None
    tree = read_tree(source, overrides, problems, takes_text)
    problems.stop_if_any()
    refuse_secrets(tree, "", problems)
    problems.stop_if_any()  # before anything else could quote from near a secret
    folder = Path(base_dir) if base_dir is not None else path.parent if path else Path()
    return _Reading(Sections(tree, problems), folder, absolute(Path(), path) if path else None).job()


class _Reading:
    """The job that the sections make, once their values are found to fit together."""

    def __init__(self, sections: Sections, folder: Path, source_path: Path | None) -> None:
        self._sections = sections
        self._values = sections.values
        self._folder = folder
        self._source_path = source_path

    def job(self) -> Job:
        """The job. Raises `JobError` where there are problems."""
        for section, name in REQUIRED:
            if name not in self._values[section] and not self._sections.is_misspelt(f"{section}.{name}"):
                self._sections.refuse(f"{section}.{name}", "is missing")
        self._check_address()
        self._check_tls()
        self._check_paths()
        param_columns = self._values["params"].pop("columns", None) or {}
        beside = {"model_prices": fit_prices(self._sections), "param_columns": param_columns}
        self._check_token_limit()
        before = len(self._sections.problems.lines)
        messages = read_messages(self._sections)
        is_whole = len(self._sections.problems.lines) == before and None not in self._values["prompt"].values()
        if is_whole and self._values["target"].get("format"):
            self._check_format([placed.message.role for placed in messages], param_columns)
        self._sections.problems.stop_if_any()
        return self._built(messages, beside)

    # --- settings that have to fit together ---

    def _check_address(self) -> None:
        base_url = self._values["target"].get("base_url", DEFAULT_BASE_URL)
        if base_url is None:
            return
        if base_url != SIMULATOR and self._sections.has("simulator"):
            self._sections.refuse("simulator", f"has a meaning only with target.base_url: {SIMULATOR}")
        is_open = base_url.startswith("http://") and not is_loopback(base_url)
        if is_open and not self._values["target"].get("allow_http"):
            words = "http:// would send the key and all texts without encryption: use https://"
            self._sections.refuse("target.base_url", f"{words}, or set target.allow_http: true if that is meant")

    def _check_tls(self) -> None:
        """The files of `target`, which mean something where there is TLS."""
        target = self._values["target"]
        named = [name for name in TLS_FILES if target.get(name)]
        base_url = target.get("base_url", DEFAULT_BASE_URL)
        if named and base_url is not None and not base_url.startswith("https://"):
            words = "has a meaning only with an https:// address in target.base_url"
            self._sections.refuse(f"target.{named[0]}", words)
        if "client_key" in named and "client_cert" not in target:
            self._sections.refuse("target.client_key", "has a meaning only with target.client_cert")
        for name in named:
            self._check_marks(f"target.{name}", target[name])
            target[name] = given(self._folder, target[name])

    def _check_marks(self, key: str, path: str) -> bool:
        """Whether a path is one of this machine's, and not one that another program was to fill in."""
        try:
            refuse_marks(key, path, self._folder)
        except WrongError as error:
            self._sections.refuse(key, str(error))
            return False
        return True

    def _check_paths(self) -> None:
        source, output = self._values["input"], self._values["output"]
        if source.get("path"):
            self._check_marks("input.path", source["path"])
            source["path"] = given(self._folder, source["path"])
            source.setdefault("delimiter", DELIMITERS[source["path"].suffix.lower()])
        if output.get("path") and self._check_marks("output.path", output["path"]):
            place = (self._folder, source.get("path"), self._source_path)
            try:
                output["path"], output["is_dataset"] = place_result(output["path"], *place)
            except WrongError as error:
                self._sections.refuse("output.path", str(error))

    def _check_token_limit(self) -> None:
        limit, params = self._sections.given("limits").get("tokens_per_minute"), self._params()
        cap = output_cap(self._values["target"].get("format") or "chat", params)
        if limit is not None and cap is not None and limit * MAX_MINUTES_FOR_A_ROW < cap:
            key = "params.max_output_tokens" if params.max_output_tokens is not None else "params.extra.max_tokens"
            words = f"one answer of {key} ({cap}) would take more than an hour"
            self._sections.refuse("limits.tokens_per_minute", f"{words}: raise this or lower that")

    def _check_format(self, roles: Sequence[Role], param_columns: Mapping[str, str]) -> None:
        wire = FORMATS[self._values["target"]["format"]]
        if words := wire.unsupported_messages(roles):
            self._sections.refuse("prompt", words)
        if words := wire.unsupported_params(self._params()):
            self._sections.refuse("params", words)
        for name in param_columns:
            params = msgspec.structs.replace(self._params(), **{name: SAMPLES[name]})
            if words := wire.unsupported_params(params):
                self._sections.refuse(f"params.columns.{name}", words)
        if self._params().max_tokens_field != "auto" and wire.name != "chat":
            self._sections.refuse("params.max_tokens_field", "has a meaning only with target.format: chat")

    # --- the result ---

    def _params(self) -> GenerationParams:
        params = self._sections.given("params")
        if self._values["target"].get("format") == "messages":
            params.setdefault("max_output_tokens", DEFAULT_MAX_TOKENS)
        return GenerationParams(**params)

    def _prices(self) -> PriceSettings:
        """The catalog is asked only for the prices that the job does not give."""
        prices = PriceSettings(**self._sections.given("prices"))
        return msgspec.structs.replace(prices, catalog=prices.needs_catalog)

    def _is_cut(self, placed: PlacedMessage) -> bool:
        """Whether the comment after a template looks like a part of it: it has braces, or the template has none."""
        comment = self._sections.comment(placed.path)
        return "{{" in comment or (comment != "" and "{{" not in placed.message.template)

    def _built(self, messages: Sequence[PlacedMessage], beside: dict[str, Any]) -> Job:
        settings: dict[str, Any] = {
            name: kind(**{key: value for key, value in self._sections.given(name).items() if key not in PROMPT_TEXTS})
            for name, kind in SECTIONS.items()
        }
        settings |= {"params": self._params(), "prices": self._prices()}
        if not settings["target"].is_simulator:
            settings["simulator"] = None
        return Job(
            messages=tuple(placed.message for placed in messages),
            places=tuple(place(self._sections.where(placed.path), placed.path) for placed in messages),
            cut=tuple(self._is_cut(placed) for placed in messages),
            source_path=self._source_path,
            **settings,
            **beside,
        )
