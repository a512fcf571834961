"""Errors as people and programs read them: one page, one problem+json (RFC 9457)."""

import re
from typing import Any
from urllib.parse import quote, urlsplit

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.response import Redirect

from rso.core.errors import (
    BusyError,
    ConfigError,
    ExamError,
    IdentifierError,
    MatchingError,
    NoSpaceError,
    NotDicomError,
    OwnerError,
    RefusedError,
    RoutingError,
    RsoError,
    StateError,
)
from rso.ledger import LedgerUnavailable, LedgerValueError
from rso.web.auth import known
from rso.web.live import TooManyStreams
from rso.web.page import page

__all__ = ["answer_error"]

log = structlog.get_logger(__name__)

_STATUS: tuple[tuple[type[RsoError], int], ...] = (
    (NotDicomError, 400),
    (IdentifierError, 409),
    (RefusedError, 415),
    (NoSpaceError, 507),
    (LedgerUnavailable, 503),
    (LedgerValueError, 404),
    (OwnerError, 409),
    (StateError, 409),
    (BusyError, 429),
    (TooManyStreams, 429),
    (ExamError, 404),
    (MatchingError, 409),
    (RoutingError, 409),
    (ConfigError, 400),
    (RsoError, 500),
)
_TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Not supported",
    429: "Too many requests",
    500: "RSO made a mistake",
    503: "Not available right now",
    507: "Out of space",
}
_BUSY_SECONDS = 10
_TOO_LARGE = "This is more than RSO takes at once; send it in parts. Nothing of it was kept."


def _status(exc: Exception) -> tuple[int, str]:
    if isinstance(exc, RsoError):
        return next(status for kind, status in _STATUS if isinstance(exc, kind)), str(exc)
    if isinstance(exc, HTTPException):
        said = _TOO_LARGE if isinstance(exc, RequestEntityTooLarge) else str(exc.detail)
        return exc.status_code, _places(exc) or said
    log.error("request failed", exc_info=exc)
    return 500, "An unexpected error; it is in the log."


def _places(exc: HTTPException) -> str:
    """What is wrong with each field of a request; empty where that is not what it is."""
    found = exc.extra if isinstance(exc.extra, list) else []
    return "; ".join(
        f"{entry['message']} - at `{entry['key']}`" if entry.get("key") else entry["message"]
        for entry in found
        if isinstance(entry, dict) and isinstance(entry.get("message"), str)
    )


def _back(request: Request[Any, Any, Any]) -> str:
    """The page of RSO's own that one came from; empty where none is known."""
    try:
        came = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return ""
    own = came.netloc == request.headers.get("host") and came.path != request.url.path
    # A browser takes what begins with two slashes, or a backslash, for another host.
    if not own or not re.fullmatch(r"/([A-Za-z0-9_.@~%-]+/?)*", came.path):
        return ""
    return came.path + (f"?{came.query}" if came.query else "")


def answer_error(request: Request[Any, Any, Any], exc: Exception) -> Response[Any]:
    """The one answer to every exception."""
    status, detail = _status(exc)
    shown = "text/html" in request.headers.get("accept", "")
    shown = shown or request.url.path == "/"  # the way in of the web, whoever asks
    if shown and status == 401 and request.method == "GET":
        # Whoever follows a link of a message comes to where it leads.
        path = request.url.path
        return Redirect("/sign-in" if path == "/" else f"/sign-in?next={quote(path)}")
    if shown and status == 405 and request.method == "GET":
        # Where a form was sent to, such as by the way back after a new sign-in: no page is there.
        return Redirect("/")
    headers = {"Retry-After": str(_BUSY_SECONDS)} if isinstance(exc, BusyError) else None
    title = _TITLES.get(status, "Error")
    if shown:
        made = page(
            request, "error.html", known(request), title=title, detail=detail, back=_back(request)
        )
        made.status_code = status
        made.headers.update(headers or {})
        return made
    return Response(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )
