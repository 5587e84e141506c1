"""Requests made of what a job's requests have in common: nobody can tell them from those made one by one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.records import HttpRequest, Message, Prompt
from cometbatch.wire import FORMATS, WireFormat, framed
from tests.wire.strategies import MODELS, WORDS, prompts

TEXTS = WORDS | st.sampled_from(["%b", "%%s", '"', "\\", "text 0", '"text 0"', "\u2028", "😀"])


@pytest.mark.parametrize("wire", FORMATS.values(), ids=lambda wire: wire.name)
@given(data=st.data(), model=MODELS)
def test_a_framed_request_is_the_very_request(wire: WireFormat, data: st.DataObject, model: str) -> None:
    """Whichever messages differ from row to row, and whatever they say: the same bytes, path and headers."""
    prompt: Prompt = data.draw(prompts(wire))
    differs = data.draw(st.lists(st.booleans(), min_size=len(prompt.messages), max_size=len(prompt.messages)))
    others = [Message(message.role, data.draw(TEXTS)) for message in prompt.messages]

    def build(texts: Sequence[str]) -> HttpRequest:
        own = iter(texts)
        pairs = zip(others, differs, strict=True)
        return build_one([Message(each.role, next(own)) if is_own else each for each, is_own in pairs])

    build_one = wire.request_builder(model, prompt.params)
    quick = framed(build, sum(differs))
    for _ in range(2):
        texts = data.draw(st.lists(TEXTS, min_size=sum(differs), max_size=sum(differs)))
        assert quick(texts) == build(texts)


@pytest.mark.parametrize("wire", FORMATS.values(), ids=lambda wire: wire.name)
def test_usual_prompts_are_framed(wire: WireFormat) -> None:
    """A fixed system message before the row's own is what nearly all jobs have: these take the short way."""
    build_one = wire.request_builder("m", Prompt(()).params)
    calls = []

    def build(texts: Sequence[str]) -> HttpRequest:
        calls.append(texts)
        return build_one([Message("system", "Answer in one word."), Message("user", texts[0])])

    quick = framed(build, 1)
    calls.clear()
    assert b"how many?" in quick(["how many?"]).body
    assert not calls


def test_texts_that_stand_in_another_order_are_put_where_they_belong() -> None:
    """Where a format turns the messages round, a text must not end up in another one's place."""

    def build(texts: Sequence[str]) -> HttpRequest:
        first, second = texts
        return HttpRequest("/", {}, b'["%b","%b"]' % (second.encode(), first.encode()))

    assert framed(build, 2)(["a", "b"]).body == b'["b","a"]'


def test_a_text_that_stands_twice_is_filled_in_twice() -> None:
    """No format does that; one that did must not send what only marks the place."""

    def build(texts: Sequence[str]) -> HttpRequest:
        (text,) = texts
        return HttpRequest("/", {}, b'["%b","%b"]' % (text.encode(), text.encode()))

    assert framed(build, 1)(["a"]).body == b'["a","a"]'
