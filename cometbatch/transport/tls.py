"""TLS settings: which authorities to trust, and which client certificate to show.

Hides how ssl reports a file that is missing, is no certificate or is locked. Guards that such a file is reported before
anything is sent, that nothing of a private key gets into a message, and that nobody is asked for a password.
"""

import os
import ssl
import stat
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from cometbatch.errors import UsageError

CA_FILE, CLIENT_CERT, CLIENT_KEY = "target.ca_file", "target.client_cert", "target.client_key"
ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # variables; the first that is set counts


class TlsSettings(Struct, frozen=True):
    """Files of a TLS setup. Without `ca_file`: certifi's list, or what SSL_CERT_FILE or SSL_CERT_DIR names."""

    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    @property
    def description(self) -> str:
        """Settings that are not the usual ones, to follow other words; "" where all are usual."""
        trusting = f", trusting {self.ca_file} alone" if self.ca_file is not None else ""
        appearing = f", with the client certificate {self.client_cert}" if self.client_cert is not None else ""
        return trusting + appearing

    @property
    def is_usual(self) -> bool:
        """Whether there is no file that could be wrong."""
        return self == USUAL and not any(map(os.environ.get, ENVIRONMENT))


USUAL = TlsSettings()


def tls_context(settings: TlsSettings, *, as_client: bool = True) -> ssl.SSLContext:
    """The context for the service, or for a proxy, which is not shown our certificate (`as_client`: False).

    Raises `UsageError` that names the job key, or the environment variable, and the file.
    """
    context = _usual() if settings.ca_file is None else _trusting(CA_FILE, settings.ca_file)
    if as_client and settings.client_cert is not None:
        _appear(context, settings.client_cert, settings.client_key)
    return context


def _usual() -> ssl.SSLContext:
    named = [(name, Path(os.environ[name])) for name in ENVIRONMENT if os.environ.get(name)]
    for name, path in named[:1]:
        if name == "SSL_CERT_FILE":
            return _trusting(name, path)
        if not path.is_dir():
            raise UsageError(f"{name}: {path} is no folder.")
    import httpx  # noqa: PLC0415 - for TLS alone: it takes long to load

    return httpx.create_ssl_context()


def _trusting(key: str, path: Path) -> ssl.SSLContext:
    _check_readable(key, path)
    try:
        context = ssl.create_default_context(cafile=str(path))
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"{key}: {path} holds no certificates in PEM form ({_reason(error)}).") from None
    if not context.cert_store_stats()["x509"]:
        raise UsageError(f"{key}: {path} holds no certificates in PEM form.")
    return context


def _appear(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    _trusting(CLIENT_CERT, cert)
    named, path = (CLIENT_CERT, cert) if key is None else (CLIENT_KEY, key)
    _check_readable(named, path)
    try:
        context.load_cert_chain(cert, key, password=_refuse_to_ask)
    except _LockedError:
        words = "is locked with a password, which is not asked for: name a file with the unlocked key"
        raise UsageError(f"{named}: the private key in {path} {words}.") from None
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"{named}: {path} {_wrong_key(error, cert, key)}.") from None


def _wrong_key(error: OSError, cert: Path, key: Path | None) -> str:
    reason = _reason(error)
    if "MISMATCH" in reason:
        return f"holds another private key than that of the certificate in {cert}"
    elsewhere = " (where it has a file of its own, name that in target.client_key)" if key is None else ""
    return f"holds no private key in PEM form that fits the certificate{elsewhere}: {reason}"


def _check_readable(key: str, path: Path) -> None:
    """Opened before ssl does, which does not say which of two files it misses."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe can be read only once, and waiting for it has no end
            raise UsageError(f"{key}: {path} is no file.")
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"{key}: {path} can't be read ({error.strerror}).") from error


class _LockedError(Exception):
    """A private key is encrypted."""


def _refuse_to_ask() -> NoReturn:
    """What ssl calls instead of asking at the terminal."""
    raise _LockedError


def _reason(error: OSError) -> str:
    """OpenSSL's own short words, which quote nothing."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
