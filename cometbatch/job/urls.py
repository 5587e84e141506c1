"""Base URLs: one form for the many ways to write the same one, and refusal of everything that does not belong.

No message shows the URL: it could hold a password.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from cometbatch.job.secrets import KEYS_DO_NOT_BELONG
from cometbatch.job.tree import WrongError

DEFAULT_BASE_URL = "https://api.cometapi.com"
SIMULATOR = "simulator"
"""The base URL that stands for the simulator of this package."""

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f.]*:[0-9a-f:.]*")
_ROUTES = ("/chat/completions", "/responses", "/messages", ":generatecontent", "/models")
_DEFAULT_PORTS = {"https": 443, "http": 80}


def is_loopback(base_url: str) -> bool:
    """Whether the host is this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def normal_base_url(text: str) -> str:
    """The base URL without slashes and version at its end, or `SIMULATOR`. Raises `WrongError`."""
    if text == SIMULATOR:
        return SIMULATOR
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", text):
        raise WrongError("expected a URL of plain ASCII characters, without spaces and backslashes")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise WrongError("expected a URL such as https://api.cometapi.com, found one that can't be read") from None
    _check(text, parts, host)
    return _normal(parts, host, port)


def _check(text: str, parts: SplitResult, host: str) -> None:
    if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        raise WrongError("expected a URL that starts with https:// and a host, or simulator")
    if "@" in parts.netloc:
        raise WrongError(f"a name and password in the URL are refused: {KEYS_DO_NOT_BELONG}")
    if "?" in text or "#" in text:
        raise WrongError("expected a base URL alone, found a query (?) or fragment (#)")
    if parts.path.rstrip("/").lower().endswith(_ROUTES):
        raise WrongError("expected the base URL alone: the path of the route is added from target.format")


def _normal(parts: SplitResult, host: str, port: int | None) -> str:
    netloc = f"[{host}]" if ":" in host else host
    if port not in {None, _DEFAULT_PORTS[parts.scheme]}:
        netloc += f":{port}"
    path = re.sub(r"(/v1|/v1beta)?/*$", "", parts.path.rstrip("/"))
    return f"{parts.scheme}://{netloc}{path.rstrip('/')}"
