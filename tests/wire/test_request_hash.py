"""The hash of a request is written into results and journals, so it stays what it is: these are literals."""

import hashlib
import json
from typing import Any

import pytest

from cometbatch.commands.row_maker import row_maker
from cometbatch.job import load_job
from cometbatch.records import CallRequest, GenerationParams, Message, ModelRequest, Prompt, Role
from cometbatch.wire import FORMATS
from cometbatch.wire.messages import DEFAULT_MAX_TOKENS
from tests.wire.strategies import request_of

MODEL = "vendor/modèle-1"
SYSTEM = 'Réponds en un mot. "Ja" oder „nein“. 只用一个词\n'
USER = "Größe: 5 µm\t→ 日本語 😀 \\ </script> \u2028\x7f\x01 ünïcode"
EXTRA: dict[str, dict[str, Any]] = {
    "chat": {"user": "Zoë", "response_format": {"type": "text"}},
    "responses": {"user": "Zoë", "reasoning": {"effort": "low"}},
    "messages": {"metadata": {"user_id": "Zoë"}},
    "gemini": {"safetySettings": [], "generationConfig": {"thinkingConfig": {"thinkingLevel": "höher"}}},
}
HASHES = {
    "chat": "43c573a54a0dde469e0c3941fc126a39a456a0bcfa297241a35e05e387d8f0c4",
    "responses": "5f20fa2261dd7bc2c9f991aaab5215f534abdcf72815e438f5e9faf2bb5b2b4b",
    "messages": "7f3e7249ce60c99571c42b961917e5a4a200d360fc00c64ce7e350f3a24d7f1d",
    "gemini": "28310fa9437b8ec2e8d757bc27bee9ad70b0933290b8a0dd0e07f65f4301adcb",
}
CONVERSATION_HASHES = {
    "chat": "ca21ba3fcaedc4f420d310099d20d9c6debaedf4e829b87b831a05df82d4d2aa",
    "responses": "d59922977ff6181b17f544a91a5c082a4ffa3d27a09e15dd8e1e37a8c2e66812",
    "messages": "49c9430d9a8fd072fc92eb5328d87688fa4b67316b85d77e846001201ea30290",
    "gemini": "4d90ee7341a8a649f1a64fad1e71cf78b700bc69f0de8a02de2f330ab8dbdd55",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "chat": {"stop": ["ENDE", "終"], "seed": 7},
    "responses": {},
    "messages": {"stop": ["ENDE", "終"]},
    "gemini": {"stop": ["ENDE", "終"], "seed": 7},
}


def params(name: str) -> GenerationParams:
    """Every setting that the format has, and keys of its own."""
    settings = {**SETTINGS[name], "stop": tuple(SETTINGS[name].get("stop", ()))}
    return GenerationParams(max_output_tokens=64, temperature=0.25, top_p=0.9, extra=EXTRA[name], **settings)


@pytest.mark.parametrize("name", FORMATS)
def test_the_hash_of_a_request_never_changes(name: str) -> None:
    """A release that sends other bytes for the same prompt would break reuse and checks of what was paid before."""
    prompt = Prompt((Message.of_text("system", SYSTEM), Message.of_text("user", USER)), params(name))
    body = request_of(FORMATS[name], MODEL, prompt).body
    assert hashlib.sha256(f"{name}\n{MODEL}\n".encode() + body).hexdigest() == HASHES[name]


@pytest.mark.parametrize("name", FORMATS)
def test_the_hash_of_a_conversation_never_changes(name: str) -> None:
    """Two system messages and a turn of the assistant, without any setting."""
    turns: tuple[tuple[Role, str], ...] = (
        ("system", SYSTEM),
        ("system", "é"),
        ("user", USER),
        ("assistant", "Größe 5"),
        ("user", ""),
    )
    body = request_of(FORMATS[name], MODEL, Prompt(tuple(Message.of_text(role, text) for role, text in turns))).body
    assert hashlib.sha256(f"{name}\n{MODEL}\n".encode() + body).hexdigest() == CONVERSATION_HASHES[name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_job_makes_the_same_request_of_its_row(name: str) -> None:
    """From the job to the hash, with a system message that is the same for all rows and a text of the row's own."""
    settings = {"max_output_tokens": 64, "temperature": 0.25, "top_p": 0.9, "extra": EXTRA[name], **SETTINGS[name]}
    job = load_job(
        {
            "input": {"path": "tickets.csv"},
            "output": {"path": "out.parquet"},
            "target": {"format": name, "model": MODEL},
            "prompt": {"system": SYSTEM, "user": "Größe: {{ size }} ünïcode"},
            "params": settings,
        }
    )
    columns = ["id", "size"]
    (target,) = job.targets()
    maker = row_maker(target, job.prompt_template_for(target, columns), columns, None)
    size = USER.removeprefix("Größe: ").removesuffix(" ünïcode")
    request = maker.make(0, {"id": "a", "size": size})
    assert isinstance(request, CallRequest)
    assert request.request_hash == HASHES[name]


def made(name: str, extra: dict[str, Any]) -> CallRequest:
    """The request of a row of a job with this `params.extra`."""
    job = load_job(
        {
            "input": {"path": "tickets.csv"},
            "output": {"path": "out.parquet"},
            "target": {"format": name, "model": MODEL},
            "prompt": {"user": "{{ size }}"},
            "params": {"extra": extra},
        }
    )
    (target,) = job.targets()
    request = row_maker(target, job.prompt_template_for(target, ["size"]), ["size"], None).make(0, {"size": "5"})
    assert isinstance(request, CallRequest)
    return request


@pytest.mark.parametrize("name", FORMATS)
def test_a_request_says_that_no_stream_is_wanted_and_its_hash_does_not(name: str) -> None:
    """Some gateways stream where nothing is said. Gemini has no such field: there the path says it."""
    request, wire = made(name, {}), FORMATS[name]
    body = json.loads(request.http.body)
    assert body.pop("stream", None) is (None if name == "gemini" else False)
    identified = request_of(wire, MODEL, Prompt((Message.of_text("user", "5"),), job_params(name)))
    assert body == json.loads(identified.body)
    assert request.request_hash == hashlib.sha256(f"{name}\n{MODEL}\n".encode() + identified.body).hexdigest()
    read = wire.parse_request(request.http)
    assert isinstance(read, ModelRequest)
    assert not read.prompt.params.extra.get("stream")


def job_params(name: str) -> GenerationParams:
    """What a job without settings asks for: the messages format requires a cap."""
    return GenerationParams(max_output_tokens=DEFAULT_MAX_TOKENS if name == "messages" else None)


@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
@pytest.mark.parametrize("said", [False, None])
def test_a_job_that_wants_no_stream_itself_sends_the_same_request(name: str, said: object) -> None:
    """The field stands there once, as false, and the hash is that of a job that leaves it out."""
    assert made(name, {"stream": said}) == made(name, {})
