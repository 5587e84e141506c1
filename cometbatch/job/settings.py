"""The job and its settings: frozen values, checked before they are made.

Guards that no fingerprint, description or `repr` of a job holds a secret, because no field does.
"""

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Literal, Self

import msgspec
from msgspec import Struct

from cometbatch.errors import JobError
from cometbatch.job.engine import EngineSettings
from cometbatch.job.judging import Pairwise, Rubric
from cometbatch.job.lawful import wrong_matrix, wrong_target
from cometbatch.job.matrix import Cell, CellSettings, Matrix, digest_of
from cometbatch.job.report import ReportSettings
from cometbatch.job.scores import ScoreSettings
from cometbatch.job.secrets import printable, unprinted
from cometbatch.job.targets import MessageTemplate, Response, Target, Template, VendorName, plain
from cometbatch.job.urls import DEFAULT_BASE_URL, SIMULATOR, is_loopback
from cometbatch.money.prices import PriceSettings
from cometbatch.prompt.conversation import Conversation
from cometbatch.prompt.names import no_column
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.prompt.template import RENDERING, TemplateError
from cometbatch.records import AnsweredStatus, GenerationParams
from cometbatch.results.accepted import Accept
from cometbatch.results.columns import CUSTOM_ID, REUSED_COLUMNS
from cometbatch.wire import FormatName
from cometbatch.wire.request_extra import asks_for_tools

DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": None, ".parquet": None}
"""Kinds of input files that can be read, and the delimiter of each where the job gives none."""

NOT_DESCRIBED = ("places", "cut", "choices", "scores", "report", "judge", "engine")
"""Fields of a job that its description leaves out. Choices that a prompt shows are part of its messages."""
OF_ACCURACY = ("accuracy", "spread")
"""Settings of the simulator that a description has only where they say something."""


class InputSettings(Struct, frozen=True):
    """Where the rows come from: a file, a folder, or a pattern for files.

    `delimiter` is None where it means nothing, as for Parquet, and where it follows from the files of a folder.
    """

    path: Path
    id: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None


class OutputSettings(Struct, frozen=True):
    """Where the answers go. `is_dataset`: `path` is a folder whose parts are the result, not one file.

    `raw`, `reasoning`: columns for the whole reply, and for what the model thought.
    """

    path: Path
    prefix: str = ""
    partition_rows: int | None = None
    is_dataset: bool = False
    raw: bool = False
    reasoning: bool = False


class TargetSettings(Struct, frozen=True):
    """Which service and model are asked, and how. `base_url` has no `/v1` and no slash at its end.

    `model_column`: the column in which a row names its own model. `ca_file`, `client_cert` and `client_key` are paths
    of TLS files in PEM form; what they hold is no part of a job. `headers`: of one's own, with the names of environment
    variables in place of their values. `key_file`: the file that holds the key, in place of `key_env`; its path may
    have names of variables, too.
    """

    format: FormatName
    model: str
    base_url: str = DEFAULT_BASE_URL
    key_env: str = "COMETAPI_KEY"
    allow_http: bool = False
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    model_column: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    key_file: Path | None = None

    @property
    def is_simulator(self) -> bool:
        """Whether the simulator of this package is asked, and no service."""
        return self.base_url == SIMULATOR

    @property
    def service(self) -> str:
        """Who answers, as far as answers depend on it: "simulator", "loopback" whatever the port, or the base URL."""
        return "loopback" if is_loopback(self.base_url) else self.base_url


class PromptSettings(Struct, frozen=True):
    """Which prompts are sent. `allow_empty`: also those that are empty or blank, whose rows else fail unsent.

    It may change between the sessions of a run: what was answered stays the answer to its prompt.
    """

    allow_empty: bool = False


class ImageSettings(Struct, frozen=True):
    """Where images come from and how large they may be. `root`: None is the input's folder.

    `fetch`: images of https:// addresses are fetched and sent as bytes, and not left to the service. `max_bytes` is for
    one image, `max_request_bytes` for all of a request. `tokens`: what each is taken to have at most, under a budget.
    """

    root: Path | None = None
    fetch: bool = False
    max_bytes: int = 5_000_000
    max_request_bytes: int = 20_000_000
    tokens: int = 6_000


class LimitSettings(Struct, frozen=True):
    """How fast to go: requests in flight and per minute, tokens per minute, seconds for one request.

    `adaptive`: the number of parallel requests rises and falls automatically, with `concurrency` as the maximum;
    without it, `concurrency` requests are always in flight. `stop_within_s`: seconds that what is in flight has left
    once the run is told to end.
    """

    concurrency: int = 256
    adaptive: bool = True
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 300.0
    stop_within_s: float = 25.0


class RetrySettings(Struct, frozen=True):
    """How long to try: attempts for a row, seconds between two of them, seconds that the service may answer nothing.

    `max_alike`: the run stops if this many rows fail with the same error before any row has succeeded. `max_row_s`:
    after this many seconds a row is not tried again, and it is left to a later session where the service asks for a
    wait that ends later.
    """

    max_attempts: int = 5
    max_wait_s: float = 30.0
    max_pushback_s: float = 900.0
    max_alike: int = 100
    max_row_s: float = 3600.0


class BudgetSettings(Struct, frozen=True):
    """What may be spent, in US dollars over all sessions of a run.

    `allow_unpriced`: run even where no price is known. `allow_unbounded`: run even where `params.extra` lets the
    service add input that no reservation bounds.
    """

    max_cost_usd: Decimal | None = None
    allow_unpriced: bool = False
    allow_unbounded: bool = False


class ReuseSettings(Struct, frozen=True):
    """Which answers of earlier runs are taken instead of sending a call again. Only such as the same service gave.

    `sources`: paths of results, data sets and run directories, or patterns for such, beside this output's own earlier
    results. `statuses`: of the rows whose answers are taken. `max_age`: seconds since an answer came, above which it
    is not taken; None is no bound. `sampling`: whether answers are taken for calls without a seed whose temperature is
    above 0 or unset.

    It may change between the sessions of a run: an answer that was taken stays the answer to its request.
    """

    sources: tuple[Path, ...] = ()
    statuses: tuple[AnsweredStatus, ...] = ("succeeded",)
    max_age: int | None = None
    sampling: bool = True


class SimulatorSettings(Struct, frozen=True):
    """How the simulator behaves. `faults` maps a fault's name to its share of requests, from 0 to 1.

    `accuracy`: how often a model is right, from 0 to 1; `spread`: the share of questions that it decides once for all
    samples.
    """

    seed: int = 0
    latency_s: tuple[float, float] = (0.5, 1.5)
    rps: float | None = None
    faults: dict[str, float] = msgspec.field(default_factory=dict)
    retry_after: bool = False
    accuracy: dict[str, float] = msgspec.field(default_factory=dict)
    spread: float = 0.0


class Job(Struct, frozen=True):
    """What a job file says, made by `load_job`, which has checked it. Paths are absolute. Holds no secret.

    `places`: where the template of each message stands, as "FILE:LINE: KEY", and after these the key of a column with
    messages. `cut`: whether YAML seems to have taken the end of a template for a comment. A job made from its
    description has neither. `batch`: whose batch file the input is, whose bodies are the requests; None for a table.
    `model_prices`: those of models by their ids; `prices` are those of `target.model` where it is not among them.
    `param_columns`: the columns in which a row has its own value of a parameter, by the parameter's name. `reuse`: None
    where no answers of earlier runs are taken. `telemetry`: who is told of each session over OpenTelemetry; None is
    nobody. `dedupe`: of rows that ask the same, one is sent, and the others take its answer. `choices`: those of each
    question; `scores`, `report` and `judge` say how answers are scored, compared and judged, and change no request.
    `engine`: who sends the calls.
    `matrix`: None where each row is asked once. With one, `target.model`, `target.format`, `messages`, `conversation`,
    `params`, `param_columns` and `prices` are those of its first cell.
    """

    input: InputSettings
    output: OutputSettings
    target: TargetSettings
    messages: tuple[MessageTemplate, ...]
    places: tuple[str, ...]
    params: GenerationParams = GenerationParams()
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    prices: PriceSettings = PriceSettings()
    budget: BudgetSettings = BudgetSettings()
    simulator: SimulatorSettings | None = None
    source_path: Path | None = None
    prompt: PromptSettings = PromptSettings()
    cut: tuple[bool, ...] = ()
    batch: VendorName | None = None
    conversation: Conversation | None = None
    images: ImageSettings = ImageSettings()
    response: Response = Response()
    model_prices: dict[str, PriceSettings] = msgspec.field(default_factory=dict)
    param_columns: dict[str, str] = msgspec.field(default_factory=dict)
    accept: Accept = Accept()
    reuse: ReuseSettings | None = None
    dedupe: bool = False
    telemetry: Literal["otlp"] | None = None
    choices: ChoiceSettings | None = None
    scores: tuple[ScoreSettings, ...] = ()
    report: ReportSettings = ReportSettings()
    matrix: Matrix | None = None
    engine: EngineSettings = EngineSettings()
    judge: "JudgeSettings | None" = None

    def targets(self) -> tuple[Target, ...]:
        """What is asked of each row: one target for each cell."""
        if self.matrix is not None:
            return tuple(self._target_of(self.matrix, each) for each in self.matrix.cells)
        return (
            Target(
                self.target.format,
                self.target.model,
                self.messages,
                self.params,
                batch=self.batch,
                conversation=self.conversation,
                response=self.response,
                model_column=self.target.model_column,
                param_columns=self.param_columns,
            ),
        )

    def _target_of(self, matrix: Matrix, cell: CellSettings) -> Target:
        prompt = matrix.prompts[cell.prompt]
        return Target(
            cell.format,
            cell.model,
            prompt.messages,
            cell.params,
            batch=self.batch,
            conversation=prompt.conversation,
            response=self.response,
            param_columns=cell.param_columns,
        )

    def cells(self) -> tuple[Cell, ...]:
        """The cells of the matrix, in the order of the result: the first axis slowest. Without a matrix there is one.

        Makes them anew at each call.
        """
        targets = self.targets()
        if self.matrix is None:
            (target,) = targets
            return (Cell({}, target, self.prices_of(target.model), digest_of(target)),)
        return tuple(
            Cell(self.matrix.labels_of(each), target, each.prices, digest_of(target))
            for each, target in zip(self.matrix.cells, targets, strict=True)
        )

    @property
    def samples(self) -> int:
        """How often each row is asked in each cell."""
        return 1 if self.matrix is None else self.matrix.samples

    def prices_of(self, model: str) -> PriceSettings:
        """What the job says about the prices of a model."""
        given = self.model_prices.get(model)
        is_own = model == self.target.model and given is None
        return self.prices if is_own else self.prices.of_another_model(given)

    @property
    def image_root(self) -> Path:
        """The folder below which images lie."""
        return self.images.root or self.input.path.parent

    @property
    def asked_columns(self) -> frozenset[str]:
        """The names of the columns that a run has only where its job asks for them."""
        has_tools = any(asks_for_tools(target.params.extra) for target in self.targets())
        asked = {
            "tool_calls": has_tools or self.batch is not None,
            "reasoning": self.output.reasoning,
            "raw": self.output.raw,
            "asks": self.response.is_used,
            "rejected_cost_usd": self.response.is_used,
            "target": self.target.model_column is not None,
            **dict.fromkeys(REUSED_COLUMNS, self.reuse is not None or self.dedupe),
        }
        return frozenset(name for name, is_asked in asked.items() if is_asked)

    @property
    def columns_there(self) -> frozenset[str]:
        """The names of the columns that a run leaves out because its input has them as they are: the user's own ids."""
        return frozenset({CUSTOM_ID} if self.input.id == self.output.prefix + CUSTOM_ID else ())

    def prompt_template_for(self, target: Target, columns: Sequence[str]) -> Template:
        """The compiled prompt of a target, for a table with these columns. Raises `JobError` where it needs others."""
        places = self._places_of(target)
        if target.conversation is not None and target.conversation.column not in columns:
            place = places[-1] if places else "prompt.messages_column"
            raise JobError(f"{place}: {no_column(target.conversation.column, columns)}")
        template = target.prompt_template(refuse_empty=not self.prompt.allow_empty)
        try:
            template.check(columns)
        except TemplateError as error:
            place = places[error.index] if places else f"prompt.messages[{error.index}]"
            raise JobError(f"{place}: {template_words(error)}") from error
        return template

    def _places_of(self, target: Target) -> tuple[str, ...]:
        """Where the templates of a target stand."""
        prompts = () if self.matrix is None else self.matrix.prompts
        asked = target.messages, target.conversation
        return next((each.places for each in prompts if (each.messages, each.conversation) == asked), self.places)

    def fingerprint(self) -> dict[str, object]:
        """Everything that changes answers, as JSON-ready values by key path. Runs that differ here don't mix.

        With a matrix, what its axes set is left out: cells come and go, and each is told by its own digest.
        """
        headers = {"target.headers": dict(self.target.headers)} if self.target.headers else {}
        return self._asked_everywhere() | {
            "target.service": self.target.service,
            "input.id": self.input.id,
            "input.encoding": self.input.encoding,
            "input.delimiter": self.input.delimiter,
            "output.prefix": self.output.prefix,
            "prompt.rendering": RENDERING,
            **self._image_fingerprint(),
            **headers,
        }

    def _asked_everywhere(self) -> dict[str, object]:
        """The fingerprint of what is asked in every cell."""
        target = self.targets()[0]
        if self.matrix is None:
            return target.fingerprint()
        return self.matrix.base_of(target)

    def _image_fingerprint(self) -> dict[str, object]:
        """What decides which images are sent. Of the folder, its way from the input: both may be moved together."""
        said: dict[str, object] = {"prompt.images.fetch": True} if self.images.fetch else {}
        if self.images.root is not None:
            said["prompt.images.root"] = os.path.relpath(printable(self.images.root), printable(self.input.path.parent))
        return said

    def describe(self) -> dict[str, object]:
        """What a run is made by, as JSON-ready values, for manifests and metadata.

        `places` and `cut` are left out, and so is who sends the calls, and how answers are scored and compared: that
        may change at any time.
        """
        values = {name: value for name, value in plain(self).items() if name not in NOT_DESCRIBED}
        if self.simulator is not None and not self.simulator.accuracy:
            values["simulator"] = {key: value for key, value in values["simulator"].items() if key not in OF_ACCURACY}
        if self.matrix is None:
            return {name: value for name, value in values.items() if name != "matrix"}
        for prompt in values["matrix"]["prompts"]:
            del prompt["places"], prompt["cut"]
        return values

    @classmethod
    def from_description(cls, description: Mapping[str, object]) -> Self:
        """The job that `describe` described. Raises `JobError` where no job describes itself so."""
        try:
            job = msgspec.convert({"places": (), **description}, cls, dec_hook=_path)
        except (msgspec.ValidationError, RecursionError) as error:
            raise JobError(f"this describes no job ({error})") from error
        wrong = wrong_target(job.target.base_url, job.target.key_env, job.target.headers)
        if wrong is None and job.matrix is not None:
            wrong = wrong_matrix(job.matrix)
        if wrong is not None:
            raise JobError(f"this describes no job ({wrong} is none that a job file can have)")
        return job


class JudgeSettings(Struct, frozen=True):
    """How the answers of a job are judged. `job`: what asks the judge about a table of answers.

    Its paths only stand for those of each table, and its prompt is that of the order in which `first` is the first.
    """

    job: Job
    way: Pairwise | Rubric


def template_words(error: TemplateError) -> str:
    """What is wrong with a template, for a message that names the template's place itself."""
    line = f"line {error.line} of the template: " if error.line else "in the template: "
    return line + error.reason + (f" ({error.hint})" if error.hint else "")


def _path(kind: type, value: object) -> object:
    """A path, the only type in a job that JSON lacks."""
    if kind is not Path or not isinstance(value, str) or "\0" in value:
        raise msgspec.ValidationError(f"{value!r} is no {kind.__name__}")
    return Path(unprinted(value))
