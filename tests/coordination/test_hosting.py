"""The coordinator's shell: long polls, the clock, and what is on the disk before anybody is answered."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from cometbatch.control.coordination.coordinator import Coordinator
from cometbatch.control.coordination.messages import (
    LEASE_S,
    Claim,
    Claimed,
    Drive,
    Join,
    News,
    Pushback,
    Reply,
    Request,
    Watch,
    decode_reply,
    encode,
)
from cometbatch.engines.hosting import Host
from cometbatch.results import tallies
from tests.coordination.scene import settings
from tests.virtual_time import run


def make_host(grants_file: Path | None = None, *, lines: list[bytes] | None = None) -> Host:
    """On the running loop's own time."""
    coordinator = Coordinator(settings(), range(4), tallies.add, lines=lines)
    return Host(coordinator, asyncio.get_running_loop().time, grants_file=grants_file)


async def ask(host: Host, request: Request) -> Reply:
    """A message and its answer, as bytes."""
    return decode_reply(await host.handle(encode(request)))


def test_who_watches_is_told_at_once_what_another_owner_met() -> None:
    """No time passes between both."""

    async def body() -> None:
        host = make_host()
        await host.drive(Drive())
        await ask(host, Join(1))
        known = await ask(host, Watch(1))
        assert isinstance(known, News)
        watching = asyncio.create_task(ask(host, Watch(1, known.number)))
        await asyncio.sleep(0.25)
        await ask(host, Pushback(2, 0, 7.0))
        news = await watching
        assert asyncio.get_running_loop().time() == pytest.approx(0.25)
        assert isinstance(news, News)
        assert [each.pause_s for each in news.queues] == [7.0]
        await host.aclose()

    run(body())


def test_who_watches_is_answered_after_a_lease_where_there_is_no_news() -> None:
    """So that a way that is lost is noticed."""

    async def body() -> None:
        host = make_host()
        news = await ask(host, Watch(1, 99))
        assert news == News(99)
        assert asyncio.get_running_loop().time() == pytest.approx(LEASE_S)
        await host.aclose()

    run(body())


def test_closing_answers_who_still_watches() -> None:
    """Nobody waits for a host that is no more."""

    async def body() -> None:
        host = make_host()
        watching = asyncio.create_task(ask(host, Watch(1, 99)))
        await asyncio.sleep(0)
        await host.aclose()
        assert await watching == News(99)
        assert await ask(host, Watch(1, 99)) == News(99)

    run(body())


def test_what_is_promised_is_on_the_disk_before_it_is_answered(tmp_path: Path) -> None:
    """A coordinator that begins anew from that file knows who has what."""

    async def body() -> None:
        path = tmp_path / "grants.jsonl"
        host = make_host(path)
        await host.drive(Drive())
        await asyncio.gather(ask(host, Join(1)), ask(host, Join(2)))
        first, second = await asyncio.gather(ask(host, Claim(1)), ask(host, Claim(2)))
        assert isinstance(first, Claimed)
        assert isinstance(second, Claimed)
        await host.aclose()
        again = make_host(lines=path.read_bytes().splitlines())
        await again.drive(Drive())
        assert await ask(again, Claim(1)) == first
        assert await ask(again, Claim(2)) == second
        await again.aclose()

    run(body())


def test_what_can_not_be_written_down_is_not_answered(tmp_path: Path) -> None:
    """And it is written with the next answer."""

    async def body() -> None:
        path = tmp_path / "later" / "grants.jsonl"
        host = make_host(path)
        with pytest.raises(OSError, match="grants"):
            await host.drive(Drive())
        path.parent.mkdir()
        await ask(host, Join(1))
        assert path.read_bytes().count(b'"began"') == 1
        await host.aclose()

    run(body())


def test_what_is_no_message_is_refused() -> None:
    """By an exception, which the way to the owner makes a refusal of."""

    async def body() -> None:
        host = make_host()
        with pytest.raises(msgspec.MsgspecError):
            await host.handle(b"what?")
        await host.aclose()

    run(body())
