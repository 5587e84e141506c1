import json
import os
import pickle
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cometbatch.errors import JobError
from cometbatch.job import Job, MessageTemplate, SimulatorSettings, Target, job_keys, job_keys_markdown, load_job
from cometbatch.job.engine import RaySettings
from cometbatch.job.judge_keys import judge_job_keys
from cometbatch.job.keys import SECTIONS, SINGLE
from cometbatch.job.score_keys import score_job_keys
from cometbatch.job.settings import ImageSettings, ReuseSettings
from cometbatch.job.targets import Template
from cometbatch.money.prices import PricesAbove, PriceSettings
from cometbatch.prompt.template import RENDERING
from cometbatch.records import GenerationParams
from cometbatch.results.columns import REUSED_COLUMNS
from cometbatch.wire.messages import DEFAULT_MAX_TOKENS

PLANTED = "sk-Planted0Secret1Value2Here3"
SMALL: dict[str, Any] = {
    "input": {"path": "tickets.csv"},
    "output": {"path": "out.parquet"},
    "target": {"format": "chat", "model": "m-1"},
    "prompt": {"user": "Classify: {{ body }}"},
}
SMALL_TEXT = """\
input: {path: tickets.csv}
output: {path: out.parquet}
target: {format: chat, model: m-1}
prompt: {user: "Classify: {{ body }}"}
"""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes put over it, mapping by mapping; None takes a key away."""
    both = {**base, **changes}
    inner = {key: merged(base[key], changes[key]) for key in base.keys() & changes.keys()
             if isinstance(base[key], Mapping) and isinstance(changes[key], Mapping)}  # fmt: skip
    return {key: value for key, value in {**both, **inner}.items() if value is not None}


def small(**changes: Any) -> dict[str, Any]:
    """The smallest job, with changes."""
    return merged(SMALL, changes)


def written(folder: Path, text: str | bytes) -> Path:
    """A job file with this text."""
    path = folder / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(source: Path | str | Mapping[str, Any], *overrides: str) -> str:
    """Why a job is refused; no secret and no trace of the machinery may be in it."""
    with pytest.raises(JobError) as caught:
        load_job(source, overrides)
    error = caught.value
    for words in (str(error), repr(error)):
        assert PLANTED not in words
        assert not re.search(
            r"Traceback|yaml\.|msgspec|<class|object at 0x|Error\(|_Scalar|None", words.removeprefix("JobError(")
        )
    assert error.exit_code == 2
    assert error.__cause__ is None
    assert error.__context__ is None or PLANTED not in str(error.__context__)
    return str(error)


# --- jobs that are fine -----------------------------------------------------------------------------------------------


def test_the_smallest_job_has_every_default(tmp_path: Path) -> None:
    """Four sections are enough; the rest has safe defaults, and paths start at the job file's folder."""
    job = load_job(written(tmp_path, SMALL_TEXT))
    assert job.input.path == tmp_path / "tickets.csv"
    assert (job.input.id, job.input.encoding, job.input.delimiter) == (None, "utf-8", ",")
    assert (job.output.path, job.output.is_dataset, job.output.prefix) == (tmp_path / "out.parquet", False, "")
    assert job.target.base_url == "https://api.cometapi.com"
    assert (job.target.key_env, job.target.format, job.target.model) == ("COMETAPI_KEY", "chat", "m-1")
    assert job.messages == (MessageTemplate("user", "Classify: {{ body }}"),)
    assert job.params == GenerationParams()
    assert (job.limits.concurrency, job.limits.timeout_s) == (256, 300.0)
    assert (job.limits.requests_per_minute, job.limits.tokens_per_minute) == (None, None)
    assert (job.retry.max_attempts, job.retry.max_wait_s, job.retry.max_pushback_s) == (5, 30.0, 900.0)
    assert job.prices == PriceSettings()
    assert job.simulator is None
    assert job.source_path == tmp_path / "job.yaml"


FULL_TEXT = """\
input:   {path: /data/tickets.tsv, id: order id, encoding: cp1252, delimiter: ";"}
output:  {path: out/, prefix: a_, partition_rows: 100}
target:  {base_url: simulator, key_env: MY_KEY, format: gemini, model: your-model-id, allow_http: false}
prompt:
  messages:
    - {role: system, content: Be brief.}
    - role: user
      content: |
        {% if body %}{{ body }}{% endif %}
params:  {max_output_tokens: 64, temperature: 0, top_p: 1e-1, stop: ["\\n", END], seed: 7,
          extra: {safetySettings: [], a: {b: 1e-3}}}
limits:  {concurrency: 1_000, requests_per_minute: 600, tokens_per_minute: 200000, timeout_s: 30.5}
retry:   {max_attempts: 1, max_wait_s: .5, max_pushback_s: 1}
prices:  {input: 0.1, output: 1.50, cache_read_multiplier: 0.1}
simulator: {seed: 3, latency_s: [0, 0.5], rps: 20, faults: {"429": 0.05, 500: 1, reset: 0}, retry_after: yes}
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    """Each key of the schema lands in its field, with the type that the field has."""
    job = load_job(written(tmp_path, FULL_TEXT))
    assert job.input.path == Path("/data/tickets.tsv")
    assert (job.input.id, job.input.encoding, job.input.delimiter) == ("order id", "cp1252", ";")
    assert (job.output.path, job.output.is_dataset) == (tmp_path / "out", True)
    assert (job.output.prefix, job.output.partition_rows) == ("a_", 100)
    assert (job.target.is_simulator, job.target.key_env) == (True, "MY_KEY")
    assert [message.role for message in job.messages] == ["system", "user"]
    extra = {"safetySettings": [], "a": {"b": 0.001}}
    assert job.params == GenerationParams(64, 0.0, 0.1, ("\n", "END"), 7, extra)
    assert (job.limits.concurrency, job.limits.requests_per_minute, job.limits.timeout_s) == (1000, 600.0, 30.5)
    assert (job.retry.max_attempts, job.retry.max_wait_s, job.retry.max_pushback_s) == (1, 0.5, 1.0)
    assert (job.prices.input, job.prices.output) == (Decimal("0.1"), Decimal("1.50"))
    assert job.prices.cache_read_multiplier == Decimal("0.1")
    assert job.simulator is not None
    assert (job.simulator.seed, job.simulator.latency_s, job.simulator.rps) == (3, (0.0, 0.5), 20.0)
    assert job.simulator.faults == {"429": 0.05, "500": 1.0, "reset": 0.0}
    assert job.simulator.retry_after is True


@pytest.mark.parametrize("section", ["params", "limits", "retry", "prices", "simulator", "input.id", "prompt.system"])
def test_null_is_left_out(section: str) -> None:
    """A section or key without a value counts as not there."""
    plain = load_job(small())
    assert load_job(small(), [f"{section}="]) == load_job(small(), [f"{section}=null"]) == plain


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ("https://api.cometapi.com/v1/", "https://api.cometapi.com"),
        ("https://api.cometapi.com/v1beta", "https://api.cometapi.com"),
        ("HTTPS://API.CometAPI.com:443//", "https://api.cometapi.com"),
        ("https://proxy.example:8443/comet/v1", "https://proxy.example:8443/comet"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("simulator", "simulator"),
    ],
)
def test_base_urls_are_normalised(changes: str, wanted: str) -> None:
    """The same service written in another way is the same base URL, without version and slashes at its end."""
    assert load_job(small(target={"base_url": changes})).target.base_url == wanted


def test_http_elsewhere_takes_a_decision() -> None:
    """A key goes over an open line only where the job says so."""
    open_line = {"base_url": "http://proxy.example", "allow_http": True}
    assert load_job(small(target=open_line)).target.base_url == "http://proxy.example"


@pytest.mark.parametrize(
    ("prices", "wanted"),
    [
        ("catalog", PriceSettings()),
        ("none", PriceSettings(catalog=False)),
        ({"input": 1, "output": 2}, PriceSettings(catalog=False, input=Decimal(1), output=Decimal(2))),
        ({"per_request": 0.02}, PriceSettings(catalog=False, per_request=Decimal("0.02"))),
        ({"cache_write_multiplier": 2}, PriceSettings(cache_write_multiplier=Decimal(2))),
        ({}, PriceSettings()),
    ],
)
def test_where_prices_come_from(prices: object, wanted: PriceSettings) -> None:
    """The catalog is asked only for prices that the job does not say."""
    assert load_job(small(prices=prices)).prices == wanted


@pytest.mark.parametrize("digits", ["0.1", "0.30000000000000004", "1e-3", "123456.000000000001", "1_0.5"])
def test_prices_are_exact(tmp_path: Path, digits: str) -> None:
    """A price is the decimal number that stands in the file, never its nearest binary fraction."""
    job = load_job(written(tmp_path, f"{SMALL_TEXT}prices: {{input: {digits}, output: 0}}\n"))
    assert str(job.prices.input) == str(Decimal(digits.replace("_", "")))


def test_messages_need_a_cap_and_get_one() -> None:
    """The messages format can't be asked without a cap, so it has a default, which the fingerprint shows."""
    job = load_job(small(target={"format": "messages"}))
    assert job.params.max_output_tokens == DEFAULT_MAX_TOKENS
    assert job.fingerprint()["params.max_output_tokens"] == DEFAULT_MAX_TOKENS


@pytest.mark.parametrize(
    "text",
    [
        SMALL_TEXT.replace("\n", "\r\n"),
        "\ufeff" + SMALL_TEXT,
        SMALL_TEXT.encode("utf-16"),
        "# note\n---\n" + SMALL_TEXT + "...\n",
        SMALL_TEXT.replace("{format", "&t {format") + "limits: {<<: {concurrency: 3}, timeout_s: 4}\n",
        SMALL_TEXT + "params: {extra: {a: &x [1, 2], b: *x, c: 'yes'}}\n",
        SMALL_TEXT.replace("Classify:", "A risk-assessment task-force, sk-learn and bearer of good newspapers:"),
        SMALL_TEXT.replace("Classify:", "Key, token, password: which is in"),
        SMALL_TEXT + "params: {extra: {response_format: {schema: {properties: {token: {type: string}}}}}}\n",
        json.dumps(SMALL),
    ],
)
def test_other_ways_to_write_a_job(tmp_path: Path, text: str | bytes) -> None:
    """Line ends, byte order marks, UTF-16, comments, aliases, merge keys, JSON and prose about keys are all fine."""
    assert load_job(written(tmp_path, text)).target.model == "m-1"


def test_merge_keys_never_win(tmp_path: Path) -> None:
    """What a mapping says itself counts more than what is merged into it, and the first merged more than the next."""
    text = SMALL_TEXT.replace(
        "{format: chat", "{<<: [&a {format: gemini, key_env: A_KEY}, {key_env: B_KEY}], format: chat"
    )
    job = load_job(written(tmp_path, text))
    assert (job.target.format, job.target.key_env) == ("chat", "A_KEY")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_mapping_is_a_job(here: Path) -> None:
    """Library users may give a mapping; relative paths then start at the current folder, or where they say."""
    assert load_job(SMALL).input.path == here / "tickets.csv"
    assert load_job(SMALL, base_dir="/data").output.path == Path("/data/out.parquet")
    assert load_job(SMALL).source_path is None
    assert load_job(small(input={"path": Path("/x.csv")}, limits={"timeout_s": Decimal("0.5")})).limits.timeout_s == 0.5


def test_paths_have_no_detours(here: Path) -> None:
    """Paths are absolute and straight, so that messages can be read; symbolic links stay as they are written."""
    (here / "jobs").mkdir()
    (here / "elsewhere").mkdir()
    (here / "link").symlink_to("elsewhere")
    text = SMALL_TEXT.replace("tickets.csv", "../data//./tickets.csv").replace("out.parquet", "../link/x/../out/")
    written(here / "jobs", text)
    for job in (load_job("jobs/../jobs/job.yaml"), load_job(here / "elsewhere" / ".." / "jobs" / "job.yaml")):
        assert job.input.path == here / "data" / "tickets.csv"
        assert (job.output.path, job.output.is_dataset) == (here / "link" / "out", True)
        assert job.source_path == here / "jobs" / "job.yaml"


def test_large_integers_stay_what_they_are() -> None:
    """A Python integer that no 64 bits hold is a float in the body, as JSON would read it, and never another number."""
    extra = load_job(small(params={"extra": {"a": 10**30, "b": -(2**63)}})).params.extra
    assert extra == {"a": 1e30, "b": -float(2**63)}


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    """Bytes of a name that are no text are written out where the job describes itself."""
    job = load_job(SMALL, base_dir=tmp_path / "caf\udce9")
    assert job.describe()["output"] == {
        "path": f"{tmp_path}/caf\\udce9/out.parquet", "prefix": "", "partition_rows": None, "is_dataset": False,
        "raw": False, "reasoning": False,
    }  # fmt: skip


def test_overrides_are_put_over_the_file(tmp_path: Path) -> None:
    """`--set` values are YAML, win over the file, and make sections that are not there."""
    path = written(tmp_path, SMALL_TEXT + "prices: catalog\n")
    sets = ["limits.concurrency=4", "params.extra.reasoning.effort=low", "prices.input=1", "prices.output=0.5",
            "target={format: responses, model: m-2}", "prompt.user='{{ a }} = {{ b }}'"]  # fmt: skip
    job = load_job(path, sets)
    assert job.limits.concurrency == 4
    assert job.params.extra == {"reasoning": {"effort": "low"}}
    assert (job.prices.input, job.prices.output) == (Decimal(1), Decimal("0.5"))
    assert (job.target.format, job.target.model) == ("responses", "m-2")
    assert job.messages[0].template == "{{ a }} = {{ b }}"


def test_an_existing_folder_is_a_data_set(tmp_path: Path) -> None:
    """Without a slash at its end, an output path that is a folder already is a data set all the same."""
    (tmp_path / "answers").mkdir()
    assert load_job(small(output={"path": "answers"}), base_dir=tmp_path).output.is_dataset


def test_one_latency_is_both_bounds() -> None:
    """A single number of seconds is the least and the most; without a section the simulator has its defaults."""
    simulated = {"base_url": "simulator"}
    one = load_job(small(target=simulated, simulator={"latency_s": 0})).simulator
    assert one == SimulatorSettings(latency_s=(0.0, 0.0))
    assert load_job(small(target=simulated)).simulator == SimulatorSettings()


def test_a_simulator_section_is_unused_with_a_service() -> None:
    """Whoever names a service after a first try leaves the section where it is; it is read, and changes nothing."""
    assert load_job(small(simulator={"seed": 1, "rps": 5})) == load_job(small())
    assert "simulator.sed: unknown key" in refused(small(simulator={"sed": 1}))


def compiled(job: Job, *columns: str) -> Template:
    """The prompt of a job's only target, for a table with these columns."""
    (target,) = job.targets()
    return job.prompt_template_for(target, columns)


def test_a_missing_column_is_named_by_file_and_line(here: Path) -> None:
    """A table that lacks a column is refused with the line of the job file, or the `--set`, that asks for it."""
    path = written(here, SMALL_TEXT.replace('{user: "Classify: {{ body }}"}', "\n  user: |\n    a\n    {{ body }}\n"))
    assert compiled(load_job("job.yaml"), "id", "body").columns_needed == {"body"}
    for job, words in (
        (
            load_job("job.yaml"),
            "job.yaml:5: prompt.user: line 2 of the template: no column 'body' in the input, did you",
        ),
        (load_job(path, ["prompt.system='{{ x }}'"]), "--set prompt.system: line 1 of the template: no"),
        (load_job(small()), "job: prompt.user: line 1 of the template: no column 'body' in the input"),
        (Job.from_description(load_job(small()).describe()), "prompt.messages[0]: line 1 of the template: no column"),
    ):
        with pytest.raises(JobError) as caught:
            compiled(job, "id", "bdy")
        assert str(caught.value).startswith(words)
        assert "the columns are 'id', 'bdy'" in str(caught.value)


def test_templates_are_compiled_from_the_job() -> None:
    """The job gives the prompt template that its messages and params say."""
    template = load_job(small(params={"seed": 1})).targets()[0].prompt_template()
    assert template.columns_needed == {"body"}


def test_a_target_is_all_that_is_asked_apart_from_the_row() -> None:
    """A job without a matrix has one; format, model, messages and parameters are in it, and it survives JSON."""
    (target,) = load_job(small(params={"stop": ["."], "extra": {"a": [1, None]}})).targets()
    messages = (MessageTemplate("user", "Classify: {{ body }}"),)
    params = GenerationParams(stop=(".",), extra={"a": [1, None]})
    assert target == Target(target.format, target.model, messages, params)
    assert msgspec.json.decode(msgspec.json.encode(target), type=Target) == target


# --- what a job says of itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"target": {"model": "m-2"}}, "target.model"),
        ({"target": {"format": "responses"}}, "target.format"),
        ({"target": {"base_url": "https://proxy.example"}}, "target.service"),
        ({"target": {"base_url": "simulator"}}, "target.service"),
        ({"target": {"base_url": "http://localhost:1"}}, "target.service"),
        ({"prompt": {"user": "{{ x }}"}}, "prompt.messages[0].content"),
        ({"params": {"temperature": 0}}, "params.temperature"),
        ({"params": {"extra": {"a": 1}}}, "params.extra"),
        ({"params": {"stop": "x"}}, "params.stop"),
        ({"input": {"id": "x"}}, "input.id"),
        ({"input": {"encoding": "cp1252"}}, "input.encoding"),
        ({"input": {"delimiter": ";"}}, "input.delimiter"),
        ({"output": {"prefix": "x"}}, "output.prefix"),
    ],
)
def test_what_changes_answers_changes_the_fingerprint(changes: dict[str, Any], key: str) -> None:
    """A field that changes answers changes exactly its own key of the fingerprint."""
    before, after = load_job(small()).fingerprint(), load_job(small(**changes)).fingerprint()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {key}


def test_the_rules_of_rendering_are_part_of_the_fingerprint() -> None:
    """A program that renders rows in another way is told from this one, however alike the job files are."""
    assert load_job(small()).fingerprint()["prompt.rendering"] == RENDERING


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"concurrency": 2, "timeout_s": 1}},
        {"retry": {"max_attempts": 1}},
        {"accept": {"failed": "1%", "incomplete": 5}},
        {"prices": "none"},
        {"target": {"key_env": "OTHER_KEY"}},
        {"target": {"key_file": "secrets/key"}},
        {"target": {"base_url": "https://api.cometapi.com/v1"}},
        {"target": {"ca_file": "ca.pem", "client_cert": "me.pem", "client_key": "me.key"}},
        {"input": {"path": "elsewhere/tickets.csv"}},
        {"input": {"encoding": "UTF8"}},
        {"output": {"path": "other.parquet"}},
    ],
)
def test_speed_and_place_do_not_change_the_fingerprint(changes: dict[str, Any]) -> None:
    """Limits, retries, prices, key, paths and spellings of the same may change between continuations."""
    assert load_job(small(**changes)).fingerprint() == load_job(small()).fingerprint()


def test_loopback_is_one_service_whatever_its_port() -> None:
    """A simulator that was started again on another port is still the same service."""
    urls = ["http://127.0.0.1:1", "http://127.0.0.9:2/v1", "http://localhost:3", "https://[::1]:4"]
    assert {load_job(small(target={"base_url": url})).target.service for url in urls} == {"loopback"}


def test_tls_files_are_found_from_the_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As other paths: relative ones from its folder, and ~ is the home folder."""
    monkeypatch.setenv("HOME", "/home/me")
    files = {"ca_file": "../ca.pem", "client_cert": "~/me.pem", "client_key": "/keys/me.key"}
    target = load_job(small(target=files), base_dir=tmp_path / "jobs").target
    found = (target.ca_file, target.client_cert, target.client_key)
    assert found == (tmp_path / "ca.pem", Path("/home/me/me.pem"), Path("/keys/me.key"))
    assert (
        Job.from_description(load_job(small(target=files), base_dir=tmp_path).describe()).target.client_cert == found[1]
    )


def test_a_job_describes_itself_in_json(tmp_path: Path) -> None:
    """Description and fingerprint are what JSON would give back, so that they can be compared with a stored one."""
    job = load_job(written(tmp_path, FULL_TEXT))
    for found in (job.describe(), job.fingerprint()):
        assert json.loads(json.dumps(found)) == found
    assert job.describe()["prices"] == {
        "catalog": False, "input": "0.1", "output": "1.50", "cache_read": None, "cache_write": None,
        "per_request": None, "cache_read_multiplier": "0.1", "cache_write_multiplier": "1.25",
        "cache_write_1h": None, "above": None,
    }  # fmt: skip


def test_a_job_can_be_sent_to_another_process() -> None:
    """Jobs are plain frozen values."""
    job = load_job(small())
    assert pickle.loads(pickle.dumps(job)) == job
    with pytest.raises(AttributeError):
        job.params = GenerationParams()  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("said", "words"),
    [("grpc", "found 'grpc'"), (True, "found 'true'"), ({"to": "otlp"}, "found a mapping"), (["otlp"], "found a list")],
)
def test_a_key_in_no_section_is_checked_like_the_others(said: object, words: str) -> None:
    """With its place; null is a key that is left out; it is no drift, since it changes no answer."""
    with pytest.raises(JobError, match=r"job: telemetry: expected otlp, ") as refused:
        load_job(small(telemetry=said))
    assert words in str(refused.value)
    told = load_job(small(), ["telemetry=otlp"])
    assert (told.telemetry, load_job(small(telemetry=None)).telemetry) == ("otlp", None)
    assert told.fingerprint() == load_job(small()).fingerprint()
    with pytest.raises(JobError, match=r"otel: unknown key; did you mean 'telemetry'\?"):
        load_job(small(otel="otlp"))


def test_the_table_of_keys_is_the_schema() -> None:
    """Every field of the settings is in the table of keys, with its default, and the table has no other."""
    listed = {key.path for key in job_keys()}
    not_keys = {"input.delimiter", "output.is_dataset", "prices.catalog", "reuse.sources"}
    for section, kind in SECTIONS.items():
        for field in msgspec.structs.fields(kind):
            assert (path := f"{section}.{field.name}") in listed | not_keys, path
    assert listed - {f"{s}.{f.name}" for s, k in SECTIONS.items() for f in msgspec.structs.fields(k)} == {
        "params.columns", "params.override", "prices", "prices.models", "prompt.system", "prompt.user",
        "prompt.messages", "prompt.messages_column", "reuse", "reuse.from", "dedupe", "telemetry",
        "prompt.few_shot", "matrix", "matrix.samples", "judge", *(key.path for key in judge_job_keys()),
        "prompt.images", *(f"prompt.images.{field.name}" for field in msgspec.structs.fields(ImageSettings)),
        *(f"engine.ray.{field.name}" for field in msgspec.structs.fields(RaySettings)),
        *(f"prices.above.{field.name}" for field in msgspec.structs.fields(PricesAbove)),
        *SINGLE,
        *(key.path for key in score_job_keys()),
    }  # fmt: skip
    assert SINGLE.keys() <= set(Job.__struct_fields__)
    defaults = {key.path: key.default for key in job_keys()}
    assert defaults["limits.concurrency"] == "256"
    assert defaults["target.allow_http"] == "false"
    assert defaults["simulator.latency_s"] == "[0.5, 1.5]"
    assert defaults["input.path"] == "required"
    assert job_keys_markdown().count("\n") == len(job_keys()) + 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (False, None),
        (None, None),
        (True, ReuseSettings()),
        ({}, ReuseSettings()),
        ({"from": "out/*/"}, ReuseSettings((Path("/jobs/out/*"),))),
        (
            {"from": ["a.parquet", "/b/_c.run", "a.parquet"]},
            ReuseSettings((Path("/jobs/a.parquet"), Path("/b/_c.run"))),
        ),
        ({"statuses": ["incomplete", "succeeded"]}, ReuseSettings(statuses=("incomplete", "succeeded"))),
        ({"statuses": "incomplete", "sampling": False}, ReuseSettings(statuses=("incomplete",), sampling=False)),
        ({"max_age": "12h"}, ReuseSettings(max_age=43_200)),
        ({"max_age": "2w"}, ReuseSettings(max_age=14 * 86_400)),
    ],
)
def test_reuse_is_a_truth_value_or_says_what_is_taken(said: object, expected: ReuseSettings | None) -> None:
    """`reuse: true` takes this output's own earlier answers; a mapping says from where else and which. No drift."""
    job = load_job(small(reuse=said), base_dir="/jobs")
    assert job.reuse == expected
    assert job.fingerprint() == load_job(small(), base_dir="/jobs").fingerprint()
    assert Job.from_description(msgspec.json.decode(msgspec.json.encode(job.describe()))).reuse == expected
    assert (set(REUSED_COLUMNS) <= job.asked_columns) == (expected is not None)


# --- jobs that are refused --------------------------------------------------------------------------------------------

COMMENT = f"# {PLANTED}\n"
BAD_VALUES = [
    ("reuse: yes please", "reuse", "expected a mapping or true or false"),
    ("reuse: {from: ['out/{{ ds }}/']}", "reuse.from", "nothing here replaces it"),
    ("reuse: {from: [a.parquet, 3]}", "reuse.from", "put it in quotes"),
    ("reuse: {from: []}", "reuse.from", "from 1 to 1000 of them"),
    ("reuse: {statuses: failed}", "reuse.statuses", "expected one of succeeded, incomplete"),
    ("reuse: {max_age: 30}", "reuse.max_age", "Write 30d for days"),
    ("reuse: {max_age: 0d}", "reuse.max_age", "as 12h, 30d or 2w"),
    ("reuse: {max_age: 5m}", "reuse.max_age", "as 12h, 30d or 2w"),
    ("reuse: {max_age: 9999999w}", "reuse.max_age", "as 12h, 30d or 2w"),
    ("reuse: {max_days: 3d}", "reuse.max_days", "did you mean 'max_age'?"),
    ("cache: true", "cache", "did you mean 'reuse'?"),
    ("target: {format: chta}", "target.format", "did you mean 'chat'?"),
    ("target: {format: [chat]}", "target.format", "found a list"),
    ("target: {format: on}", "target.format", "found 'on': YAML reads it as a truth value; put it in quotes"),
    ("target: {model: 4.5}", "target.model", "found '4.5': YAML reads it as a number; put it in quotes"),
    ("target: {model: 2024-01-02}", "target.model", "YAML reads it as a date; put it in quotes"),
    ("target: {model: ''}", "target.model", "found nothing in it"),
    ("target: {model: '  '}", "target.model", "found nothing in it"),
    ("target: {model: 'a b'}", "target.model", "spaces"),
    ("target: {model: ' a'}", "target.model", "spaces"),
    ('target: {model: "a\\nb"}', "target.model", "line break or control character"),
    ('target: {model: "a\\ud800"}', "target.model", "surrogate"),
    (f"target: {{model: {'a' * 300}}}", "target.model", "at most 256 characters"),
    ("target: {modle: x}", "target.modle", "unknown key; did you mean 'model'?"),
    ("target: {allow_http: 1}", "target.allow_http", "expected true or false, found '1'"),
    ("target: {allow_http: 'yes'}", "target.allow_http", "expected true or false"),
    ("target: {key_env: my-key}", "target.key_env", "name of an environment variable"),
    ("target: {key_env: sk_live_abc}", "target.key_env", "looks like a key itself"),
    ("target: {key_env: A1b2C3d4E5f6G7h8I9j0K1}", "target.key_env", "looks like a key itself"),
    ("target: {key_env: 12}", "target.key_env", "name of an environment variable"),
    ("target: {key_env: 3f0c8a}", "target.key_env", "key itself does not belong"),
    ("target: {client_key: me.key}", "target.client_key", "only with target.client_cert"),
    ("target: {ca_file: ca.pem, base_url: simulator}", "target.ca_file", "only with an https:// address"),
    ("target: {ca_file: ca.pem, base_url: 'http://localhost:1'}", "target.ca_file", "only with an https:// address"),
    ("target: {client_cert: 'https://x.example/c'}", "target.client_cert", "only files on this machine"),
    ("target: {client_cert: c, client_key: '-----BEGIN KEY----- abc'}", "target.client_key", "what it holds does not"),
    ("target: {ca_file: [a, b]}", "target.ca_file", "found a list"),
    ("target: {base_url: api.cometapi.com}", "target.base_url", "starts with https://"),
    ("target: {base_url: 'ftp://x.example'}", "target.base_url", "starts with https://"),
    ("target: {base_url: 'https://'}", "target.base_url", "starts with https://"),
    ("target: {base_url: 'https://..'}", "target.base_url", "starts with https://"),
    ("target: {base_url: 'http://x.example'}", "target.base_url", "without encryption"),
    ("target: {base_url: 'https://me:hunter2@x.example'}", "target.base_url", "name and password"),
    ("target: {base_url: 'https://x.example/v1?a=b'}", "target.base_url", "query"),
    ("target: {base_url: 'https://x.example/?'}", "target.base_url", "query"),
    ("target: {base_url: 'https://x.example/#a'}", "target.base_url", "fragment"),
    ("target: {base_url: 'https://x.example:99999'}", "target.base_url", "can't be read"),
    ("target: {base_url: 'https://[::1'}", "target.base_url", "can't be read"),
    ("target: {base_url: 'https://x.example/v1/chat/completions'}", "target.base_url", "path of the route"),
    ("target: {base_url: 'https://x .example'}", "target.base_url", "without spaces"),
    ("target: {base_url: 5}", "target.base_url", "expected a URL"),
    ("target: chat", "target", "expected a mapping, found 'chat'"),
    ("input: tickets.csv", "input", "expected a mapping, found 'tickets.csv'"),
    ("input: {path: tickets.txt}", "input.path", "ends in .csv, .tsv, .jsonl or .parquet"),
    ("input: {path: tickets.csv.bz2}", "input.path", "ends in .csv, .tsv, .jsonl or .parquet"),
    ("input: {path: tickets.json}", "input.path", "one object a line"),
    ("input: {path: ' tickets.csv'}", "input.path", "space at its start or end"),
    ("input: {path: 's3://bucket/tickets.csv'}", "input.path", "only files on this machine"),
    ('input: {path: "a\\0.csv"}', "input.path", "control character"),
    ("input: {path: }", "input.path", "is missing"),
    ("input: {encoding: klingon}", "input.encoding", "such as utf-8"),
    ("input: {encoding: base64}", "input.encoding", "such as utf-8"),
    ("input: {encoding: idna}", "input.encoding", "such as utf-8"),
    ("input: {encoding: punycode}", "input.encoding", "such as utf-8"),
    ("input: {encoding: UTF7}", "input.encoding", "such as utf-8"),
    ("input: {encoding: unicode_escape}", "input.encoding", "such as utf-8"),
    ("prices: {per_request: 1, input: 2, output: 3}", "prices.per_request", "contradicts prices.input"),
    ("prices: {per_request: 1, cache_read: 2}", "prices.per_request", "contradicts prices.cache_read"),
    ("input: {delimiter: ';;'}", "input.delimiter", "one character"),
    ("input: {delimiter: '\"'}", "input.delimiter", "one character"),
    ('input: {delimiter: "\\n"}', "input.delimiter", "one character"),
    ('input: {delimiter: "\\ud800"}', "input.delimiter", "surrogate"),
    ("input: {delimiter: 5}", "input.delimiter", "one character"),
    ("input: {id: 7}", "input.id", "put it in quotes"),
    ("input: {rows: 7}", "input.rows", "unknown key"),
    ("output: {path: out.csv}", "output.path", "ends in .parquet"),
    ("output: {path: out}", "output.path", "or in / for a folder"),
    ("output: {path: .parquet}", "output.path", "ends in .parquet"),
    ("output: {path: ./}", "output.path", "a folder of its own"),
    ("output: {path: 'hdfs://x/out.parquet'}", "output.path", "only files on this machine"),
    ("output: {prefix: 3}", "output.prefix", "put it in quotes"),
    ("output: {partition_rows: 0}", "output.partition_rows", "from 1 to 8192"),
    ("output: {partition_rows: 8193}", "output.partition_rows", "from 1 to 8192"),
    ("prompt: {user: 42}", "prompt.user", "found '42'"),
    ("prompt: {user: no}", "prompt.user", "truth value"),
    ("prompt: {user: ''}", "prompt.user", "found nothing in it"),
    ("prompt: {user: [a]}", "prompt.user", "found a list"),
    ("prompt: {user: {a: b}}", "prompt.user", "needs quotes around it"),
    ("prompt: {user: '{{ body'}", "prompt.user", "line 1 of the template: unexpected end of template"),
    ("prompt: {user: '{{ a|uper }}'}", "prompt.user", "did you mean 'upper'?"),
    ("prompt: {system: '{% include x %}'}", "prompt.system", "no other template"),
    ("prompt: {user: '{{ ((((((1111 }}'}", "prompt.user", "of the template"),
    ("prompt: {messages: [{role: user, content: x}]}", "prompt.user", "beside prompt.messages"),
    ("prompt: {user: , messages: []}", "prompt.messages", "1 to 1000 messages"),
    ("prompt: {user: , messages: x}", "prompt.messages", "found 'x'"),
    ("prompt: {user: , messages: [x]}", "prompt.messages[0]", "a mapping with role and content"),
    ("prompt: {user: , messages: [{role: user}]}", "prompt.messages[0]", "content is missing"),
    ("prompt: {user: , messages: [{role: usr, content: x}]}", "prompt.messages[0].role", "did you mean 'user'?"),
    ("prompt: {user: , messages: [{rol: x, role: user, content: y}]}", "prompt.messages[0].rol", "mean 'role'?"),
    ("prompt: {user: , messages: [{role: user, content: '{{'}]}", "prompt.messages[0].content", "of the template"),
    ("prompt: {user: , messages: [{role: system, content: x}]}", "prompt", "role user"),
    ("prompt: {user: }", "prompt.user", "is missing"),
    ("prompt: ", "prompt.user", "is missing"),
    ("params: {max_output_tokens: 0}", "params.max_output_tokens", "from 1 to 10000000, found '0'"),
    ("params: {max_output_tokens: 1.5}", "params.max_output_tokens", "a whole number"),
    ("params: {max_output_tokens: true}", "params.max_output_tokens", "found 'true'"),
    ("params: {max_output_tokens: 1e400}", "params.max_output_tokens", "a whole number"),
    ("params: {max_output_tokens: 1e99999999}", "params.max_output_tokens", "a whole number"),
    (f"params: {{seed: {'9' * 5000}}}", "params.seed", "a whole number"),
    ("params: {seed: 9223372036854775808}", "params.seed", "a whole number"),
    ("params: {seed: 010}", "params.seed", "base 8"),
    ("params: {seed: 0x1F}", "params.seed", "plain decimal digits"),
    ("params: {temperature: 2.1}", "params.temperature", "from 0 to 2"),
    ("params: {temperature: '0.5'}", "params.temperature", "take the quotes away"),
    ("params: {temperature: warm}", "params.temperature", "found 'warm'"),
    ("params: {temperature: .nan}", "params.temperature", "finite"),
    ("params: {top_p: -0.1}", "params.top_p", "from 0 to 1"),
    ("params: {stop: [a, '']}", "params.stop", "found nothing in it"),
    ("params: {stop: [1]}", "params.stop", "put it in quotes"),
    (f"params: {{stop: [{'a,' * 17}]}}", "params.stop", "at most 16"),
    ("params: {extra: [a]}", "params.extra", "a mapping"),
    ("params: {extra: {a: yes}}", "params.extra", "put it in quotes"),
    ("params: {extra: {a: 2024-01-02}}", "params.extra", "put it in quotes"),
    ("params: {extra: {a: .inf}}", "params.extra", "finite"),
    ("params: {extra: {a: 1e999}}", "params.extra", "JSON"),
    ("params: {extra: {1: a}}", "params.extra", "expected text as key"),
    ("params: {extra: {model: other}}", "params", "model"),
    ("params: {extra: {stream: true}}", "params", "stream"),
    ("params: {temprature: 1}", "params.temprature", "did you mean 'temperature'?"),
    ("limits: {concurrency: 0}", "limits.concurrency", "from 1 to 10000"),
    ("limits: {concurrency: 10001}", "limits.concurrency", "from 1 to 10000"),
    ("limits: {timeout_s: 0}", "limits.timeout_s", "above 0 up to 3600"),
    ("limits: {timeout_s: 1e-999}", "limits.timeout_s", "above 0"),
    ("limits: {timeout_s: 5:00}", "limits.timeout_s", "base 60"),
    ("limits: {requests_per_minute: -1}", "limits.requests_per_minute", "above 0"),
    ("limits: {tokens_per_minute: .inf}", "limits.tokens_per_minute", "finite"),
    ("limits: {tokens_per_minute: 200k}", "limits.tokens_per_minute", "found '200k'"),
    ("retry: {max_attempts: 101}", "retry.max_attempts", "from 1 to 100"),
    ("retry: {max_wait_s: 0}", "retry.max_wait_s", "above 0"),
    ("retry: 5", "retry", "expected a mapping, found '5'"),
    ("prices: {input: -0.01}", "prices.input", "from 0"),
    ("prices: {input: free}", "prices.input", "found 'free'"),
    ("prices: {input: .inf}", "prices.input", "finite"),
    ("prices: {input: 08}", "prices.input", "leading zero"),
    ("prices: no", "prices", "put it in quotes"),
    ("prices: catalogue", "prices", "did you mean 'catalog'?"),
    ("prices: [1]", "prices", "a mapping or one of catalog, none"),
    ("simulator: {latency_s: [2, 1]}", "simulator.latency_s", "larger one first"),
    ("simulator: {latency_s: [1]}", "simulator.latency_s", "the least and the most"),
    ("simulator: {faults: [a]}", "simulator.faults", "a mapping"),
    ("simulator: {faults: {429: 2}}", "simulator.faults", "fault '429': expected a number from 0 to 1"),
    ('simulator: {faults: {"\\ud800": 0}}', "simulator.faults", "surrogate"),
    ("simulator: {rps: 0}", "simulator.rps", "above 0"),
    ("limit: {a: 1}", "limit", "unknown key; did you mean 'limits'?"),
    ("1: {a: 1}", "1", "unknown key"),
    ("null: {a: 1}", "null", "unknown key"),
    ("on: {a: 1}", "on", "unknown key"),
    ("limits: !!python/object/apply:os.system [a]", "limits", "YAML tags"),
    ("limits: !x {a: 1}", "limits", "YAML tags"),
    ("limits: {concurrency: !!binary aGk=}", "limits.concurrency", "YAML tags"),
    ("limits: {concurrency: 1, concurrency: 2}", "limits.concurrency", "twice"),
    ("limits: {? [a] : 1}", "limits", "expected a word as key"),
    ("limits: {<<: 5}", "limits", "to merge"),
    ("limits: {<<: [5]}", "limits", "to merge"),
    ("prompt: {{ body }}", "prompt", "needs quotes around it"),
    ("prompt: hello", "prompt", "expected a mapping, found 'hello'"),
    ("params: {stop: [~]}", "params.stop", "found nothing"),
]  # fmt: skip


def with_line(line: str) -> tuple[str, str]:
    """The smallest job with another line for a section, and that line with the keys of the section that it lacks."""
    section = re.match(r"\w+", line)
    assert section
    rest = "".join(text for text in SMALL_TEXT.splitlines(keepends=True) if not text.startswith(section[0] + ":"))
    in_section = re.search(rf"^{section[0]}: \{{(.*)\}}$", SMALL_TEXT, re.MULTILINE)
    if in_section and line.startswith(f"{section[0]}: {{") and not line.startswith("prompt: {{"):
        own = [pair for pair in in_section[1].split(", ") if not re.search(rf"[{{ ]{pair.split(':')[0]}:", line)]
        line = line[:-1] + "".join(f", {pair}" for pair in own) + "}"
    return f"{COMMENT}{rest}{COMMENT}{line} {COMMENT}", line


@pytest.mark.parametrize(("line", "path", "words"), BAD_VALUES, ids=[line[:50] for line, _, _ in BAD_VALUES])
def test_a_bad_value_is_named_by_file_line_and_key(here: Path, line: str, path: str, words: str) -> None:
    """Each problem has the file, the line, the key path, and what to do about it; a comment is never quoted."""
    text, line = with_line(line)
    (here / "job.yaml").write_text(text, encoding="utf-8")
    problems = refused("job.yaml").splitlines()
    at = text[: text.index(line)].count("\n") + 1
    assert [problem for problem in problems if problem.startswith(f"job.yaml:{at}: {path}: ") and words in problem], (
        problems
    )


@pytest.mark.parametrize(
    ("wrong", "right"), [("inputs:", "input:"), ("pth:", "path:"), ("targets:", "target:"), ("modle:", "model:")]
)
def test_a_misspelt_key_is_one_problem(here: Path, wrong: str, right: str) -> None:
    """The key that it stands for is not said to be missing, nor what would be in its section."""
    text = "input: {path: a.csv}\noutput: {path: a.parquet}\ntarget: {format: chat, model: m}\nprompt: {user: x}\n"
    (here / "job.yaml").write_text(text.replace(right, wrong, 1), encoding="utf-8")
    (problem,) = refused("job.yaml").splitlines()
    assert f"did you mean {right.rstrip(':')!r}?" in problem


@pytest.mark.parametrize("limit", [1, 16])
def test_a_token_limit_that_one_answer_fills_for_an_hour_is_refused(limit: int) -> None:
    """A run that sends a row in an hour is a mistake, and would look as if it hung."""
    limits, params = {"tokens_per_minute": limit}, {"max_output_tokens": 1000}
    assert "limits.tokens_per_minute: one answer of params.max_output_tokens (1000)" in refused(
        small(limits=limits, params=params)
    )
    assert load_job(small(limits={"tokens_per_minute": 17}, params=params)).limits.tokens_per_minute == 17
    assert load_job(small(limits=limits)).limits.tokens_per_minute == limit


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a shell, for input and output; elsewhere in a path a tilde is a letter."""
    monkeypatch.setenv("HOME", str(tmp_path))
    job = load_job(small(input={"path": "~/in.csv"}, output={"path": "~/out.parquet"}), base_dir="/data")
    assert (job.input.path, job.output.path) == (tmp_path / "in.csv", tmp_path / "out.parquet")
    assert load_job(small(output={"path": "~/answers/"})).output.is_dataset
    assert load_job(small(input={"path": "a/~b.csv"}), base_dir="/data").input.path == Path("/data/a/~b.csv")


@pytest.mark.parametrize("key", ["sk-goodkey-0123456789", "sk-abcdefghijklmno1", "sk-proj_0_abcdefghij"])
def test_a_short_key_in_a_prompts_text_is_refused(key: str) -> None:
    """A prompt is kept in the manifest and beside the answers, so a key of sixteen letters must not get there."""
    words = refused(small(prompt={"user": f"Use {key} for {{{{ body }}}}"}))
    assert "prompt.user: this looks like a key" in words
    assert key not in words


@pytest.mark.parametrize(
    "prose", ["sk-learn-classifiers", "risk-assessment-2024-report-final", "sk-1", "desk-0123456789abcdefgh"]
)
def test_prose_that_only_begins_like_a_key_is_fine(prose: str) -> None:
    """Names and words with dashes are no keys, as long as they have no digit, are short, or start before `sk`."""
    assert load_job(small(prompt={"user": prose})).messages[0].template == prose


BROKEN = [
    ("", "job.yaml: is empty"),
    ("# only a note\n", "job.yaml: is empty"),
    ("just words", "job.yaml:1: expected a mapping"),
    ("- a\n- b\n", "job.yaml:1: expected a mapping"),
    ("a: b\n---\nc: d\n", "job.yaml:2: not valid YAML: a second document"),
    ("input:\n\tpath: x\n", "job.yaml:2: not valid YAML: a tab"),
    (f"a: 'x {PLANTED}\n", "job.yaml:2: not valid YAML: found unexpected end of stream"),
    (f"a: [{PLANTED}\nb: c\n", "job.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
    (f"a: {{b: {PLANTED}\nc: d\n", "job.yaml:2: not valid YAML: expected ',' or '}', but got ':'"),
    (f"a: *{PLANTED}\n", "job.yaml:1: not valid YAML: found undefined alias …"),
    (f"a: !{PLANTED}!x b\n", "job.yaml:1: not valid YAML"),
    (f"{PLANTED} : : a\n", "job.yaml:1: not valid YAML"),
    (f"a: {PLANTED}: b\n", "job.yaml:1: not valid YAML: a second colon"),
    (f'a: "{PLANTED}\\q"\n', "job.yaml:1: not valid YAML: found unknown escape"),
    ('a: "\\UFFFFFFFF"\n', "job.yaml: not valid YAML"),
    ("%YAML 9.9\n---\na: 1\n", "job.yaml:1: not valid YAML"),
    ("a: b\n  c: d\n", "job.yaml:2: not valid YAML: a second colon"),
    ("a: @b\n", "job.yaml:1: not valid YAML: found character '@'"),
    ("[" * 5000, "job.yaml: not valid YAML: nested too deeply"),
    ("a: " + "[" * 100 + "]" * 100, "job.yaml:1: nested too deeply"),
    ("- " * 5000, "job.yaml: not valid YAML: nested too deeply"),
    ("a: &a [*a, *a]\n", "job.yaml:1: nested too deeply"),
    ("a: &a {<<: *a}\n", "job.yaml:1: nested too deeply"),
    ("a: &a [" + "1," * 200 + "]\nb: [" + "*a," * 200 + "]\n", "values, aliases written out"),
    ("a: &a {" + "k: 1," + "}\nb: &b {<<: [" + "*a," * 99 + "]}\nc: {<<: [" + "*b," * 999 + "]}\n", "job.yaml:3: more"),
    ("a: 1\n" * 3, "job.yaml:2: a: the key is there twice, first at job.yaml:1"),
    ("".join(f"k{n}: 1\nk{n}: 2\n" for n in range(50)), "and 20 more problems"),
    (b"a: 1\n\xff\xfe\n", "job.yaml:2: not text in UTF-8"),
    (b"\xff\xfea", "job.yaml:1: not text in UTF-16"),
    (b"a: 1\nb: \x00\n", "job.yaml:2: the control character U+0000"),
    (b"\x89PNG\r\n\x1a\n", "job.yaml:1: not text in UTF-8"),
    ("a: \x1b[31m\n", "job.yaml:1: the control character U+001B"),
    (b"PAR1" + b"\x00" * 8, "job.yaml:1: the control character"),
    (b"a" * ((256 << 10) + 1), "job.yaml: more than 256 KiB"),
    ("x: y\n", "job.yaml:1: input.path: is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=[repr(text[:30]) for text, _ in BROKEN])
def test_a_file_that_is_no_job_is_refused(here: Path, text: str | bytes, words: str) -> None:
    """Broken, hostile, huge and foreign files get a sentence with the line, never a piece of their text."""
    written(here, text)
    assert words in refused("job.yaml")


def test_files_that_cannot_be_read(here: Path) -> None:
    """Missing files, folders, devices, impossible names and closed files are refused in words."""
    (here / "folder").mkdir()
    os.mkfifo(here / "pipe")
    assert refused("nope.yaml") == "nope.yaml: can't be read: No such file or directory"
    assert refused("folder") == "folder: is a folder, not a file"
    assert refused("pipe") == "pipe: is not a plain file"
    assert refused("a\0b").endswith("can't be read: not a file name")
    assert "too long" in refused("a" * 5000)
    (here / "loop").symlink_to("loop")
    assert "symbolic links" in refused("loop")
    assert "\\udc" in refused("nope\udcff.yaml")


def test_a_file_without_permission(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be opened is refused with the system's own reason."""
    path = written(here, SMALL_TEXT)

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)  # the tests may run as root, whom no file mode stops
    assert refused(path).endswith("can't be read: Permission denied")


def test_all_problems_are_found_at_once(here: Path) -> None:
    """One look at a job tells everything that is wrong with it, in one line each."""
    written(here, "input: {path: a.txt}\noutput: {path: b}\ntarget: {format: x}\nprompt: {user: '{{'}\nlimit: 1\n")
    paths = [line.split(": ")[1] for line in refused("job.yaml").splitlines()]
    assert sorted(paths) == ["input.path", "limit", "output.path", "prompt.user", "target.format", "target.model"]


def test_a_template_error_has_both_lines(here: Path) -> None:
    """A mistake in a template is named by the line of the job file and the line within the template."""
    written(here, SMALL_TEXT.replace('{user: "Classify: {{ body }}"}', "\n  user: |\n    a\n    {% if %}\n"))
    assert "job.yaml:5: prompt.user: line 2 of the template: " in refused("job.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"output": {"path": "tickets.parquet"}, "input": {"path": "./tickets.parquet"}}, "the input itself is there"),
        ({"output": {"path": "out.parquet"}, "input": {"path": "_out.parquet.run/parts/0.parquet"}}, "input itself"),
        ({"output": {"path": "/"}}, "the root of the file system"),
        ({"output": {"path": "data/"}, "input": {"path": "data/tickets.csv"}}, "the folder holds tickets.csv"),
        ({"output": {"path": "link.parquet"}, "input": {"path": "real.parquet"}}, "the input itself is there"),
        ({"output": {"path": "hard.parquet"}, "input": {"path": "real.parquet"}}, "the input itself is there"),
        ({"output": {"path": "real.parquet/"}}, "expected a folder, found a file"),
        ({"output": {"path": "loop.parquet"}, "input": {"path": "loop.parquet"}}, "output.path"),
        ({"output": {"path": "x" * 300 + ".parquet"}}, "can't be used: File name too long"),
    ],
)
def test_an_output_that_would_hurt_is_refused(here: Path, changes: dict[str, Any], words: str) -> None:
    """The result never lands on the input, in its folder's way, or where nothing can be."""
    (here / "real.parquet").write_bytes(b"PAR1")
    (here / "link.parquet").symlink_to("real.parquet")
    os.link(here / "real.parquet", here / "hard.parquet")
    (here / "loop.parquet").symlink_to("loop.parquet")
    assert words in refused(small(**changes))


@pytest.mark.parametrize(
    ("format_name", "changes", "words"),
    [
        ("messages", {"params": {"seed": 1}}, "seed"),
        ("responses", {"params": {"stop": "x"}}, "stop"),
        (
            "gemini",
            {
                "prompt": {
                    "user": None,
                    "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": "x"}],
                }
            },
            "developer",
        ),
        ("messages", {"prompt": {"user": None, "messages": [{"role": "system", "content": "x"}]}}, "user"),
    ],
)
def test_what_a_format_cannot_say_is_refused(format_name: str, changes: dict[str, Any], words: str) -> None:
    """Params and roles that the chosen format has no place for are found before the first request."""
    assert words in refused(small(**changes, target={"format": format_name}))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("limits.concurrency", "--set 'limits.concurrency': expected key.sub=value"),
        ("=5", "expected key.sub=value"),
        ("a b=5", "expected key.sub=value"),
        ("limits.concurrency=0", "--set limits.concurrency: expected a whole number"),
        ("limits={concurrency: 0}", "--set limits: limits.concurrency: expected a whole number"),
        ("limits.speed=1", "--set limits.speed: unknown key"),
        ("speed.limit=1", "--set speed.limit: speed: unknown key"),
        ("params.extra={{ body }}", "needs quotes"),
        ("limits.concurrency=[", "--set limits.concurrency: not valid YAML"),
        ("prompt.user=a\x00", "control character U+0000"),
        ("output.path=caf\udce9/r.parquet", "the byte 0xE9 is not UTF-8 text; use a name in UTF-8"),
        ("limits.concurrency=!x a", "--set limits.concurrency: YAML tags"),
        ("params.stop.a=1", "--set params.stop.a: "),
        ("prompt.user.a=1", "nothing can be set in it"),
        (PLANTED, "expected key.sub=value"),
        (f"{PLANTED}=1", "keys do not belong"),
        (f"{PLANTED}=!x 1", "YAML tags"),
        (f"target.api_key={PLANTED}", "--set target.api_key: keys do not belong in job files"),
        (f"target.model={PLANTED}", "--set target.model: this looks like a key"),
        (f"target.model=[{PLANTED}", "--set target.model: this looks like a key"),
        (f"params.extra=[{PLANTED}", "--set params.extra: not valid YAML"),
    ],
)
def test_a_bad_override_is_named(override: str, words: str) -> None:
    """A `--set` that can't be carried out is named by its key, and its value is not shown where it may be a secret."""
    assert words in refused(small(), override)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": {"api_key": PLANTED}},
        {"target": {"key": PLANTED}},
        {"target": {"API-Key": PLANTED}},
        {"target": {"headers": {"Authorization": f"Bearer {PLANTED}"}}},
        {"target": {"token": "not-shaped-like-a-key"}},
        {"token": PLANTED},
        {"secret": {"a": PLANTED}},
        {"password": "x"},
        {"target": {"key_env": PLANTED}},
        {"target": {"model": PLANTED}},
        {"target": {"base_url": f"https://x.example/?key={PLANTED}"}},
        {"target": {"base_url": f"https://me:{PLANTED}@x.example"}},
        {"input": {"path": f"{PLANTED}.csv"}},
        {"prompt": {"user": f"Use {PLANTED} now"}},
        {"prompt": {"user": f"{{{{ {PLANTED} }}}}"}},
        {"prompt": {"user": None, "messages": [{"role": "user", "content": PLANTED}]}},
        {"params": {"extra": {"a": [{"b": PLANTED}]}}},
        {"params": {"extra": {"authorization": "x"}}},
        {"params": {"extra": {PLANTED: 1}}},
        {"params": {"extra": {"h": f"bearer {PLANTED[3:]}"}}},
        {"params": {"stop": [PLANTED]}},
        {PLANTED: {"a": 1}},
        {"limits": {PLANTED: 1}},
        {"target": {"model": "AIza" + "Sy0123456789abcdef"}},
    ],
)
def test_a_key_in_the_job_is_refused_and_never_shown(here: Path, changes: dict[str, Any]) -> None:
    """Wherever a key stands in a job, the refusal names the place and the way out, and does not show the key."""
    for source in (small(**changes), written(here, json.dumps(small(**changes)))):
        problems = refused(source)
        assert "put it in an environment variable and name that in target.key_env" in problems
        assert "0123456789" not in problems
        assert "not-shaped-like-a-key" not in problems
        assert PLANTED[3:] not in problems


def test_a_mixed_value_that_is_wrong_is_not_shown() -> None:
    """A value that could be a secret of any kind is left out of the message about it."""
    value = "8f2c1e9ab77d4c0e9f31aa20"
    assert value not in refused(small(target={"format": value}, prices={"input": value}))


def test_python_values_of_no_kind_are_refused() -> None:
    """A mapping may hold only what YAML could have said."""
    assert "found a Python set" in refused(small(limits={"concurrency": {1}}))
    assert "expected" in refused(small(params={"extra": {"a": {1}}}))
    assert "finite" in refused(small(limits={"timeout_s": float("nan")}))
    assert "a whole number" in refused(small(params={"seed": 10**5000}))
    endless: dict[str, Any] = {}
    endless["a"] = endless
    assert "nested too deeply" in refused(small(params={"extra": endless}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
PATHS = [key.path for key in job_keys()] + ["input", "prompt", "limits", "params.extra.a", "simulator.faults.x"]


def loads_or_is_refused(source: Path | Mapping[str, Any], *overrides: str) -> None:
    """Nothing but `JobError` may come out, and what loads can tell everything about itself."""
    try:
        job = load_job(source, overrides)
    except JobError as error:
        str(error).encode()  # can be printed
        return
    assert json.loads(json.dumps([job.describe(), job.fingerprint()])) == [job.describe(), job.fingerprint()]
    assert isinstance(job.targets()[0].prompt_template().columns_needed, frozenset)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=60) | st.text("ab{}[]:-*&!'\"\n\t ,|>%?<0.", max_size=40).map(str.encode))
def test_any_bytes_load_or_are_refused(here: Path, data: bytes) -> None:
    """Whatever is in the file, alone or after a whole job, the answer is a job or a `JobError`."""
    loads_or_is_refused(written(here, data))
    loads_or_is_refused(written(here, SMALL_TEXT.encode() + data))


@settings(max_examples=100, deadline=None)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_any_value_under_any_key_loads_or_is_refused(path: str, value: object) -> None:
    """Whatever stands under a key, as a mapping or through YAML's own writer, the answer is a job or a `JobError`."""
    *sections, key = path.split(".")
    changes: dict[str, Any] = {key: value}
    for section in reversed(sections):
        changes = {section: changes}
    loads_or_is_refused(small(**changes))
    loads_or_is_refused(small(), f"{path}={yaml.safe_dump(value)}")


@settings(max_examples=50)
@given(text=st.text(max_size=30))
def test_any_override_loads_or_is_refused(text: str) -> None:
    """Whatever is given to `--set`, the answer is a job or a `JobError`."""
    loads_or_is_refused(small(), text)
    loads_or_is_refused(small(), f"params.extra.a={text}")


@pytest.mark.parametrize("prompt", ["Classify {{ body }}", ["Classify"], 5])
def test_a_prompt_that_is_no_mapping_is_one_problem(prompt: object) -> None:
    """Nothing is said of keys that nobody wrote."""
    with pytest.raises(JobError, match="prompt: expected a mapping") as raised:
        load_job({**SMALL, "prompt": prompt})
    assert len(str(raised.value).splitlines()) == 1
