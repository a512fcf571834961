"""Answers that come in: STOP ends messages to a number, START begins them again.

Services call this in shapes of their own: Kannel's ``get-url``, a form as Twilio sends it, JSON.
"""

import contextlib
import re
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, get, post

from rso.core.hosts import host_of
from rso.engine.context import Engine
from rso.ledger import audit
from rso.ledger.contacts import set_opted_out
from rso.ledger.people import is_over, too_many
from rso.plugins import ConfigError
from rso.web.auth import engine_of
from rso.web.client import peer_address

__all__ = ["HANDLERS", "read_message", "word_of"]

Ask = Request[Any, Any, Any]
_FROM = ("from", "sender", "msisdn", "originator", "source", "phone")
_TEXT = ("text", "body", "message", "content")
_STOP = frozenset(
    {"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "STOPP", "ARRET", "ABMELDEN"}
)
_START = frozenset({"START", "UNSTOP", "BEGIN"})
_BODY_BYTES = 65_536
_WRONG_A_MINUTE = 20
_A_MINUTE = 10


def word_of(text: str) -> str:
    """``stop``, ``start``, or empty for anything else; only the first word counts."""
    found = re.match(r"\W*(\w+)", text)
    word = found[1].upper() if found else ""
    return "stop" if word in _STOP else "start" if word in _START else ""


def read_message(values: dict[str, Any]) -> tuple[str, str]:
    """Sender and text, by the names that services give them; empty where there is none."""
    plain = {
        name.lower(): str(value) for name, value in values.items() if isinstance(value, str | int)
    }
    sender = next((plain[name] for name in _FROM if plain.get(name)), "")
    text = next((plain[name] for name in _TEXT if plain.get(name)), "")
    return sender.strip()[:40], text.strip()[:1600]


def _given(request: Ask) -> list[str]:
    """What the caller shows as the secret: Basic, Bearer, a header, or a parameter."""
    found = [request.headers.get("x-rso-secret", ""), request.query_params.get("secret", "")]
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(rest.strip())
    elif scheme.lower() == "basic":
        with contextlib.suppress(Base64Error, UnicodeDecodeError):
            found.append(b64decode(rest, validate=True).decode().partition(":")[2])
    return found


async def _values(request: Ask) -> dict[str, Any]:
    values: dict[str, Any] = dict(request.query_params.items())
    if request.method == "POST":
        if "json" in request.headers.get("content-type", ""):
            try:
                sent = msgspec.json.decode(await request.body())
            except msgspec.DecodeError:
                sent = {}
            values |= sent if isinstance(sent, dict) else {}
        else:
            values |= dict((await request.form()).items())
    return values


def _answer(text: str, status: int = 200) -> Response[str]:
    return Response(text, status_code=status, media_type=MediaType.TEXT)


async def _receive(request: Ask) -> Response[str]:
    engine = engine_of(request)
    _, config = engine.plugins.notifiers.get("sms", (None, None))
    wanted = config.inbound_secret.reveal() if config and config.inbound_secret else ""
    if not wanted:
        return _answer("", 404)
    guessing = f"inbound:{host_of(peer_address(request))}"
    if await is_over(engine.ledger, guessing, _WRONG_A_MINUTE):
        return _answer("", 429)
    if not any(secrets.compare_digest(g.encode(), wanted.encode()) for g in _given(request)):
        busy = await too_many(engine.ledger, guessing, _WRONG_A_MINUTE)
        return _answer("", 429 if busy else 403)
    sender, text = read_message(await _values(request))
    word = word_of(text)
    # What else people write is not kept: it may name a patient.
    return await _obey(engine, sender, word) if word else _answer("")


async def _obey(engine: Engine, sender: str, word: str) -> Response[str]:
    from rso.plugins.carrier import check_phone_number  # noqa: PLC0415

    try:
        number = check_phone_number(sender if sender.startswith(("+", "00")) else f"+{sender}")
    except ConfigError:
        return _answer("", 400)
    if await too_many(engine.ledger, f"inbound-from:{number}", _A_MINUTE):
        return _answer("", 429)
    async with engine.ledger.transaction():
        changed = await set_opted_out(engine.ledger, "sms", number, opted_out=word == "stop")
        if changed:
            action = "messages stopped" if word == "stop" else "messages started"
            facts = {"channel": "sms", "to": f"***{number[-3:]}", "contacts": str(changed)}
            await audit.append(engine.ledger, actor="sms", action=action, facts=facts)
    site = engine.settings.site.name
    if word == "stop":
        return _answer(f"{site}: no more messages to this number. START for messages again.")
    return _answer(f"{site}: messages to this number again. STOP to end them.")


@get("/sms/inbound", include_in_schema=False)
async def inbound_get(request: Ask) -> Response[str]:
    """As Kannel calls."""
    return await _receive(request)


@post("/sms/inbound", include_in_schema=False, request_max_body_size=_BODY_BYTES)
async def inbound_post(request: Ask) -> Response[str]:
    """As most services call."""
    return await _receive(request)


HANDLERS = [inbound_get, inbound_post]
