"""What came of an exchange, and what it says: without the key, which a service may quote in its refusal."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from cometbatch.records import Completion, ErrorDetail, HttpResponse, TransportFailure
from cometbatch.transport import Transport
from cometbatch.wire.envelope import REQUEST_ID_HEADER

Parsed: TypeAlias = Completion | ErrorDetail


class Reader:
    """Reads replies in one format. `parse` is that of the format, `transport` what the replies came through."""

    def __init__(self, parse: Callable[[HttpResponse], Parsed], transport: Transport) -> None:
        self._parse = parse
        self._transport = transport
        self._quotes_key = transport.quotes_key

    def read(
        self, came: HttpResponse | TransportFailure | Exception
    ) -> tuple[HttpResponse | TransportFailure, Parsed | None]:
        """What came, and what it says; None where that is nothing. Raises what is a mistake of ours.

        Of an answer nothing else is kept than what it says: it is enough that this does not quote the key.
        """
        if not isinstance(came, HttpResponse):
            return self._transport.read(came), None
        said = self._parse(came)
        if isinstance(said, Completion):
            named = came.headers.get(REQUEST_ID_HEADER)
            if not self._quotes_key(f"{said.text}\n{said.response_id}\n{said.response_model}\n{said.detail}\n{named}"):
                return came, said
        return self._read_clean(came, said)

    def _read_clean(self, came: HttpResponse, said: Parsed) -> tuple[HttpResponse | TransportFailure, Parsed]:
        """As it came, or once more in the rare case that the key had to be blanked out."""
        reply = self._transport.read(came)
        if isinstance(reply, HttpResponse) and reply is not came:
            said = self._parse(reply)
        texts = {name: value for name in said.__struct_fields__ if isinstance(value := getattr(said, name), str)}
        clean = {name: self._transport.blank_out(text) for name, text in texts.items()}  # it may be quoted in escapes
        return reply, said if clean == texts else msgspec.structs.replace(said, **clean)
