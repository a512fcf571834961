"""Who asks: a session's cookie or an API token, and what they may see.

A plugin's handler calls ``current(request)`` for the same answer.
"""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from litestar import Request
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from msgspec import Struct

from rso.engine.context import Engine
from rso.ledger.people import Person
from rso.ledger.sessions import find_session
from rso.ledger.tokens import find_token
from rso.web.client import is_background, limits_of

__all__ = ["COOKIE", "Identity", "checked_form", "current", "engine_of", "known", "signed_in"]

COOKIE = "rso_session"
_KNOWN = "rso_identity"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Identity(Struct, frozen=True, kw_only=True):
    """The person behind a request; a token has no ``csrf``, no end and was never seen."""

    person: Person
    csrf: str = ""
    ends_at: datetime | None = None
    seen_at: datetime | None = None

    def require(self, *roles: str) -> None:
        """Raise 403 unless the person has one of these roles (an admin has all)."""
        if self.person.role not in {*roles, "admin"}:
            raise PermissionDeniedException("your role does not allow this")


def engine_of(request: Request[Any, Any, Any]) -> Engine:
    """The engine of this application."""
    engine: Engine = request.app.state.engine
    return engine


async def current(request: Request[Any, Any, Any]) -> Identity | None:
    """The caller by API token or session; ``None`` when there is neither."""
    identity = await _look_up(request)
    request.scope["state"][_KNOWN] = identity
    return identity


def known(request: Request[Any, Any, Any]) -> Identity | None:
    """The caller as far as this request looked them up already; for the page of an error."""
    identity: Identity | None = request.scope.get("state", {}).get(_KNOWN)
    return identity


async def _look_up(request: Request[Any, Any, Any]) -> Identity | None:
    ledger = engine_of(request).ledger
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        person = await find_token(ledger, token.strip())
        if person is None:
            raise NotAuthorizedException("the token is unknown or was revoked")
        return Identity(person=person)
    secret = request.cookies.get(COOKIE)
    if not secret:
        return None
    found = await find_session(
        ledger, secret, limits=limits_of(request), touch=not is_background(request)
    )
    if found is None:
        return None
    return Identity(
        person=found.person, csrf=found.csrf, ends_at=found.ends_at, seen_at=found.seen_at
    )


async def signed_in(request: Request[Any, Any, Any]) -> Identity:
    """The caller; 401 when there is none, 403 for a write without its CSRF token.

    A route that takes bodies without a bound has the token in the header ``X-CSRF-Token`` only:
    to look for it in a form would read all of the body into memory.
    """
    identity = await current(request)
    if identity is None:
        raise NotAuthorizedException("please sign in")
    if identity.csrf and request.method not in SAFE:
        sent = request.headers.get("x-csrf-token", "")
        if not sent and request.route_handler.resolve_request_max_body_size() is not None:
            sent = (await request.form()).get("_csrf", "")
        if sent != identity.csrf:
            raise PermissionDeniedException("the form is out of date; please load it again")
    return identity


async def checked_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """A form's text fields, refused when it comes from another site.

    A browser sends each end of a line as CRLF and counts it as one character: here it is one, LF.
    """
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise PermissionDeniedException("a form of another site")
    form = await request.form()
    return {
        name: value.replace("\r\n", "\n").strip()
        for name, value in form.items()
        if isinstance(value, str)
    }
