"""What is right in the simulator's world, and how often a model is right there: to try evaluations without a key.

The rule. The *question* is the last line of the user's text that ends with a question mark; where there is none, its
first line. Of choices, in lines as `A. Paris` or in words as `one of: billing, bug`, that one is right of which
SHA-256 of question, line break and choice is the smallest, wherever it stands and whatever its letter. Where the prompt
speaks of `####`, and has no choices, the right number is SHA-256 of the question modulo 1000. Else the right answer is
a word of the question, of four letters or more, chosen as a choice is.

Law: only with `accuracy` may two equal requests get different answers, as a model's samples do.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from cometbatch.records import Message, Prompt
from cometbatch.simulator.answers import choices
from cometbatch.simulator.behaviour import Accuracy, number, unit

MARKER: Final = "####"
NUMBERS: Final = 1_000  # right numbers are below this
_LETTERED: Final = re.compile(r"^[ \t]*\(?([A-Z]|[0-9]{1,2})[.):][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_WORD: Final = re.compile(r"[^\W\d_]{4,}")
_DEFAULT: Final = "nothing"  # where a question has no word to choose


class Said(Struct, frozen=True):
    """What a simulated model says: a whole answer, and its core alone, for an answer in a form."""

    text: str
    core: str


class _Task(Struct, frozen=True):
    """What a prompt asks for. `options`: each by what it says, with its label; none for a number."""

    question: str
    options: tuple[tuple[str, str], ...] = ()
    has_marker: bool = False
    is_lettered: bool = False

    @property
    def right(self) -> int:
        """The place of the right option, or the right number."""
        if not self.options:
            return _hash(self.question) % NUMBERS
        texts = [text for text, _ in self.options]
        return min(range(len(texts)), key=lambda place: (_hash(f"{self.question}\n{texts[place]}"), texts[place]))


def right_answer(text: str, offered: Sequence[str] = ()) -> str:
    """The right answer to a prompt, by its user's text as it is sent: a choice's label, a word, or a number in digits.

    `offered`: words that another message of the prompt offers. To write the gold of a table that the simulator is to
    be scored by.
    """
    task = _task(text, offered, has_marker=MARKER in text)
    return task.options[task.right][1] if task.options else str(task.right)


def said(accuracy: Accuracy, model: str, prompt: Prompt, digest: bytes, seen: int) -> Said | None:
    """What a model says that is right as often as it should be; None for a model of which nothing is set.

    `digest`: of the request; `seen`: how often its bytes came, from 1. With a seed in the request that doesn't matter.
    """
    share = accuracy.shares.get(model)
    if share is None:
        return None
    users = [message.text for message in prompt.messages if message.role == "user"]
    text = users[-1] if users else ""
    has_marker = any(MARKER in message.text for message in prompt.messages)
    task = _task(text, _offered(prompt.messages, text), has_marker=has_marker)
    of_question = hashlib.sha256(f"{accuracy.seed}\n{model}\n{text}".encode(errors="replace")).digest()[:16]
    sample = "" if prompt.params.seed is not None else f" {seen}"
    if unit(of_question, "decided once") < accuracy.spread:
        is_right = unit(of_question, "right") < share
    else:
        is_right = unit(digest, f"right{sample}") < share
    return _said(task, is_right=is_right, draw=number(digest, f"wrong{sample}", 1 << 32))


def _said(task: _Task, *, is_right: bool, draw: int) -> Said:
    if not task.options:
        core = str(task.right if is_right else task.right + 1 + draw % 9)
        return Said(f"The sum comes to {core}.\n{MARKER} {core}", core)
    others = [place for place in range(len(task.options)) if place != task.right]
    place = task.right if is_right or not others else others[draw % len(others)]
    core = task.options[place][1]
    if task.has_marker:
        return Said(f"{MARKER} {core}", core)
    return Said(f"ANSWER: {core}" if task.is_lettered else core, core)


def _task(text: str, offered: Sequence[str], *, has_marker: bool) -> _Task:
    question = question_in(text)
    lettered = tuple({label: (words, label) for label, words in _LETTERED.findall(text)}.values())
    if len(lettered) > 1:
        return _Task(question, lettered, has_marker, is_lettered=True)
    words = list(offered) or choices([Message.of_text("user", text)])
    if words:
        return _Task(question, _options(words), has_marker)
    if has_marker:
        return _Task(question, has_marker=True)
    return _Task(question, _options(_WORD.findall(question) or [_DEFAULT]))


def _options(words: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((word, word) for word in dict.fromkeys(words))


def _offered(messages: Sequence[Message], text: str) -> list[str]:
    """Words that the other messages of a prompt offer, where the user's text has no choices in lines."""
    return choices(messages) if not choices([Message.of_text("user", text)]) else []


def question_in(text: str) -> str:
    """The last line that ends with a question mark, else the first line; blanks are single spaces."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    asked = [line for line in lines if line.endswith("?")]
    return (asked[-1:] or lines[:1] or [""])[0]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="replace")).digest())
