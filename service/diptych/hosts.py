"""Where an address leads: to this machine alone, or past it."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine. Of names, only localhost is known to."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_target_loopback(target: str) -> bool:
    """As `is_loopback`, of an address as gRPC takes it: HOST:PORT, dns:///HOST:PORT, unix:PATH."""
    scheme, colon, rest = target.partition(":")
    if scheme == "unix" or scheme == "unix-abstract":
        return True
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        target = rest.rpartition("/")[2]
    return all(is_loopback(one.rpartition(":")[0] or one) for one in target.split(","))
