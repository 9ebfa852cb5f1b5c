"""What may be opened when somebody names a picture: local files, the network, and which addresses of it."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmalign.errors import DecodeError, InputError
from mmalign.types import field_values

MAX_BYTES = 1 << 29
"""Largest file that is read, in bytes: enough for an uncompressed picture at the pixel limit."""

PRIVATE_VARIABLE = "MMALIGN_ALLOW_PRIVATE_NETWORK"
PROXY_VARIABLE = "MMALIGN_ALLOW_PROXY"

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Prefixes by which a gateway reaches IPv4 from IPv6; the address that counts is in the last 32 bits.
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"),)
# Kept for protocols and for services of a cloud; Python takes some of these for public ones.
_SPECIAL = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))
# Public by its number, but answered by the host of a virtual machine alone.
_METADATA = frozenset({ipaddress.ip_address("168.63.129.16")})


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """What may be read where a picture is named by a path or a URL.

    Attributes:
        allow_files: Local files, by path or `file://` URI.
        allow_network: http(s) URLs.
        allow_private_networks: URLs whose host is, by its address, in a private network, on this machine, link-local or
            a cloud's metadata service. Checked after the name is looked up, and again after each redirect.
        allow_proxy: The proxy of the environment (`http_proxy`, `https_proxy`). A proxy looks names up by itself, so
            that only addresses that stand in the URL can be checked.
        max_bytes: Refuse what is larger, also once it is unpacked.
        deadline_s: Seconds that a URL may take: lookup, connection, redirects, headers and body together.

    Raises:
        InputError: A limit that is no number above 0, or a permission that is neither True nor False.

    Example:
        >>> MediaPolicy(allow_files=False, deadline_s=5).allow_private_networks
        False
    """

    allow_files: bool = True
    allow_network: bool = True
    allow_private_networks: bool = False
    allow_proxy: bool = False
    max_bytes: int = MAX_BYTES
    deadline_s: float = 120.0

    def __post_init__(self) -> None:
        values = field_values(self)
        for name in ("allow_files", "allow_network", "allow_private_networks", "allow_proxy"):
            if not isinstance(values[name], bool):
                raise InputError(f"{name} must be True or False, got {values[name]!r}")
        for name, kinds in (("max_bytes", int), ("deadline_s", (int, float))):
            value: Any = values[name]
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
                raise InputError(f"{name} must be a finite number above 0, got {value!r}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> MediaPolicy:
        """Give the policy of whoever names none: all but private networks and proxies, which variables may allow.

        Args:
            environ: The environment; the process's own by default. `MMALIGN_ALLOW_PRIVATE_NETWORK=1` and
                `MMALIGN_ALLOW_PROXY=1` allow what they say.

        Returns:
            The policy.

        Raises:
            InputError: A variable that says neither yes nor no.
        """
        found = os.environ if environ is None else environ
        return cls(allow_private_networks=_switch(found, PRIVATE_VARIABLE), allow_proxy=_switch(found, PROXY_VARIABLE))

    def allows(self, address: str) -> bool:
        """Say whether a host with this address may be connected to.

        Args:
            address: An IPv4 or IPv6 address, as the system's lookup of names gives it.

        Returns:
            True for a public one, and for any other where private networks are allowed; never for multicast.
        """
        parsed = _inner(ipaddress.ip_address(address.partition("%")[0]))
        if parsed.is_multicast or parsed == ipaddress.IPv4Address("255.255.255.255"):
            return False
        return self.allow_private_networks or _is_public(parsed)


NOTHING = MediaPolicy(allow_files=False, allow_network=False)
"""No file and no URL."""


def check_policy(policy: Any) -> None:
    """Refuse what is no policy.

    Args:
        policy: A `MediaPolicy`, or None.

    Raises:
        InputError: Anything else.
    """
    if policy is not None and not isinstance(policy, MediaPolicy):
        raise InputError(f"policy must be a MediaPolicy, got {type(policy).__name__}")


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address) and any(address in network for network in _SPECIAL):
        return False
    if address in _METADATA or not address.is_global or address.is_reserved or address.is_unspecified:
        return False
    return not (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)


def _inner(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 one stands for, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _switch(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").strip().lower()
    if value not in _TRUE | _FALSE:
        raise InputError(f"{name} must be 1 or 0, got {value!r}")
    return value in _TRUE


def check_size(uri: str, size: int, max_bytes: int) -> None:
    """Refuse what is empty or too large.

    Args:
        uri: What to call it.
        size: In bytes.
        max_bytes: The limit.

    Raises:
        DecodeError: It is.
    """
    if size == 0:
        raise DecodeError(uri, "empty file (0 bytes)")
    if size > max_bytes:
        raise DecodeError(uri, f"too large: {size:,} bytes, the limit is {max_bytes:,}")
