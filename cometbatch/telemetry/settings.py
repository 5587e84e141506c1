"""The OTEL_* variables that decide whether and where telemetry is sent, and what of them can't work.

The exporter reads them itself, and further ones with them. A wrong one is refused before anything is sent, since the
exporter would only fail, each 15 s. Their values are never quoted: headers and addresses may hold secrets.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from cometbatch.errors import UsageError

EXPORT_EVERY_S: Final = 15.0
"""Seconds between two exports while a run goes on; one more follows at its end."""
TIMEOUT_S: Final = 10.0
"""Seconds for an export, retries included, where the environment does not say; never more than between two."""
PACKAGES: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
"""What the extra `otel` installs, as far as it is used."""
_PREFIX: Final = "OTEL_EXPORTER_OTLP"
_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
_LOCAL: Final = "http://localhost:4318"
"""Where a collector listens usually."""


class Signal(Struct, frozen=True):
    """Metrics or traces: the address that they go to, and seconds for one export."""

    endpoint: str
    timeout_s: float = TIMEOUT_S

    @property
    def shown(self) -> str:
        """The address for a person, without what may be secret in it."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Settings(Struct, frozen=True):
    """What is sent, None being not sent."""

    metrics: Signal | None
    traces: Signal | None


def is_installed() -> bool:
    """Whether the extra `otel` is there. Loads nothing of it."""
    try:
        return all(find_spec(name) is not None for name in PACKAGES)
    except ModuleNotFoundError:  # a package above is missing
        return False


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """What the environment says. Raises `UsageError`."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Settings(None, None)
    return Settings(_signal("METRICS", environment), _signal("TRACES", environment))


def _signal(name: str, environment: Mapping[str, str]) -> Signal | None:
    """The settings of a signal: a variable for it alone comes before the one for all."""
    if environment.get(f"OTEL_{name}_EXPORTER", "").strip().lower() == "none":
        return None
    variable, protocol = _set(name, "PROTOCOL", environment)
    if protocol.strip().lower() == "grpc":
        raise UsageError(
            f"{variable}: gRPC is not spoken here. Set it to http/protobuf, and the endpoint to the collector's port "
            "for HTTP, which is usually 4318."
        )
    for variable, pairs in (_set(name, "HEADERS", environment), (_RESOURCE, environment.get(_RESOURCE, ""))):
        if any("=" not in pair for pair in pairs.split(",") if pair.strip()):
            raise UsageError(f"{variable}: expected name=value, with commas between several; one of them has no =.")
    return Signal(_endpoint(name, environment), _timeout_s(name, environment))


def _endpoint(name: str, environment: Mapping[str, str]) -> str:
    variable, endpoint = _set(name, "ENDPOINT", environment)
    endpoint = endpoint or _LOCAL
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(f"{variable}: expected an address that begins with http:// or https://, such as {_LOCAL}.")
    is_own = variable != f"{_PREFIX}_ENDPOINT"
    return endpoint if is_own else f"{endpoint.removesuffix('/')}/v1/{name.lower()}"


def _timeout_s(name: str, environment: Mapping[str, str]) -> float:
    variable, text = _set(name, "TIMEOUT", environment)
    try:
        seconds = float(text or TIMEOUT_S)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"{variable}: expected seconds, such as 10.")
    return min(seconds, EXPORT_EVERY_S)


def _set(name: str, what: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that counts, and its value: "" where neither is set."""
    own, common = f"{_PREFIX}_{name}_{what}", f"{_PREFIX}_{what}"
    return (own, environment[own]) if environment.get(own) else (common, environment.get(common, ""))
