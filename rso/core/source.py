"""Who is calling: a connection is recognised as one declared source, or refused."""

import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from rso.core.transport import Connection, Source

__all__ = [
    "check_sources",
    "explain_refusal",
    "facility_concerned",
    "fingerprints",
    "identify_source",
    "is_expected",
]

_Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address
_ACCOUNTS = frozenset({"ftp", "http_upload"})  # here a name is one account, wherever from
_NEVER_ASK_FOR_PASSWORDS = frozenset({"dicom_scp"})


@lru_cache(maxsize=4096)
def _network(text: str) -> _Network:
    return ip_network(text, strict=False)


@lru_cache(maxsize=4096)
def _address(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A dual-stack listener shows IPv4 peers as ::ffff:a.b.c.d.
    return getattr(address, "ipv4_mapped", None) or address


def identify_source(connection: Connection, sources: Sequence[Source]) -> Source | None:
    """The one source that a connection belongs to; ``None`` refuses it."""
    fitting = [s for s in sources if _is_named(s, connection) and not _obstacle(s, connection)]
    return fitting[0] if len(fitting) == 1 else None


def _is_named(source: Source, connection: Connection) -> bool:
    return source.channel == connection.channel and source.identity == connection.identity


def _obstacle(source: Source, connection: Connection) -> str:
    """Why a connection under this source's name is not this source; empty when it is."""
    called = source.called_ae_title
    if called and called != connection.called_ae_title:
        return f"it called {connection.called_ae_title} instead of {called}"
    address = _address(connection.peer_address)
    if source.networks:
        nets = [_network(text) for text in source.networks]
        if address is None or not any(address in net for net in nets):
            return f"it came from {connection.peer_address}, which is in none of its networks"
    pinned = fingerprints(source)
    if pinned and _plain(connection.certificate_fingerprint) not in pinned:
        return "it did not show the certificate that it is bound to"
    if not _is_bound(source):
        return f"it is bound to neither a network nor a certificate{_unasked(source)}"
    if not connection.tls and not source.cleartext and not _is_private(address):
        return "it came without TLS over a public network"
    return ""


def _is_bound(source: Source) -> bool:
    """Whether something else than the name, which anybody can claim, tells the source."""
    asked = bool(source.password_hash) and source.channel not in _NEVER_ASK_FOR_PASSWORDS
    return bool(source.networks or fingerprints(source) or asked)


def _unasked(source: Source) -> str:
    if not source.password_hash:
        return ""
    return f": its password counts for nothing, {source.channel} never asks for it"


def fingerprints(source: Source) -> frozenset[str]:
    """SHA-256 of every certificate that a source is bound to, as plain hex; empty: to none."""
    return _fingerprints(source.certificate_fingerprint, source.certificate)


@lru_cache(maxsize=4096)
def _fingerprints(text: str, pem: str) -> frozenset[str]:
    bodies = re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", pem, re.S)
    found = {sha256(binascii.a2b_base64(body)).hexdigest() for body in bodies}
    return frozenset(found | {_plain(word) for word in text.split()})


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").strip().lower()


def _is_private(address: _Address | None) -> bool:
    return address is not None and (address.is_private or address.is_loopback)


def explain_refusal(connection: Connection, sources: Sequence[Source]) -> str:
    """In words for the deployer, never for the peer, why a connection was refused."""
    named = [s for s in sources if _is_named(s, connection)]
    if not named:
        return f"no source of channel {connection.channel} is called {connection.claimed}"
    reasons = [reason for s in named if (reason := _obstacle(s, connection))]
    if len(reasons) < len(named):
        return f"several sources are called {connection.claimed} and fit"
    return f"{connection.claimed}: {'; '.join(dict.fromkeys(reasons))}"


def facility_concerned(connection: Connection, sources: Sequence[Source]) -> str:
    """The one facility that has a source of this name; empty: none, or several."""
    named = {s.facility for s in sources if _is_named(s, connection)}
    return named.pop() if len(named) == 1 else ""


def is_expected(connection: Connection, sources: Sequence[Source]) -> bool:
    """Whether anybody declared the peer's network or certificate.

    Behind an address like that stands a clinic with all its devices: it is never shut out as a
    whole.
    """
    address = _address(connection.peer_address)
    shown = _plain(connection.certificate_fingerprint)
    return any(
        (shown and shown in fingerprints(s))
        or (address is not None and any(address in _network(text) for text in s.networks))
        for s in sources
    )


def check_sources(sources: Sequence[Source]) -> list[str]:
    """What is wrong with a set of sources, in words; empty when nothing is.

    A name may repeat within a channel (AE titles repeat between clinics) only where no
    connection could be taken for both.
    """
    problems = []
    for source in sources:
        name = f"source {source.channel}/{source.identity} of {source.facility}"
        for text in source.networks:
            try:
                _network(text)
            except ValueError:
                problems.append(f"{name}: {text!r} is not a network")
        try:
            pinned = fingerprints(source)
        except binascii.Error:
            problems.append(f"{name}: its certificate cannot be read")
            continue
        if source.certificate and "BEGIN CERTIFICATE" not in source.certificate:
            problems.append(f"{name}: its certificate is not PEM")
        for word in sorted(pinned):
            if not re.fullmatch("[0-9a-f]{64}", word):
                problems.append(f"{name}: {word!r} is no SHA-256 fingerprint")
        if not _is_bound(source):
            problems.append(f"{name}: needs networks or a certificate{_unasked(source)}")
    if problems:
        return problems
    for i, one in enumerate(sources):
        for other in sources[i + 1 :]:
            if (one.channel, one.identity) == (other.channel, other.identity) and _overlap(
                one, other
            ):
                problems.append(
                    f"source {one.channel}/{one.identity} of {one.facility} and of"
                    f" {other.facility} cannot be told apart: their networks overlap"
                )
    return problems


def _overlap(one: Source, other: Source) -> bool:
    if one.channel in _ACCOUNTS:
        return True
    a, b = fingerprints(one), fingerprints(other)
    if a and b and not a & b:
        return False
    called = {one.called_ae_title, other.called_ae_title}
    if len(called) == 2 and "" not in called:
        return False
    if not one.networks or not other.networks:
        return True
    return any(
        x.version == y.version and x.overlaps(y)
        for x in map(_network, one.networks)
        for y in map(_network, other.networks)
    )
