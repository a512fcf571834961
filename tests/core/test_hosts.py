"""One peer counts once, however many addresses it has."""

import pytest

from rso.core.hosts import host_of


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a proxy's socket", "a proxy's socket"),
    ],
)
def test_a_network_of_64_bits_is_one_host(address: str, host: str) -> None:
    """Of IPv6; an IPv4 address is itself, also where a listener shows it as IPv6."""
    assert host_of(address) == host
