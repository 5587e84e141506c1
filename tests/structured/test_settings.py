"""The section `response` of a job: what it takes, and what is refused before anything is sent."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any, ClassVar

import pydantic
import pytest

import cometbatch
from cometbatch.commands import answers
from cometbatch.errors import JobError, UsageError
from cometbatch.job import load_job
from cometbatch.prompt import schema as schemas
from tests.structured.schemas import CASES
from tests.workbench import Workbench

PLAIN = CASES["optional text"].schema


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A table of three rows."""
    made = Workbench(tmp_path)
    made.write_rows(3)
    return made


def refused(bench: Workbench, response: dict[str, Any], **sections: Any) -> str:
    """Why a job is refused, by `plan`, which is what `run` asks, too."""
    with pytest.raises(UsageError) as caught:
        cometbatch.plan(bench.job(response=response, **sections))
    return str(caught.value)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"schema": {"type": "strin"}}, "chat", "response.schema: #/type: "),
    ({"schema": {"type": ["string", None]}}, "chat", 'write "null" in quotes'),
    ({"schema": {"$ref": "https://example.com/a.json"}}, "gemini", "nothing is fetched: copy it into $defs"),
    ({"schema": {"properties": {"a": {"$ref": "#/$defs/x"}}}}, "chat", "#/properties/a: $ref #/$defs/x leads nowhere"),
    ({"schema": {"$ref": "#"}}, "messages", "leads back to itself"),
    ({"schema": {"properties": {"a": {"pattern": "(?=a)"}}}}, "chat", "#/properties/a/pattern: "),
    ({"schema": CASES["both of two"].schema}, "chat", "#/properties/word/allOf: allOf can't be sent in this format"),
    ({"schema": CASES["a list alone"].schema}, "responses", "response.mode: prompt sends the schema as text instead"),
    ({"schema": CASES["free objects"].schema}, "messages", "#/properties/counts: an object must name all"),
    ({"schema": CASES["a tree that must have more"].schema}, "gemini", "#/$defs/Node: what holds itself"),
    ({"schema": CASES["a list alone"].schema, "mode": "tool"}, "messages", "must be an object"),
    ({"schema": CASES["a list alone"].schema, "mode": "json"}, "chat", "a JSON mode gives an object alone"),
    ({"schema": PLAIN, "mode": "json"}, "messages", "the messages format has no JSON mode: use response.mode: tool"),
    ({"json": True}, "messages", "has no JSON mode"),
    ({"schema": PLAIN, "json": True}, "chat", "response.json: contradicts response.schema"),
    ({"mode": "tool"}, "chat", "response: says nothing of what answers must be"),
    ({"pattern": "(?<!a)b"}, "chat", "response.pattern: "),
    ({"pattern": "a)|(b"}, "chat", "response.pattern: "),
    ({"pattern": "a|b", "mode": "tool"}, "chat", "response.mode: no format has a setting for a pattern"),
    ({"json": True, "prefix": "x_"}, "chat", "response.prefix: has a meaning only with response.schema"),
    ({"schema": PLAIN, "mode": "text"}, "chat", "expected one of native, json, tool, prompt"),
    ({"schema": [PLAIN]}, "chat", "expected a mapping, or the path of a file"),
    ({"schema": "nowhere.json"}, "chat", "nowhere.json can't be read: No such file"),
    ({"schema": PLAIN, "max_asks": 0}, "chat", "response.max_asks: expected a whole number from 1 to 10"),
]


@pytest.mark.parametrize(("response", "format_name", "words"), REFUSED)
def test_what_can_not_be_asked_for_is_refused(
    response: dict[str, Any], format_name: str, words: str, bench: Workbench
) -> None:
    """With the key, the place in the schema, and what to do."""
    assert words in refused(bench, response, target={"format": format_name})


@pytest.mark.parametrize(
    ("format_name", "extra", "mode", "path"),
    [
        ("chat", {"response_format": {"type": "text"}}, "native", "response_format"),
        ("responses", {"text": {"format": {"type": "text"}}}, "native", "text.format"),
        ("messages", {"output_config": {"format": {}}}, "native", "output_config.format"),
        ("messages", {"output_format": {}}, "native", "output_format"),
        ("gemini", {"generationConfig": {"responseSchema": {}}}, "json", "generationConfig.responseSchema"),
        ("chat", {"tools": []}, "tool", "tools"),
        ("gemini", {"toolConfig": {}}, "tool", "toolConfig"),
    ],
)
def test_what_response_writes_is_refused_in_extra(
    format_name: str, extra: dict[str, Any], mode: str, path: str, bench: Workbench
) -> None:
    """The key is named; nothing is left out silently."""
    found = refused(bench, {"schema": PLAIN, "mode": mode}, target={"format": format_name}, params={"extra": extra})
    assert f"params.extra.{path}: is written by response" in found


def test_a_schema_may_stand_in_a_file(bench: Workbench) -> None:
    """In JSON or YAML, relative to the job file; what is wrong in it is named with its line."""
    (bench.folder / "s.json").write_text("\ufeff" + json.dumps(PLAIN), encoding="utf-8")
    (bench.folder / "s.yaml").write_text("type: object\nproperties: {word: {type: string}}\n", encoding="utf-8")
    job_file = bench.write_job()
    assert load_job(job_file, ["response.schema=s.json"]).response.schema == PLAIN
    assert load_job(job_file, ["response.schema=s.yaml"]).response.schema is not None
    for text, words in (
        ('{"type":\n "object",}', "s.json:2: not valid JSON"),
        ('{"type": "object", "type": "array"}', 's.json: the key "type" is there twice'),
        ("[]", "s.json: expected a JSON Schema, which is an object"),
        ("[" * 100_000, "s.json: nested too deeply"),
    ):
        (bench.folder / "s.json").write_text(text, encoding="utf-8")
        with pytest.raises(JobError, match=r"response\.schema: ") as caught:
            load_job(job_file, ["response.schema=s.json"])
        assert words in str(caught.value)


def test_a_property_may_be_called_token(bench: Workbench) -> None:
    """The names in a schema are the user's own; only a value that looks like a key is refused."""
    schema = {"type": "object", "properties": {"token": {"type": "string"}, "password": {"type": "string"}}}
    assert bench.job(response={"schema": schema}).response.schema == schema


class Person(pydantic.BaseModel):
    """A model of a user."""

    name: str
    age: int | None = None
    model_config: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")


def test_a_model_class_of_pydantic_is_a_schema(bench: Workbench) -> None:
    """Its JSON Schema is what the job says; pydantic itself is not needed for that."""
    assert bench.job(response={"schema": Person}).response.schema == Person.model_json_schema()


def test_columns_that_are_there_already_are_refused(bench: Workbench) -> None:
    """Of the input or of the output, whatever the case, with the key that tells them apart."""
    for name, whose in (
        ("note", "the input"),
        ("Note", "the input"),
        ("status", "the output"),
        ("STATUS", "the output"),
    ):
        schema = {"type": "object", "properties": {name: {"type": "string"}}}
        assert f"response.schema: {whose} has a column named '{name.lower()}'" in refused(bench, {"schema": schema})
        cometbatch.plan(bench.job(response={"schema": schema, "prefix": "answer_"}))


def test_without_the_extra_a_run_is_refused(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it, also where the environment has no pip; a job can still be looked at."""

    def missing(_: object) -> Any:
        raise schemas.MissingExtraError(schemas.MISSING_EXTRA)

    monkeypatch.setattr(schemas, "_compiled", missing)
    job = bench.job(response={"schema": PLAIN})
    python = shlex.quote(sys.executable)
    for pip, command in ((object(), f"{python} -m pip"), (None, f"python3 -m pip --python {python}")):
        monkeypatch.setattr(answers, "find_spec", lambda _, found=pip: found)
        told = f"response.schema: needs the package jsonschema-rs: {command} install 'cometbatch[schema]'"
        with pytest.raises(JobError, match=re.escape(told)):
            cometbatch.plan(job)


def test_what_changes_answers_is_in_the_fingerprint(bench: Workbench) -> None:
    """The order of properties, too, since answers follow it; how often is asked is not. Unused, nothing is."""
    other_order = PLAIN | {"properties": dict(reversed(PLAIN["properties"].items()))}
    jobs = [
        bench.job(response=response)
        for response in ({"schema": PLAIN}, {"schema": other_order}, {"schema": PLAIN, "mode": "tool"}, {"json": True})
    ]
    found = [json.dumps(job.fingerprint(), sort_keys=True) for job in jobs]
    assert len(set(found)) == len(found)
    assert bench.job(response={"schema": PLAIN, "max_asks": 5}).fingerprint() == jobs[0].fingerprint()
    assert not any(key.startswith("response") for key in bench.job().fingerprint())
