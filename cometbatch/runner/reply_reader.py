"""The result of an exchange, and what it says: without the key, which a service may quote in its refusal."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from cometbatch.records import CallRequest, Completion, ErrorDetail, HttpResponse
from cometbatch.runner.ports import ExchangeResult, Reply
from cometbatch.transport import Transport
from cometbatch.wire.envelope import REQUEST_ID_HEADER

Parsed: TypeAlias = Completion | ErrorDetail
Parse: TypeAlias = Callable[[HttpResponse, int], Parsed]
"""What a reply says, in one format; it is told how many bytes of body were sent."""


class Reader:
    """Reads replies. `parsers`: of each target's format, by its number. `transport`: the one that received them."""

    def __init__(self, parsers: Sequence[Parse], transport: Transport) -> None:
        self._parsers = parsers
        self._transport = transport
        self._quotes_key = transport.quotes_key

    def read(self, call: CallRequest, result: ExchangeResult, sent_bytes: int) -> tuple[Reply, Parsed | None]:
        """The reply, and what it says; None where there is no reply. Raises an exception that is a mistake of ours.

        `sent_bytes`: of the request's body. Only what an answer says is kept of it, so only that is searched for the
        key.
        """
        if not isinstance(result, HttpResponse):
            return self._transport.read(result), None
        parse = self._parsers[call.target]
        said = parse(result, sent_bytes)
        if isinstance(said, Completion):
            named = result.headers.get(REQUEST_ID_HEADER)
            ids = f"{said.response_id}\n{said.response_model}\n{named}"
            words = f"{said.text}\n{said.detail}\n{said.cost_excludes}\n{ids}"
            if said.raw is not None or said.reasoning is not None:
                words = f"{words}\n{said.raw}\n{said.reasoning}"
            if not self._quotes_key(words):
                return result, said
        return self._read_clean(parse, result, said, sent_bytes)

    def _read_clean(self, parse: Parse, response: HttpResponse, said: Parsed, sent_bytes: int) -> tuple[Reply, Parsed]:
        """As it is, or read once more in the rare case that the key had to be blanked out."""
        reply = self._transport.read(response)
        if isinstance(reply, HttpResponse) and reply is not response:
            said = parse(reply, sent_bytes)
        texts = {name: value for name in said.__struct_fields__ if isinstance(value := getattr(said, name), str)}
        clean = {name: self._transport.blank_out(text) for name, text in texts.items()}  # it may be quoted in escapes
        return reply, said if clean == texts else msgspec.structs.replace(said, **clean)
