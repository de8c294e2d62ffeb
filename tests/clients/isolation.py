"""Proof that nothing started here can reach a real identity endpoint, or a registry."""

from __future__ import annotations

import socket
from pathlib import Path

REGISTRY = "myreg.azurecr.io"
# What has to be here instead of where it usually is.
NAMES = (REGISTRY, "management.azure.com")
IMDS = "169.254.169.254"
HOW = (
    f"run these tests by `tests/isolated --imds-address {' '.join(f'--host {name}' for name in NAMES)}`, "
    "as `make test-clients` does"
)

# Some kernels put these into every namespace; they are down and lead nowhere.
_FALLBACK_DEVICES = {
    *("lo", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"),
}
# Documentation addresses (RFC 5737, RFC 3849): connecting a datagram socket only looks for a route.
_SOMEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def why_not() -> str | None:
    """The reason why this is not a place for these tests; `None` when it is one."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    foreign = {line.split(":")[0].strip() for line in lines} - _FALLBACK_DEVICES
    if foreign:
        return f"there are network devices ({', '.join(sorted(foreign))}); {HOW}"
    for family, address in _SOMEWHERE:
        if _has_route(family, address):
            return f"the kernel has a route to {address}; {HOW}"
    if not _is_own(IMDS):
        return f"{IMDS} is not an address of this namespace; {HOW}"
    for name in NAMES:
        try:
            resolved = socket.gethostbyname(name)
        except OSError as error:
            resolved = str(error)
        if resolved != "127.0.0.1":
            return f"{name} does not lead to 127.0.0.1 ({resolved}); {HOW}"
    return None


def _has_route(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True


def _is_own(address: str) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
