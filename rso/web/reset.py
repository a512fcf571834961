"""A forgotten password: a link by email, where the email plugin is configured.

The answer is the same whether there is such an account, and it comes before anything is looked up.
"""

from typing import Any

import structlog
from litestar import Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Template
from msgspec import structs

from rso.core.errors import RsoError
from rso.core.hosts import host_of
from rso.engine.context import Engine
from rso.engine.notices import notice_of, write_message
from rso.ledger import new_id
from rso.ledger.people import SHORTEST_PASSWORD, too_many
from rso.ledger.resets import begin_reset, is_reset, reset_password
from rso.web.auth import checked_form, engine_of
from rso.web.client import peer_address
from rso.web.page import page

__all__ = ["HANDLERS", "can_reset"]

log = structlog.get_logger(__name__)
Ask = Request[Any, Any, Any]


def can_reset(request: Ask) -> bool:
    """Whether links can be sent at all."""
    return "email" in engine_of(request).plugins.notifiers


def _require_email(request: Ask) -> None:
    if not can_reset(request):
        raise NotFoundException("ask an administrator for a new password")


@get("/forgot")
async def forgot_page(request: Ask) -> Template:
    """Ask for the address."""
    _require_email(request)
    return page(request, "forgot.html", None, sent=False)


@post("/forgot", status_code=200)
async def forgot(request: Ask) -> Response[Any]:
    """Send the link, after the answer."""
    _require_email(request)
    form = await checked_form(request)
    engine = engine_of(request)
    email = form.get("email", "").lower()[:254]
    shown = page(request, "forgot.html", None, sent=True)
    busy = await too_many(engine.ledger, f"reset-from:{host_of(peer_address(request))}", 20)
    if not busy and not await too_many(engine.ledger, f"reset:{email}", 2):
        shown.background = BackgroundTask(_send_link, engine, email)
    return shown


async def _send_link(engine: Engine, email: str) -> None:
    kind, config = engine.plugins.notifiers["email"]
    notifier = kind(config)
    try:
        secret = await begin_reset(engine.ledger, email)
        if secret is None:
            return
        notice = structs.replace(
            notice_of(engine.settings, "reset", None),
            link=f"{engine.settings.base_url}/reset/{secret}",
        )
        message = write_message(
            engine.settings, notice, channel="email", address=email, key=f"reset:{new_id()}"
        )
        await notifier.send(message)
    except RsoError as exc:
        log.warning("reset link was not sent", reason=str(exc))
    finally:
        await notifier.close()


def _form(request: Ask, *, status: int = 200, **more: Any) -> Template:
    """The form; with ``gone`` only the way to another link."""
    shown = page(
        request, "reset.html", None, least=SHORTEST_PASSWORD, can_reset=can_reset(request), **more
    )
    shown.status_code = status
    return shown


@get("/reset/{secret:str}")
async def reset_page(request: Ask, secret: FromPath[str]) -> Template:
    """The form for a new password; opening the link uses nothing up."""
    if not await is_reset(engine_of(request).ledger, secret):
        return _form(request, status=404, gone=True)
    return _form(request)


@post("/reset/{secret:str}", status_code=200)
async def reset_now(request: Ask, secret: FromPath[str]) -> Template:
    """Set it."""
    form = await checked_form(request)
    ledger = engine_of(request).ledger
    if await too_many(ledger, f"reset-use:{host_of(peer_address(request))}", 20):
        return _form(request, status=429, problem="Too many tries; please wait a minute.")
    if not await is_reset(ledger, secret):
        return _form(request, status=404, gone=True)
    if len(form.get("password", "")) < SHORTEST_PASSWORD:
        problem = f"A password has at least {SHORTEST_PASSWORD} characters."
        return _form(request, status=422, problem=problem)
    if not await reset_password(ledger, secret, form["password"]):
        return _form(request, status=404, gone=True)
    return _form(request, done=True)


HANDLERS = [forgot_page, forgot, reset_page, reset_now]
