"""What a coordinator writes down before it answers, so that one that takes its place knows what was promised. Pure.

Each line is one event. Those that matter are there before anybody is told: so a line that is missing was never told.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from cometbatch.control.coordination.messages import StopOrder


class Began(Struct, frozen=True, tag="began", omit_defaults=True):
    """A coordinator begins: what follows is its own."""


class Joined(Struct, frozen=True, tag="joined", omit_defaults=True):
    """An owner has begun."""

    owner: int


class Given(Struct, frozen=True, tag="given", omit_defaults=True):
    """An owner has a range from now on."""

    owner: int
    range: int


class Closed(Struct, frozen=True, tag="closed", omit_defaults=True):
    """An owner is through with a range."""

    owner: int
    range: int


class Lost(Struct, frozen=True, tag="lost", omit_defaults=True):
    """An owner is refused from now on; what it had is free."""

    owner: int


class Left(Struct, frozen=True, tag="left", omit_defaults=True):
    """An owner has ended in order; `spent_usd`: by then. `left`: as in `messages.Leave`."""

    owner: int
    spent_usd: Decimal = Decimal(0)
    left: tuple[StopOrder, ...] = ()


class Granted(Struct, frozen=True, tag="granted", omit_defaults=True):
    """What an owner may have spent since it joined, in US dollars."""

    owner: int
    usd: Decimal


class Announced(Struct, frozen=True, tag="announced", omit_defaults=True):
    """An owner has announced a part. `usd`: what it has booked for it, in US dollars."""

    owner: int
    range: int
    index: int
    usd: Decimal = Decimal(0)


class Accounted(Struct, frozen=True, tag="accounted", omit_defaults=True):
    """What a lost owner had booked in a range, at most, in US dollars."""

    owner: int
    range: int
    usd: Decimal


class Stopped(Struct, frozen=True, tag="stopped", omit_defaults=True):
    """All owners were ordered to stop."""

    order: StopOrder


Line: TypeAlias = Began | Joined | Given | Closed | Lost | Left | Granted | Announced | Accounted | Stopped

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Line)


def encode_line(line: Line) -> bytes:
    """A line of text, with its end."""
    return _ENCODER.encode(line) + b"\n"


def decode_lines(lines: Iterable[bytes]) -> Iterator[Line]:
    """Each line; one that is cut short was never answered for, and is left out."""
    for line in lines:
        try:
            yield _DECODER.decode(line)
        except msgspec.MsgspecError:
            continue
