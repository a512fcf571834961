"""What counts as one peer where tries, connections and turns are counted."""

import ipaddress

__all__ = ["host_of"]


def host_of(address: str) -> str:
    """What stands for one peer: an IPv4 address, or the network of 64 bits of an IPv6 one.

    A host has as many addresses of its network as it likes.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    found = getattr(found, "ipv4_mapped", None) or found
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))
