"""Which hosts the environment exempts from its proxy: `NO_PROXY`, as curl reads it.

Beyond what curl's manual says (CURLOPT_NOPROXY), an entry may name a port, and `*.` may stand before a domain, as in
other programs: curl uses the proxy for both.
"""

import ipaddress
import re

_SEPARATORS = re.compile(r"[,\s]+")
_WITH_PORT = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[]*))(?::(?P<port>[0-9]{1,5}))?")


def is_exempt(host: str, port: int, listed: str) -> bool:
    """Whether requests to this host and port go without a proxy. `listed`: the variable's value.

    An entry is `*` (all hosts), a domain (itself and all below it, a dot before it or not), `*.` and a domain (all
    below it), an address, or a network such as 10.0.0.0/8. With `:port` at its end it is for that port alone. Names
    are not looked up: an address or a network covers hosts that are written as addresses.
    """
    host = host.lower().rstrip(".")
    return any(_covers(entry, host, port) for entry in _SEPARATORS.split(listed.lower()) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    parts = _WITH_PORT.fullmatch(entry)  # None: an IPv6 address or network without brackets
    if parts is not None and parts["port"] is not None and int(parts["port"]) != port:
        return False
    name = entry if parts is None else parts["address"] or parts["name"] or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return name == "*" or _is_below(host, name.rstrip("."))
    try:
        return name == "*" or address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _is_below(host: str, domain: str) -> bool:
    if domain.startswith("*."):
        return host.endswith(domain[1:])
    domain = domain.removeprefix(".")
    return domain != "" and (host == domain or host.endswith(f".{domain}"))
