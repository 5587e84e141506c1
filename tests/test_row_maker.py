"""A row becomes a request, or an outcome of its own where it can't be sent."""

import hashlib
from typing import Any

import pytest

from cometbatch.records import CallRequest, Failed, Failure, GenerationParams, Message
from cometbatch.runner.row_maker import RowMaker
from tests.scripted_run import CHAT, MODEL, NOW

BUILD = CHAT.request_builder(MODEL, GenerationParams())


def maker(**changes: Any) -> RowMaker:
    """How rows of a small table become requests."""
    fields: dict[str, Any] = {
        "columns": ("n", "id"),
        "id_column": "id",
        "render": lambda values: (Message.of_text("user", str(values["n"])),),
        "build": BUILD,
        "as_sent": CHAT.as_sent,
        "hash_start": hashlib.sha256(b"chat\nmodel\n"),
        "now": lambda: NOW,
        "max_output_tokens": None,
    }
    return RowMaker(**fields | changes)


def made(row_maker: RowMaker, **values: object) -> CallRequest:
    """The request of row 7."""
    request = row_maker.make(7, values)
    assert isinstance(request, CallRequest)
    return request


def test_the_same_row_makes_the_same_request() -> None:
    """Bytes and hash of a row's request depend on nothing but the job and the row."""
    assert made(maker(), n=3, id="a") == made(maker(), n=3, id="a")


def test_a_request_hash_tells_prompts_formats_and_models_apart() -> None:
    """The hash covers what the service was asked, and not what the row is called."""
    hashes = {
        made(maker(), n=3, id="a").request_hash,
        made(maker(), n=4, id="a").request_hash,
        made(maker(hash_start=hashlib.sha256(b"chat\nother\n")), n=3, id="a").request_hash,
    }
    assert len(hashes) == 3
    assert made(maker(), n=3, id="b").request_hash in hashes


@pytest.mark.parametrize(("value", "custom_id"), [("007", "007"), (7, "7"), (None, None), ("", "")])
def test_a_custom_id_is_text_or_nothing(value: object, custom_id: str | None) -> None:
    """Ids come out as text, whatever type the column has; null stays null."""
    assert made(maker(), n=1, id=value).custom_id == custom_id


def test_without_an_id_column_there_is_no_custom_id() -> None:
    """A table that names no rows gets no names made up."""
    assert made(maker(id_column=None), n=1).custom_id is None


def test_a_row_that_cannot_be_rendered_has_failed_unsent() -> None:
    """A template's failure is an outcome of no attempts, no latency and no request."""
    failure = Failure("template", "no value")
    failed = maker(render=lambda _values: failure).make(7, {"n": 1, "id": "a"})
    assert failed == Failed(7, "a", 0, None, NOW, None, failure)


def test_the_token_estimate_grows_with_prompt_and_cap() -> None:
    """What a row may take of a tokens-per-minute limit counts its prompt, all messages, and the output's cap."""

    def estimate(characters: int, cap: int | None) -> int:
        messages = (Message.of_text("system", "the same"), Message.of_text("user", "x" * characters))
        return made(maker(render=lambda _values: messages, max_output_tokens=cap), n=0, id="a").estimated_tokens

    assert estimate(4000, 100) - estimate(0, 100) == 1000
    assert estimate(0, 900) - estimate(0, 100) == 800
    assert estimate(0, None) > 0
