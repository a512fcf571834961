"""API tokens as JSON: one's own, and, for administrators, everybody's and those of sources."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, delete, get, post
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from rso.ledger import audit
from rso.ledger.tokens import create_token, revoke_token, tokens
from rso.web.auth import Identity, engine_of, signed_in

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
Name = Annotated[str, Meta(min_length=1, max_length=100)]


class TokenView(Struct, frozen=True, kw_only=True):
    """A token in use, without its secret."""

    id: str
    name: str
    created_at: datetime
    last_used_at: datetime | None


class Tokens(Struct, frozen=True, kw_only=True):
    """The caller's own tokens."""

    tokens: list[TokenView]


class SiteTokenView(TokenView, frozen=True, kw_only=True):
    """A token in use, of a ``person`` or of a ``source``."""

    person: str
    source: str


class SiteTokens(Struct, frozen=True, kw_only=True):
    """Every token in use."""

    tokens: list[SiteTokenView]


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token is for."""

    name: Name


class NewSourceToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose token it is, the identity of a source of channel ``http_upload``, and what for."""

    source: Annotated[str, Meta(min_length=1, max_length=254)]
    name: Name


class MadeToken(Struct, frozen=True, kw_only=True):
    """A token, shown this once."""

    token: str


def _view(row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: row[name] for name in ("name", "created_at", "last_used_at")},
            "id": str(row["id"])}  # fmt: skip


@get("/api/tokens")
async def api_tokens(request: Ask) -> Tokens:
    """The caller's own tokens."""
    me = await signed_in(request)
    rows = await tokens(engine_of(request).ledger, email=me.person.email)
    return Tokens(tokens=[TokenView(**_view(row)) for row in rows])


@post("/api/tokens")
async def api_make_token(request: Ask, data: JSONBody[NewToken]) -> MadeToken:
    """Make a token for oneself; asked with a session, not with another token."""
    me = await signed_in(request)
    if not me.csrf:
        raise PermissionDeniedException("a token cannot make tokens; please sign in")
    ledger = engine_of(request).ledger
    token = await create_token(ledger, email=me.person.email, name=data.name)
    await audit.append(
        ledger, actor=me.person.email, action="token made", facts={"name": data.name}
    )
    return MadeToken(token=token)


@delete("/api/tokens/{token_id:uuid}", status_code=204)
async def api_end_token(request: Ask, token_id: FromPath[UUID]) -> None:
    """End one of one's own tokens."""
    me = await signed_in(request)
    ledger = engine_of(request).ledger
    if not await revoke_token(ledger, str(token_id), email=me.person.email):
        raise NotFoundException("no token in use has this id")
    await audit.append(ledger, actor=me.person.email, action="token ended")


async def _admin(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require()
    if me.person.facilities is not None:
        raise PermissionDeniedException("this is for whoever sees the whole site")
    return me


@get("/api/site/tokens")
async def api_site_tokens(request: Ask) -> SiteTokens:
    """Every token in use, of people and of sources."""
    await _admin(request)
    rows = await tokens(engine_of(request).ledger)
    return SiteTokens(
        tokens=[
            SiteTokenView(person=row["account"], source=row["source"], **_view(row)) for row in rows
        ]
    )


@post("/api/site/tokens")
async def api_make_source_token(request: Ask, data: JSONBody[NewSourceToken]) -> MadeToken:
    """Make a token for a source: it uploads, and no more."""
    me = await _admin(request)
    ledger = engine_of(request).ledger
    token = await create_token(ledger, source=data.source, name=data.name)
    facts = {"source": data.source, "name": data.name}
    await audit.append(ledger, actor=me.person.email, action="token made", facts=facts)
    return MadeToken(token=token)


@delete("/api/site/tokens/{token_id:uuid}", status_code=204)
async def api_end_any_token(request: Ask, token_id: FromPath[UUID]) -> None:
    """End a token, whosever it is."""
    me = await _admin(request)
    ledger = engine_of(request).ledger
    if not await revoke_token(ledger, str(token_id)):
        raise NotFoundException("no token in use has this id")
    facts = {"token": str(token_id)}
    await audit.append(ledger, actor=me.person.email, action="token ended", facts=facts)


HANDLERS = [
    api_tokens,
    api_make_token,
    api_end_token,
    api_site_tokens,
    api_make_source_token,
    api_end_any_token,
]
