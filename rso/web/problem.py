"""What every operation of the JSON API may answer besides success, for its description."""

from litestar.config.app import AppConfig
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

__all__ = ["Problem", "describe"]


class Problem(Struct, frozen=True, kw_only=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


_WORDS = {
    400: "the request is not as described",
    401: "no session, or a token that is unknown or revoked",
    403: "the role, or a missing CSRF token, does not allow it",
    404: "there is no such thing for this caller",
    405: "not with this method",
    409: "it stands in the way of what is there",
    413: "too large",
    415: "not in this form",
    429: "too often",
    503: "the database, or a channel for messages, does not answer right now",
}


def describe(config: AppConfig) -> AppConfig:
    """Give each operation of the API the problems it may answer; pages are left out.

    What a page hands out and a program may fetch as well (``opt``: ``api``) belongs to it too.
    """
    problems = {
        status: ResponseSpec(
            data_container=Problem,
            description=words,
            generate_examples=False,
            media_type="application/problem+json",
        )
        for status, words in _WORDS.items()
    }
    for handler in config.route_handlers:
        if not isinstance(handler, HTTPRouteHandler):
            continue
        if handler.opt.get("api") or any(
            path.startswith(("/api", "/dicomweb")) for path in handler.paths
        ):
            handler.responses = problems | dict(handler.responses or {})
            handler.security = [{"bearer": []}]
        else:
            handler.include_in_schema = False
    return config
