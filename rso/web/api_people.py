"""People and the audit as JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post, put
from litestar.exceptions import NotFoundException, PermissionDeniedException
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from rso.core.errors import ConfigError
from rso.engine.site import apply_site
from rso.ledger import audit
from rso.ledger.audit_search import Wanted, audit_entries
from rso.ledger.people import check_new_password, set_disabled
from rso.ledger.second_factor import end_totp
from rso.ledger.sessions import end_sessions
from rso.ledger.site_document import Role
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.typed import in_utc

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
Email = Annotated[str, Meta(min_length=3, max_length=254, pattern="^[^@ ]+@[^@ ]+$")]


class UserView(Struct, frozen=True, kw_only=True):
    """A person; ``facilities`` empty means all, for roles that may see all."""

    email: str
    name: str
    role: str
    facilities: list[str]
    disabled: bool
    second_factor: bool


class Users(Struct, frozen=True, kw_only=True):
    """Everybody with an account."""

    users: list[UserView]


class UserChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person as they shall be; an empty password keeps the old."""

    role: Role
    name: Annotated[str, Meta(max_length=200)] = ""
    facilities: Annotated[list[str], Meta(max_length=1000)] = []
    password: Annotated[str, Meta(max_length=1000)] = ""


class AuditView(Struct, frozen=True, kw_only=True):
    """One entry of the audit; ``hash`` covers the one before."""

    id: int
    at: datetime
    actor: str
    action: str
    facility: str
    exam: str
    facts: dict[str, str]
    hash: str


class Audit(Struct, frozen=True, kw_only=True):
    """Entries, the newest first; ask again with ``before`` for older ones."""

    entries: list[AuditView]


class Intact(Struct, frozen=True, kw_only=True):
    """Whether the chain of hashes holds; ``first_broken`` is the entry where it does not."""

    intact: bool
    first_broken: int | None


async def _admin(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require()
    if me.person.facilities is not None:
        raise PermissionDeniedException("this is for whoever sees the whole site")
    return me


@get("/api/users")
async def api_users(request: Ask) -> Users:
    """Everybody with an account."""
    await _admin(request)
    ledger = engine_of(request).ledger
    rows = await ledger.fetch("SELECT * FROM user_account ORDER BY email")
    return Users(
        users=[
            UserView(
                email=row["email"],
                name=row["name"],
                role=row["role"],
                facilities=msgspec.json.decode(row["facilities"]),
                disabled=bool(row["disabled"]),
                second_factor=bool(row["totp_secret"])
                and not row["totp_secret"].startswith("open:"),
            )
            for row in rows
        ]
    )


@put("/api/users/{email:str}", status_code=204)
async def api_save_user(request: Ask, email: FromPath[str], data: JSONBody[UserChange]) -> None:
    """Add a person, or change one."""
    me = await _admin(request)
    if email.lower() == me.person.email and data.role != "admin":
        raise ConfigError("another administrator has to take this from you")
    if data.password:
        check_new_password(data.password)
    engine = engine_of(request)
    entry = {"email": email, **msgspec.to_builtins(data)}
    await apply_site(engine, {"user": [entry]}, actor=me.person.email)


@post("/api/users/{email:str}/{action:str}", status_code=204)
async def api_act_on_user(
    request: Ask,
    email: FromPath[str],
    action: FromPath[Literal["disable", "enable", "end-sessions", "reset-second-factor"]],
) -> None:
    """Let a person in no more or again, end their sessions, take a lost second factor away."""
    me = await _admin(request)
    ledger, email = engine_of(request).ledger, email.lower()
    if not await ledger.fetch("SELECT id FROM user_account WHERE email = ?", email):
        raise NotFoundException("nobody has this address")
    if action == "disable" and email == me.person.email:
        raise ConfigError("another administrator has to take this from you")
    if action in {"disable", "enable"}:
        await set_disabled(ledger, email, disabled=action == "disable")
    if action == "reset-second-factor":
        await end_totp(ledger, email)
    if action != "enable":
        await end_sessions(ledger, email)
    await audit.append(
        ledger, actor=me.person.email, action=f"user {action}", facts={"person": email}
    )


@get("/api/audit")
async def api_audit(
    request: Ask,
    exam: FromQuery[str] = "",
    actor: FromQuery[str] = "",
    action: FromQuery[str] = "",
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
    before: Annotated[int | None, QueryParameter(ge=1, le=2**53)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> Audit:
    """Who did what, of the caller's facilities, the newest first.

    From `since` until before `until`; a time without a zone is in UTC.
    """
    me = await signed_in(request)
    me.require("auditor", "coordinator")
    rows = await audit_entries(
        engine_of(request).ledger,
        me.person.facilities,
        Wanted(
            exam=exam.replace("-", "").upper(),
            actor=actor,
            action=action,
            since=in_utc(since),
            until=in_utc(until),
            before=before,
        ),
        limit=limit,
    )
    return Audit(
        entries=[
            AuditView(
                id=row["id"],
                at=row["at"],
                actor=row["actor"],
                action=row["action"],
                facility=row["facility"],
                exam=row["exam"],
                facts=msgspec.json.decode(row["facts"]),
                hash=row["hash"],
            )
            for row in rows
        ]
    )


@get("/api/audit/verify")
async def api_verify(request: Ask) -> Intact:
    """Check the whole chain of hashes."""
    me = await signed_in(request)
    me.require("auditor")
    broken = await audit.verify(engine_of(request).ledger)
    return Intact(intact=broken is None, first_broken=broken)


HANDLERS = [
    api_users,
    api_save_user,
    api_act_on_user,
    api_audit,
    api_verify,
]
