"""Where a request really comes from: the peer, or what a proxy of one's own says of it."""

from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from litestar import Request

from rso.engine.context import Engine
from rso.ledger.sessions import Limits
from rso.settings import Settings, Web

__all__ = [
    "is_background",
    "is_secure",
    "is_tls",
    "limits_of",
    "may_watch",
    "peer_address",
    "session_limits",
]

Ask = Request[Any, Any, Any]


@lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _settings(request: Ask) -> Settings:
    engine: Engine = request.app.state.engine
    return engine.settings


def _is_in(text: str, networks: tuple[str, ...]) -> bool:
    address = _parse(text)
    return address is not None and any(
        address.version == network.version and address in network for network in _networks(networks)
    )


def _is_trusted(request: Ask, text: str) -> bool:
    return _is_in(text, _settings(request).web.trusted_proxies)


def peer_address(request: Ask) -> str:
    """The nearest address that is no trusted proxy; a header of anybody else says nothing."""
    address = request.client.host if request.client else ""
    said = ",".join(request.headers.getall("x-forwarded-for", [])).split(",")
    while _is_trusted(request, address) and said:
        nearest = _parse(said.pop())
        if nearest is None:
            break
        address = str(nearest)
    return address


def may_watch(request: Ask) -> bool:
    """Whether the peer's network may read figures; not through a proxy that nobody vouched for."""
    address = peer_address(request)
    direct = request.client.host if request.client else ""
    if "x-forwarded-for" in request.headers and address == direct:
        return False
    return _is_in(address, _settings(request).web.metrics_from)


def is_tls(request: Ask) -> bool:
    """Whether this request came by TLS, here or at a trusted proxy."""
    peer = request.client.host if request.client else ""
    if _is_trusted(request, peer) and request.headers.get("x-forwarded-proto", "") == "https":
        return True
    return request.url.scheme == "https"


def is_secure(request: Ask) -> bool:
    """Whether a cookie is kept to TLS: it came by it, or people are told to come by it."""
    return is_tls(request) or _settings(request).base_url.startswith("https:")


def is_background(request: Ask) -> bool:
    """Whether a page asks by itself: a poll or an event stream keeps no session alive."""
    stream = "text/event-stream" in request.headers.get("accept", "")
    return stream or "x-unattended" in request.headers


def limits_of(request: Ask) -> Limits:
    """How long sessions last here."""
    return session_limits(_settings(request).web)


def session_limits(web: Web) -> Limits:
    """How long sessions last by these settings."""
    return Limits(idle=timedelta(minutes=web.idle_minutes), most=timedelta(hours=web.session_hours))
