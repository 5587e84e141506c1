"""The table of keys: each key of a job file, the values that it takes, its default and its meaning.

The reading of a job and the documentation's table are both made from it, so they can't differ.
"""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from cometbatch.errors import did_you_mean, nearest
from cometbatch.job import engine_keys, headers, judge_keys, kinds, score_keys, settings, targets
from cometbatch.job.accepting import BOUND
from cometbatch.job.engine import EngineSettings, RaySettings
from cometbatch.job.extra import EXTRA, SCHEMA
from cometbatch.job.key import JobKey, Key, object_schema
from cometbatch.job.kinds import FLAG, INT64_MAX, MAX_SECONDS, PROSE, Kind, choice, number, several, text, word
from cometbatch.job.report import ReportSettings
from cometbatch.money.prices import PriceSettings
from cometbatch.prompt.content import DETAILS
from cometbatch.prompt.questions import ChoiceSettings
from cometbatch.records import AnsweredStatus, GenerationParams, MaxTokensField, Role
from cometbatch.results.accepted import Accept
from cometbatch.wire import FORMATS
from cometbatch.wire.structured import Mode

MAX_PARTITION_ROWS = 8_192
"""The largest `output.partition_rows`: all answers of a partition are in memory when its part is written."""
MAX_PUSHBACK_S = 86_400
"""Seconds: the longest that a run may wait for a service that answers nothing, or a row for its answer. A day."""


_MONEY = number(Decimal, 0, 1_000_000)
_FACTOR = number(Decimal, 0, 100)
_MINUTE = number(float, 0, 1_000_000_000, above=True)
_SECONDS = number(float, 0, MAX_SECONDS, above=True)

FORMATS_KNOWN_AS = {
    **dict.fromkeys(("openai", "completions", "chat_completions", "chat-completions", "chat/completions"), "chat"),
    **dict.fromkeys(("anthropic", "claude"), "messages"),
    **dict.fromkeys(("google", "generatecontent", "vertex", "vertexai"), "gemini"),
}
"""What people call the wire formats."""
PRICES = choice("catalog", "none")
"""What `prices` may be instead of a mapping."""
PROMPT_TEXTS = ("system", "user", "messages", "messages_column", "few_shot", "images")
"""The keys of `prompt` that say what it holds; the others are settings."""
OVERRIDE = "override"
"""The key of `params` by which the others are laid over bodies that the input brings; it is no parameter itself."""
MESSAGE_KEYS = {
    "role": Key(choice(*get_args(Role)), "whose message it is"),
    "content": Key(kinds.CONTENT, "template of the message, or a list of its parts"),
}
PART_KEYS = {
    "text": Key(PROSE, "template of a text"),
    "image": Key(PROSE, "template of an image: a column with bytes, or a path, or an https:// address"),
    "detail": Key(choice(*DETAILS), "how closely the model looks at the image; for the formats chat and responses"),
}
"""The keys of a part of a message."""
IMAGE_KEYS = {
    "root": Key(kinds.PATH, "the folder below which images lie; the input's folder if not set"),
    "max_bytes": Key(number(int, 1, 50_000_000), "the most bytes that an image may have"),
    "max_request_bytes": Key(number(int, 1, 50_000_000), "the most bytes that all images of a request may have"),
    "fetch": Key(FLAG, "fetch the images of https:// addresses and send their bytes; else the service fetches them"),
    "tokens": Key(
        number(int, 1, 1_000_000), "input tokens that an image is taken to cost at most, where a budget is to be held"
    ),
}
"""The keys of `prompt.images`."""
ABOVE_KEYS = {
    "input_tokens": Key(
        number(int, 1, 1_000_000_000), "the prices in prices.above are for answers with more input tokens than this"
    ),
    "input": Key(_MONEY, "US dollars per million input tokens of such an answer; prices.input if not set"),
    "output": Key(_MONEY, "US dollars per million output tokens of such an answer; prices.output if not set"),
    "cache_read": Key(_MONEY, "the same for cache reads; if not set, they cost as much of the input price as below"),
    "cache_write": Key(_MONEY, "the same for cache writes; if not set, they cost as much of the input price as below"),
    "cache_write_1h": Key(_MONEY, "the same for cache writes that are kept for an hour"),
}
"""The keys of `prices.above`."""
MAX_MESSAGES = 1_000  # of a prompt
PARTS_SCHEMA = {"type": "array", "items": object_schema(PART_KEYS), "minItems": 1}
MESSAGES_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "role": MESSAGE_KEYS["role"].kind.schema | {"description": MESSAGE_KEYS["role"].meaning},
            "content": {"anyOf": [PROSE.schema, PARTS_SCHEMA], "description": MESSAGE_KEYS["content"].meaning},
        },
        "required": [*MESSAGE_KEYS],
    },
    "minItems": 1,
    "maxItems": MAX_MESSAGES,
}
ABOVE_SCHEMA = object_schema(ABOVE_KEYS, required=["input_tokens"]) | {"minProperties": 2}
PRICE_KEYS = {
    "input": Key(_MONEY, "US dollars per million input tokens"),
    "output": Key(_MONEY, "US dollars per million output tokens"),
    "cache_read": Key(_MONEY, "US dollars per million input tokens that were read from a cache"),
    "cache_write": Key(_MONEY, "US dollars per million input tokens that were written to a cache"),
    "cache_write_1h": Key(
        _MONEY,
        "US dollars per million input tokens written to a cache for an hour; twice the input price if not set",
    ),
    "per_request": Key(_MONEY, "US dollars per request, instead of prices for tokens"),
    "cache_read_multiplier": Key(_FACTOR, "price of cache reads as a multiple of the input price"),
    "cache_write_multiplier": Key(_FACTOR, "price of cache writes as a multiple of the input price"),
    "above": Key(Kind("a mapping", lambda node: node, schema=ABOVE_SCHEMA), "other prices for answers with much input"),
}
"""The keys of `prices` but for `models`, and of each model in that."""
MAX_MODELS = 1_000
"""The most models that one job prices, or asks by a column."""
MODELS_SCHEMA = {
    "type": "object",
    "additionalProperties": object_schema(PRICE_KEYS),
    "minProperties": 1,
    "maxProperties": MAX_MODELS,
}
KEYS: dict[str, dict[str, Key]] = {
    "input": {
        "path": Key(kinds.INPUT_PATH, "the table: a file, a folder of files, or a pattern for files"),
        "id": Key(text("the name of a column"), "the column that holds your own name for a row"),
        "encoding": Key(kinds.ENCODING, "how the text of a .csv or .tsv is encoded"),
        "delimiter": Key(kinds.DELIMITER, "the character between two cells; a tab for .tsv"),
    },
    "output": {
        "path": Key(kinds.PATH, "the result: a .parquet file, or a folder (with / at its end) for a data set"),
        "prefix": Key(kinds.PREFIX, "put before the name of each output column"),
        "partition_rows": Key(
            number(int, 1, MAX_PARTITION_ROWS), "rows in one part; by default chosen from the input's size"
        ),
        "raw": Key(FLAG, "keep the whole JSON of each answer's reply, in a column `raw`"),
        "reasoning": Key(FLAG, "keep what the model thought, where the reply carries it, in a column `reasoning`"),
    },
    "target": {
        "base_url": Key(kinds.BASE_URL, "the service, without /v1"),
        "key_env": Key(kinds.KEY_ENV, "where the API key is found"),
        "key_file": Key(
            kinds.KEY_FILE, "a file that holds the API key, instead of key_env; ${NAME} in the path is a variable"
        ),
        "format": Key(choice(*FORMATS, known_as=FORMATS_KNOWN_AS), "which request format is spoken"),
        "model": Key(word("the id of a model"), "the model's id as the catalog has it"),
        "model_column": Key(
            text("the name of a column"), "the column in which a row names its own model; an empty cell is target.model"
        ),
        "headers": Key(
            Kind(headers.WORDS, headers.read_headers, schema=headers.SCHEMA),
            "headers of your own for each request, as {x-team: ${TEAM}}: ${NAME} is an environment variable, which no "
            "file and no message ever shows",
        ),
        "allow_http": Key(FLAG, "send the key without encryption to a host that is not this machine"),
        "ca_file": Key(kinds.PEM_FILE, "certificates of the authorities to trust, instead of the usual ones"),
        "client_cert": Key(kinds.PEM_FILE, "the certificate to show to the service"),
        "client_key": Key(kinds.PEM_FILE, "the certificate's private key, if it is not in client_cert"),
    },
    "prompt": {
        "system": Key(PROSE, "template of the system message"),
        "user": Key(PROSE, "template of the user message; {{ column }} stands for a cell"),
        "messages": Key(
            Kind("a list of role and content", lambda node: node, schema=MESSAGES_SCHEMA),
            "the messages, if two are not enough",
        ),
        "messages_column": Key(
            text("the name of a column"),
            "the column that holds each row's messages, as JSON or a list of structures",
        ),
        "few_shot": Key(kinds.PATH, "a JSON or JSONL file of messages that go before those of messages_column"),
        "images": Key(
            Kind("a mapping", lambda node: node, schema=object_schema(IMAGE_KEYS)),
            "where images come from and how large they may be",
        ),
        "allow_empty": Key(FLAG, "send prompts that are empty or blank, too; without it their rows fail unsent"),
    },
    "params": {
        "max_output_tokens": Key(
            number(int, 1, 10_000_000), "the most tokens that an answer may have, thinking included"
        ),
        "temperature": Key(number(float, 0, 2), "how freely the model chooses its words"),
        "top_p": Key(number(float, 0, 1), "the share of likely tokens that the model chooses from"),
        "stop": Key(kinds.STOP, "where an answer ends early"),
        "seed": Key(number(int, -INT64_MAX, INT64_MAX), "asks for the same choices each time; not every model can"),
        "max_tokens_field": Key(
            choice(*get_args(MaxTokensField)),
            "the name by which a chat request sets that cap; auto is max_completion_tokens",
        ),
        "extra": Key(EXTRA, "merged into the request's body as it is"),
        "columns": Key(
            kinds.PARAM_COLUMNS,
            "columns in which a row has its own value: {temperature: t}; an empty cell is the job's own",
        ),
        OVERRIDE: Key(FLAG, "lay these over the bodies of a vendor's batch file, which else go out as they are"),
    },
    "response": {
        "schema": Key(
            SCHEMA,
            "the JSON Schema that answers must fit, written here or in a .json or .yaml file; its properties become "
            "typed columns; needs the extra `schema`",
        ),
        "json": Key(FLAG, "answers must be JSON, whatever it holds"),
        "pattern": Key(
            PROSE, "a regular expression that answers must match as a whole, without look-around; needs the extra"
        ),
        "mode": Key(
            choice(*get_args(Mode)),
            "how such answers are asked for: by the format's own setting, by its JSON mode, as a call of a function, "
            "or by the prompt alone",
        ),
        "prefix": Key(kinds.PREFIX, "put before the name of each column that comes from the schema"),
        "max_asks": Key(
            number(int, 1, 10), "how often a row is asked in all, where an answer is whole and does not fit"
        ),
    },
    "limits": {
        "concurrency": Key(number(int, 1, 10_000), "the maximum number of requests in flight at once"),
        "adaptive": Key(
            FLAG, "raise and lower the number of parallel requests automatically; concurrency is the maximum"
        ),
        "requests_per_minute": Key(_MINUTE, "requests sent in a minute"),
        "tokens_per_minute": Key(_MINUTE, "tokens of input and output that may be asked for in a minute"),
        "timeout_s": Key(_SECONDS, "seconds that one request may take"),
        "stop_within_s": Key(
            number(float, 0, MAX_SECONDS),
            "seconds that requests in flight have left after SIGTERM or SIGHUP; then they are given up, "
            "each as a possible extra charge",
        ),
    },
    "retry": {
        "max_attempts": Key(number(int, 1, 100), "attempts for a row before it counts as failed"),
        "max_wait_s": Key(
            _SECONDS, "the longest wait between two attempts, in seconds, unless the service asks for a longer one"
        ),
        "max_pushback_s": Key(
            number(float, 0, MAX_PUSHBACK_S, above=True),
            "stop the run if the service answers nothing for this many seconds",
        ),
        "max_alike": Key(
            number(int, 1, 1_000_000), "stop if this many rows fail with the same error before any row has succeeded"
        ),
        "max_row_s": Key(
            number(float, 0, MAX_PUSHBACK_S, above=True),
            "seconds after which a row is not tried again; a row that the service asks to wait for longer is left to "
            "a later session",
        ),
    },
    "prices": PRICE_KEYS
    | {
        "models": Key(
            Kind("a mapping of model ids", lambda node: node, schema=MODELS_SCHEMA),
            "prices of models by their ids, with the keys of this section; those beside it are target.model's alone",
        ),
    },
    "budget": {
        "max_cost_usd": Key(number(Decimal, 0, 1_000_000_000), "the maximum cost of the run in US dollars"),
        "allow_unpriced": Key(FLAG, "run even where no price is known, so that the budget can't be held"),
        "allow_unbounded": Key(FLAG, "run even where the service may add input, so that the budget can be passed"),
    },
    "accept": {
        "failed": Key(BOUND, "how many rows may fail in a run that ends with exit code 0; none if not set"),
        "incomplete": Key(BOUND, "how many rows may be incomplete in such a run; none if not set"),
    },
    "reuse": {
        "from": Key(
            kinds.PATHS,
            "earlier results beside this output's own: Parquet results, folders of data sets, run directories, or "
            "patterns for such; a pattern may match nothing",
        ),
        "statuses": Key(
            several(choice(*get_args(AnsweredStatus)), "a status or a list of statuses", 2),
            "the statuses of rows whose answers are taken: succeeded, incomplete",
        ),
        "max_age": Key(kinds.AGE, "the age above which an answer is not taken; without it, any age will do"),
        "sampling": Key(
            FLAG,
            "take answers also for calls that may be answered otherwise each time: without a seed, and with a "
            "temperature above 0 or none",
        ),
    },
    "choices": {
        "columns": Key(
            score_keys.COLUMNS,
            "the column that holds a list of each question's choices, or a column for each choice; a path leads into "
            "structures: mc1_targets.choices",
        ),
        "labels": Key(score_keys.LABELS, "the labels of the choices in their order; A, B, C if not set"),
        "shuffle": Key(
            number(int, 0, INT64_MAX),
            "a seed: each question's choices get another order, the same for all models and samples, which `choices` "
            "in the prompt shows",
        ),
    },
    "report": {
        "score": Key(text("the name of a score"), "the score that the leaderboard is about; the first if not set"),
        "by": Key(several(score_keys.SCALAR, "an axis or a list of axes", 20), "the axes that make its lines"),
        "baseline": Key(score_keys.SCALAR, "the line that the others are compared with; the best one if not set"),
        "cluster": Key(text("the name of a column"), "rows with the same value here count as one question's"),
        "groups": Key(text("the name of a column"), "scores are shown for each value of this column, too"),
    },
    "engine": engine_keys.KEYS,
    "simulator": {
        "seed": Key(number(int, 0, INT64_MAX), "another seed, other answers and faults"),
        "latency_s": Key(kinds.LATENCY, "how long the simulator takes for an answer"),
        "rps": Key(number(float, 0, 1_000_000, above=True), "requests per second beyond which it answers 429"),
        "faults": Key(kinds.FAULTS, "its faults by name, each with its share of requests"),
        "retry_after": Key(FLAG, "say in a 429 how long to wait"),
        "accuracy": Key(
            kinds.ACCURACY, "how often models are right, by model: {comet-sim-1: 0.8}; others don't know what is right"
        ),
        "spread": Key(
            kinds.SHARE,
            "with accuracy: the share of the questions that a model always has right or always wrong; it is the "
            "correlation of two samples of a question",
        ),
    },
}
MATRIX: Final = "matrix"
JUDGE: Final = "judge"
SAMPLES: Final = "samples"
MATRIX_KEYS = {SAMPLES: Key(number(int, 1, 10_000), "how often each row is asked in each cell of the matrix")}
"""The keys of `matrix` that are no axes."""
SINGLE: dict[str, Key] = {
    "dedupe": Key(
        FLAG, "send one of the rows that ask the same, and give its answer to the others, which cost nothing then"
    ),
    "telemetry": Key(
        kinds.TELEMETRY,
        "send metrics and spans to a collector of OpenTelemetry, as the OTEL_* variables say; needs the extra `otel`",
    ),
}
"""The keys that stand in no section."""
FREE: dict[str, str] = {
    JUDGE: "how another model compares or rates the answers; only `cometbatch judge` asks it",
    MATRIX: "settings that take several values: each row is asked with each combination of them, which is a cell",
    "score": "how answers are scored: a score's name, then its scorer and the gold column, as {numeric: answer}",
}
"""The sections whose keys a user names, with their meanings."""
SECTIONS: dict[str, type[Struct]] = {
    "input": settings.InputSettings,
    "output": settings.OutputSettings,
    "target": settings.TargetSettings,
    "prompt": settings.PromptSettings,
    "params": GenerationParams,
    "response": targets.Response,
    "limits": settings.LimitSettings,
    "retry": settings.RetrySettings,
    "prices": PriceSettings,
    "budget": settings.BudgetSettings,
    "accept": Accept,
    "reuse": settings.ReuseSettings,
    "choices": ChoiceSettings,
    "report": ReportSettings,
    "engine": EngineSettings,
    "simulator": settings.SimulatorSettings,
}
"""The sections that become settings; of the prompt, what is no message."""
INNER: dict[tuple[str, str], tuple[Mapping[str, Key], type[Struct]]] = {
    ("prompt", "images"): (IMAGE_KEYS, settings.ImageSettings),
    ("engine", "ray"): (engine_keys.RAY_KEYS, RaySettings),
}
"""The keys of sections that hold a mapping with keys of its own, and the settings that it becomes."""
BESIDE_SETTINGS = {("prices", "models"), ("params", "columns"), ("reuse", "from")}
"""Keys that the settings of their section don't hold by this name: they say something for each row or for each model,
or the name is no word for a field."""
WORDS_FOR_SECTIONS: dict[str, Kind[Any]] = {"prices": PRICES, "reuse": FLAG}
"""What a section may be instead of a mapping."""
REQUIRED = (("input", "path"), ("output", "path"), ("target", "format"), ("target", "model"))


KNOWN_AS = {
    "max_tokens": "params.max_output_tokens",
    "max_completion_tokens": "params.max_output_tokens",
    "system_prompt": "prompt.system",
    "user_prompt": "prompt.user",
    "template": "prompt.user",
    "parallel": "limits.concurrency",
    "max_concurrency": "limits.concurrency",
    "rpm": "limits.requests_per_minute",
    "tpm": "limits.tokens_per_minute",
    "timeout": "limits.timeout_s",
    "retries": "retry.max_attempts",
    "max_retries": "retry.max_attempts",
    "max_cost": "budget.max_cost_usd",
    "max_failed": "accept.failed",
    "max_failures": "accept.failed",
    "tolerance": "accept.failed",
    "url": "target.base_url",
    "provider": "target.format",
    "file": "input.path",
    "source": "input.path",
    "response_format": "response.schema",
    "json_schema": "response.schema",
    "output_schema": "response.schema",
    "regex": "response.pattern",
    "destination": "output.path",
    "otel": "telemetry",
    "opentelemetry": "telemetry",
    "cache": "reuse",
    "caching": "reuse",
    "reuse_cache": "reuse",
    "deduplicate": "dedupe",
    "dedup": "dedupe",
    "distinct": "dedupe",
    "unique": "dedupe",
    **dict.fromkeys(("scores", "scorer", "scorers", "metric", "metrics", "grader", "graders", "evaluation"), "score"),
    "leaderboard": "report",
    "options": "choices",
}
"""What other programs call our keys, for hints."""


def takes_text(path: str, value: str) -> bool:
    """Whether a `--set` of this key gives a text as it stands, and no YAML."""
    path = path.removeprefix(f"{JUDGE}.")  # which has sections of a job
    section, _, name = path.partition(".")
    if path.startswith(("params.columns.", "target.headers.")):
        return True
    if section == "score":
        return score_keys.takes_text(path)
    key = KEYS.get(section, {}).get(name)
    if key is None or not key.kind.takes_text:
        return False
    pair, bare = key.kind.brackets, value.strip()
    return not pair or (bare[:1], bare[-1:]) != (pair[0], pair[1])


def key_meant(name: str, section: str, known: Collection[str]) -> str:
    """A hint at the key that an unknown name stands for; "" where there is none.

    `section`: where it is, "" at the top; `known`: what could be there. The right word in the wrong place comes first,
    then what others call it, then the nearest word.
    """
    paths = {f"{other}.{key}": key for other, keys in KEYS.items() for key in keys if other != section}
    elsewhere = [path for path, key in paths.items() if key == name]
    if len(elsewhere) == 1 or name in KNOWN_AS:
        return f"did you mean {KNOWN_AS.get(name, *elsewhere[:1])!r}?"
    if elsewhere:
        return f"did you mean one of {', '.join(elsewhere)}?"
    if near := did_you_mean(name, known):
        return near
    if section == "params":
        return "what the service takes beyond these goes into params.extra"
    by_name = {key: path for path, key in paths.items()} | {key: key for key in (*SINGLE, *FREE)}
    meant = nearest(name, by_name)
    return f"did you mean {by_name[meant]!r}?" if meant else ""


def job_keys() -> list[JobKey]:
    """Every key that a job file may have, in the order of a job file."""
    return list(_job_keys())


def _job_keys() -> Iterator[JobKey]:
    for section, keys in KEYS.items():
        if section == "prices":
            words = f"{PRICES.words}, or a mapping"
            yield JobKey("prices", words, "catalog", "where prices come from; none: costs stay unknown")
        if section == "reuse":
            meaning = (
                "take answers of earlier runs to the same requests, each once; true: this output's own earlier ones"
            )
            yield JobKey("reuse", f"{FLAG.words}, or a mapping", "false", meaning)
        if section == "report":
            yield from score_keys.score_job_keys()
        for name, key in keys.items():
            yield JobKey(f"{section}.{name}", key.kind.words, _default_words(section, name), key.meaning)
            if (section, name) == ("prices", "above"):
                for inner, each in ABOVE_KEYS.items():
                    needed = "required in above" if inner == "input_tokens" else ""
                    yield JobKey(f"prices.above.{inner}", each.kind.words, needed, each.meaning)
            if (section, name) in INNER:
                yield from _inner_keys(f"{section}.{name}", *INNER[section, name])
    yield JobKey(MATRIX, "a mapping", "", FREE[MATRIX])
    for name, key in MATRIX_KEYS.items():
        yield JobKey(f"{MATRIX}.{name}", key.kind.words, "1", key.meaning)
    yield JobKey(JUDGE, "a mapping", "", f"{FREE[JUDGE]} (docs/judge.md)")
    yield from judge_keys.judge_job_keys()
    for name, key in SINGLE.items():
        yield JobKey(name, key.kind.words, "false" if key.kind is FLAG else "", key.meaning)
        if name == MATRIX:
            yield from (
                JobKey(f"{name}.{inner}", each.kind.words, "1", each.meaning) for inner, each in MATRIX_KEYS.items()
            )


def _inner_keys(path: str, keys: Mapping[str, Key], kind: type[Struct]) -> Iterator[JobKey]:
    for field in msgspec.structs.fields(kind):
        default = "" if field.default is None else _yaml_like(field.default)
        yield JobKey(f"{path}.{field.name}", keys[field.name].kind.words, default, keys[field.name].meaning)


def job_keys_markdown() -> str:
    """The keys as a table in Markdown."""
    rows = [f"| `{key.path}` | {key.type} | {key.default} | {key.meaning} |" for key in job_keys()]
    return "\n".join(["| key | takes | default | meaning |", "| --- | --- | --- | --- |", *rows])


def _default_words(section: str, name: str) -> str:
    if (section, name) in REQUIRED:
        return "required"
    if (section, name) == ("prompt", "user"):
        return "required without messages or messages_column"
    if (section == "prompt" and name in PROMPT_TEXTS) or (section, name) in BESIDE_SETTINGS:
        return ""
    if (section, name) == ("params", OVERRIDE):
        return _yaml_like(False)
    default = {field.name: field.default for field in msgspec.structs.fields(SECTIONS[section])}[name]
    return "" if default in (msgspec.NODEFAULT, None, "", ()) else _yaml_like(default)


def _yaml_like(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return f"[{', '.join(map(_yaml_like, value))}]"
    return str(value)
