"""`NO_PROXY`: which hosts go without the environment's proxy, as curl reads it, with ports and `*.` beyond that."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cometbatch.transport import describe_route
from cometbatch.transport.no_proxy import is_exempt

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.integers(1, 65_535)
OTHERS = st.lists(st.sampled_from(["other.invalid", "10.9.8.7", "fd12::/16", ".x.invalid", "y.invalid:1"]), max_size=3)


@pytest.mark.parametrize(
    ("listed", "host", "is_direct"),
    [
        ("*", "api.corp.test", True),
        ("a.test, *", "api.corp.test", True),
        ("*", "10.1.2.3", True),
        ("", "api.corp.test", False),
        (" , ,", "api.corp.test", False),
        (".", "api.corp.test", False),
        ("corp.test", "corp.test", True),
        ("corp.test", "api.corp.test", True),
        ("corp.test", "a.b.corp.test", True),
        ("corp.test", "mycorp.test", False),
        ("corp.test", "corp.test.evil", False),
        (".corp.test", "api.corp.test", True),
        (".corp.test", "corp.test", True),
        (".corp.test", "mycorp.test", False),
        ("*.corp.test", "api.corp.test", True),
        ("*.corp.test", "corp.test", False),
        ("*corp.test", "api.corp.test", False),
        ("CORP.Test", "api.corp.test", True),
        ("corp.test.", "api.corp.test", True),
        ("corp.test", "api.corp.test.", True),
        ("a.test,corp.test", "api.corp.test", True),
        ("a.test , corp.test", "api.corp.test", True),
        ("a.test\tcorp.test", "api.corp.test", True),
        ("corp.test:443", "api.corp.test", True),
        ("corp.test:8443", "api.corp.test", False),
        ("*.corp.test:443", "api.corp.test", True),
        ("*:443", "api.corp.test", True),
        ("*:444", "api.corp.test", False),
        ("corp.test:https", "corp.test", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:80", "10.1.2.3", False),
        ("2.3", "10.1.2.3", False),
        (".2.3", "10.1.2.3", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.9.9.9/8", "10.1.2.3", True),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", True),
        ("10.0.0.0/16", "10.1.2.3", False),
        ("10.0.0.0/8:443", "10.1.2.3", True),
        ("10.0.0.0/33", "10.1.2.3", False),
        ("10.0.0.0/x", "10.1.2.3", False),
        ("10.0.0.0/8", "ten.corp.test", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::1", "fd00:0:0::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("[fd00::1]:80", "fd00::1", False),
        ("fd00::/8", "fe80::1", False),
        ("fd00::/8", "10.1.2.3", False),
    ],
)
def test_an_entry_covers_what_the_manual_says(
    monkeypatch: pytest.MonkeyPatch, listed: str, host: str, *, is_direct: bool
) -> None:
    """Domains, addresses, networks, ports, in the environment as in the function that reads it."""
    assert is_exempt(host, 443, listed) is is_direct
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", listed)
    url = f"https://[{host}]" if ":" in host else f"https://{host}"
    assert describe_route(url) == ("directly" if is_direct else "through the proxy proxy.test:3128")


@given(name=NAMES, below=NAMES, port=PORTS, others=OTHERS)
def test_a_domain_covers_itself_and_what_is_below_it(name: str, below: str, port: int, others: list[str]) -> None:
    """Whatever else is listed; a dot before the domain or after it changes nothing."""
    for entry in (name, f".{name}", f"{name}.", name.upper(), f"{name}:{port}"):
        listed = ",".join([*others, entry])
        assert is_exempt(name, port, listed)
        assert is_exempt(f"{below}.{name}", port, listed)


@given(name=NAMES, prefix=LABELS, port=PORTS, other=PORTS)
def test_a_domain_covers_nothing_that_only_ends_alike(name: str, prefix: str, port: int, other: int) -> None:
    """`mycorp.test` is not below `corp.test`, and another port is another service."""
    assert not is_exempt(prefix + name, port, name)
    assert is_exempt(name, port, f"{name}:{other}") is (port == other)


@given(address=st.ip_addresses(), network=st.ip_addresses(), bits=st.integers(0, 128), port=PORTS)
def test_a_network_covers_its_addresses(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    network: ipaddress.IPv4Address | ipaddress.IPv6Address,
    bits: int,
    port: int,
) -> None:
    """By the bits that are named, and no address of the other kind."""
    bits = min(bits, network.max_prefixlen)
    hidden = network.max_prefixlen - bits
    is_inside = address.version == network.version and int(address) >> hidden == int(network) >> hidden
    assert is_exempt(str(address), port, f"{network}/{bits}") is is_inside
    assert is_exempt(str(network), port, f"{network}/{bits}")


@given(listed=st.text(max_size=40), host=st.one_of(NAMES, st.ip_addresses().map(str)), port=PORTS)
def test_any_text_is_read(listed: str, host: str, port: int) -> None:
    """What is no entry covers nothing, and is no reason to fail."""
    assert is_exempt(host, port, listed) in {True, False}
