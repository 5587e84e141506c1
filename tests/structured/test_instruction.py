"""The words in a prompt that say what an answer must be, and where they stand."""

import pytest

from cometbatch.prompt.instruction import instructed, instruction
from cometbatch.records import Message, TextPart


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, "Answer with one JSON value. Write nothing before or after it."),
        ({"schema": {"const": "é"}}, '{"const":"é"}'),
        ({"schema": True}, "true"),
        ({"pattern": "a|b"}, "a|b"),
    ],
)
def test_an_instruction_ends_with_what_is_asked_for(asked: dict[str, object], line: str) -> None:
    """The schema or the pattern as it is."""
    assert instruction(**asked).splitlines()[-1] == line  # type: ignore[arg-type]


USER = Message.of_text("user", "Hi")


@pytest.mark.parametrize(
    ("messages", "first"),
    [
        ([Message.of_text("system", "Be brief."), USER], Message.of_text("system", "Be brief.\n\nWords.")),
        ([Message("system", ()), USER], Message.of_text("system", "Words.")),
        ([USER], Message.of_text("system", "Words.")),
        ([], Message.of_text("system", "Words.")),
        (
            [Message("system", (TextPart("a"), TextPart("b"))), USER],
            Message("system", (TextPart("a"), TextPart("b\n\nWords."))),
        ),
    ],
)
def test_the_words_stand_in_the_first_system_message(messages: list[Message], first: Message) -> None:
    """At its end; where there is none that says anything, in one of their own before all. The rest stays."""
    made = instructed(messages, "Words.")
    assert made[0] == first
    assert made[-1:] == (USER,) if messages else made == (first,)
