"""Tree -> `Job`, with every problem found on the way.

Guards that a job that loads can be run, as far as the job alone can tell: no required key is missing, the settings fit
together, the templates compile, and the wire format has all messages and parameters.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cometbatch.errors import JobError
from cometbatch.input.files import kind_of
from cometbatch.job.axes import read_matrix
from cometbatch.job.cells import job_of
from cometbatch.job.engine_reading import read_engine
from cometbatch.job.judge_reading import read_judge
from cometbatch.job.keys import IMAGE_KEYS, JUDGE, MATRIX, OVERRIDE, PROMPT_TEXTS, REQUIRED, SECTIONS, takes_text
from cometbatch.job.kinds import INPUT_WORDS, expected
from cometbatch.job.messages import PlacedMessage, read_conversation, read_messages
from cometbatch.job.paths import absolute, given, place_result, refuse_marks, refuse_no_table, with_variables
from cometbatch.job.prices import fit_prices
from cometbatch.job.response import check_response
from cometbatch.job.score_reading import read_choices, read_report, read_scores
from cometbatch.job.secrets import printable, refuse_secrets
from cometbatch.job.sections import Sections
from cometbatch.job.settings import DELIMITERS, ImageSettings, Job, ReuseSettings
from cometbatch.job.sources import is_piped, read_tree
from cometbatch.job.tree import Map, Problems, WrongError, is_null, place
from cometbatch.job.urls import DEFAULT_BASE_URL, is_loopback
from cometbatch.job.variables import variables_in, without_variables
from cometbatch.job.vendor_batch import BatchStart, batch_of
from cometbatch.money.prices import PriceSettings
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.records import GenerationParams, Role
from cometbatch.wire import FORMATS, output_cap
from cometbatch.wire.messages import DEFAULT_MAX_TOKENS

MAX_MINUTES_FOR_A_ROW = 60
"""Minutes that a row may wait for `limits.tokens_per_minute` to have room for its answer; a lower limit is refused."""
SAMPLES: dict[str, Any] = {"max_output_tokens": 1, "temperature": 1.0, "top_p": 0.5, "stop": ("x",), "seed": 1}
"""A value of each parameter that a row may have, to see whether a format knows it."""
SEEDED = GenerationParams(seed=1)
"""What a format refuses that has no place for a seed."""
NOT_SETTINGS = (*PROMPT_TEXTS, OVERRIDE)
"""Keys of sections that are no fields of their settings."""
DETAILED = ("chat", "responses")
"""Formats that can say how closely a model is to look at an image."""
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
    try:
        tree = read_tree(source, overrides, problems, takes_text)
        problems.stop_if_any()
    except JobError as error:
        if path is None or not kind_of(path.name) or not path.is_file():
            raise
        command = f"cometbatch init {shlex.quote(printable(path))}"
        raise JobError(f"{error}\nA table is no job file. This writes a job for it: {command}") from error
    folder = Path(base_dir) if base_dir is not None else path.parent if path else Path()
    source_path = absolute(Path(), path) if path else None
    axes, judge = tree.entries.pop(MATRIX, None), tree.entries.pop(JUDGE, None)
    refuse_secrets(tree, "", problems)
    problems.stop_if_any()  # before anything else could quote from near a secret
    is_pipe = isinstance(source, Path) and path is None

    if judge is not None:
        refuse_secrets(judge, "prompt.judge", problems)  # most of it is prose
        problems.stop_if_any()

    def read_one(sections: Sections, *, drops_seed: bool = False) -> Job:
        return _Reading(sections, folder, source_path, is_piped=is_pipe, drops_seed=drops_seed).job()

    if axes is None or is_null(axes):
        job = read_one(Sections(tree, problems))
    else:
        read = read_matrix(axes, problems)
        problems.stop_if_any()
        assert read is not None  # noqa: S101 - for the type checker: what is wrong was noted
        job = job_of(read, tree, problems, read_one)
    if judge is None or is_null(judge):
        return job
    found = read_judge(judge, tree, job, problems, read_one)
    problems.stop_if_any()
    return msgspec.structs.replace(job, judge=found)


class _Reading:
    """The job that the sections make, once their values are found to fit together.

    `is_piped`: the job comes from a pipe, and so from no folder. `drops_seed`: `params.seed` is left out where the
    format has no place for it.
    """

    def __init__(
        self, sections: Sections, folder: Path, source_path: Path | None, *, is_piped: bool, drops_seed: bool
    ) -> None:
        self._is_piped = is_piped
        self._sections = sections
        self._values = sections.values
        self._folder = folder
        self._source_path = source_path
        self._drops_seed = drops_seed
        self._batch: BatchStart | None = None

    def job(self) -> Job:
        """The job. Raises `JobError` where there are problems."""
        path = self._values["input"].get("path")
        self._batch = None if path is None else batch_of(self._sections, given(self._folder, path))
        for section, name in REQUIRED:
            if name not in self._values[section] and not self._sections.is_misspelt(f"{section}.{name}"):
                self._sections.refuse(f"{section}.{name}", "is missing")
        self._check_address()
        self._check_tls()
        self._check_key_file()
        self._check_paths()
        reuse = self._reuse()
        param_columns = self._values["params"].pop("columns", None) or {}
        beside = {"model_prices": fit_prices(self._sections), "param_columns": param_columns, "reuse": reuse}
        self._check_token_limit()
        before = len(self._sections.problems.lines)
        choices = read_choices(self._sections)
        scores = read_scores(self._sections, absolute(Path(), self._folder), is_piped=self._is_piped)
        beside |= {"choices": choices, "scores": scores, "report": read_report(self._sections, scores)}
        beside["engine"] = read_engine(self._sections)
        messages = self._messages(choices)
        self._check_shuffle(messages, choices)
        conversation = read_conversation(self._sections, self._placed("prompt", "few_shot"))
        images = self._images()
        is_whole = len(self._sections.problems.lines) == before and None not in self._values["prompt"].values()
        if is_whole and self._values["target"].get("format"):
            asked: list[Role] = [placed.message.role for placed in messages]
            self._check_format(asked if conversation is None else [*asked, "user"], param_columns)
            self._check_details(messages)
        check_response(self._sections, self._folder, self._params().extra)
        self._sections.problems.stop_if_any()
        return self._built(messages, {**beside, "conversation": conversation, "images": images})

    def _messages(self, choices: ChoiceSettings | None) -> list[PlacedMessage]:
        if self._batch is None:
            return read_messages(self._sections, choices)
        return [PlacedMessage(self._batch.vendor.message, "input.path")]

    # --- settings that have to fit together ---

    def _check_shuffle(self, messages: Sequence[PlacedMessage], choices: ChoiceSettings | None) -> None:
        """An order that no prompt shows would be scored, and never asked."""
        is_shown = any(placed.message.choices is not None for placed in messages)
        if choices is not None and choices.shuffle is not None and not is_shown:
            words = "the prompt does not show this order: write {{ choices | lettered }} where they stand in it"
            self._sections.refuse("choices.shuffle", words)

    def _check_address(self) -> None:
        base_url = self._values["target"].get("base_url", DEFAULT_BASE_URL)
        if base_url is None:
            return
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

    def _check_key_file(self) -> None:
        """The file of the key. Its path may have variables, which are read when a run begins."""
        target = self._values["target"]
        if not (text := target.get("key_file")):
            return
        if "key_env" in target:
            words = "contradicts target.key_env: the key is read in one place. Leave one of the two out"
            self._sections.refuse("target.key_file", f"{words}, as with --set target.key_env=null")
        if text.startswith("%d/"):
            self._sections.refuse("target.key_file", "write ${CREDENTIALS_DIRECTORY} in the place of systemd's %d")
        elif self._check_marks("target.key_file", without_variables(text)):
            is_plain = not variables_in([text])
            target["key_file"] = given(self._folder, text) if is_plain else with_variables(self._folder, text)

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
            text, source["path"] = source["path"], given(self._folder, source["path"])
            try:
                refuse_no_table(text, source["path"], INPUT_WORDS)
                refuse_marks("input.path", text, self._folder)
            except WrongError as error:
                self._sections.refuse("input.path", str(error))
            source.setdefault("delimiter", DELIMITERS.get(kind_of(source["path"].name)))
        if output.get("path") and self._check_marks("output.path", output["path"]):
            place = (self._folder, source.get("path"), self._source_path)
            try:
                output["path"], output["is_dataset"] = place_result(output["path"], *place)
            except WrongError as error:
                self._sections.refuse("output.path", str(error))

    def _placed(self, section: str, name: str) -> Path | None:
        """The path that a key gives, absolute; None where there is none, or none of this machine's."""
        path = self._values[section].get(name)
        return given(self._folder, path) if path and self._check_marks(f"{section}.{name}", path) else None

    def _reuse(self) -> ReuseSettings | None:
        values = self._values["reuse"]
        if not self._sections.is_reusing or None in values.values():
            return None
        paths = values.get("from", ())
        places = tuple(given(self._folder, path) for path in paths if self._check_marks("reuse.from", path))
        return ReuseSettings(places, **{name: value for name, value in values.items() if name != "from"})

    def _images(self) -> ImageSettings:
        node = self._values["prompt"].get("images")
        if node is None:
            return ImageSettings()
        if not isinstance(node, Map):
            self._sections.refuse("prompt.images", str(expected("a mapping", node)))
            return ImageSettings()
        values = self._sections.read_map("prompt.images", node, IMAGE_KEYS)
        if None in values.values():
            return ImageSettings()
        if "root" in values and self._check_marks("prompt.images.root", values["root"]):
            values["root"] = given(self._folder, values["root"])
        return ImageSettings(**values)

    def _check_details(self, messages: Sequence[PlacedMessage]) -> None:
        name = self._values["target"]["format"]
        for placed in messages:
            if name not in DETAILED and any(part.detail for part in placed.message.parts):
                words = f"the {name} format can't say how closely to look at an image: leave detail out"
                self._sections.refuse(placed.path, words)

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
        params.pop(OVERRIDE, None)
        name = self._values["target"].get("format")
        if self._drops_seed and name is not None and FORMATS[name].unsupported_params(SEEDED):
            params.pop("seed", None)
        if name == "messages" and self._batch is None:
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
            name: kind(**{key: value for key, value in self._sections.given(name).items() if key not in NOT_SETTINGS})
            for name, kind in SECTIONS.items()
            if name not in beside
        }
        settings |= {"params": self._params(), "prices": self._prices()}
        if not settings["target"].is_simulator:
            settings["simulator"] = None
        has_column = beside["conversation"] is not None
        paths = [placed.path for placed in messages] + ["prompt.messages_column"] * has_column
        return Job(
            messages=tuple(placed.message for placed in messages),
            places=tuple(place(self._sections.where(path), path) for path in paths),
            cut=tuple(self._is_cut(placed) for placed in messages),
            source_path=self._source_path,
            batch=None if self._batch is None else self._batch.vendor.name,
            telemetry=self._sections.single.get("telemetry"),
            dedupe=bool(self._sections.single.get("dedupe")),
            **settings,
            **beside,
        )
