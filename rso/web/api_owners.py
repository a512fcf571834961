"""Who looks after an exam, as JSON: claim, let go, give."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from litestar import Request, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from rso.engine.exams import find_exam
from rso.engine.owners import assignable, owner_of
from rso.web.auth import engine_of, signed_in
from rso.web.owners import change_hands

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class PossibleOwner(Struct, frozen=True, kw_only=True):
    """Somebody who may look after the exam."""

    email: str
    name: str


class Ownership(Struct, frozen=True, kw_only=True):
    """Who looks after an exam (empty: nobody does), and who could."""

    owner: str
    assignable: list[PossibleOwner]


class Handover(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To whom an exam is given; not asked for a claim or a release."""

    to: Annotated[str, Meta(max_length=254)] = ""


async def _shown(request: Ask, number: str, facilities: Sequence[str] | None) -> Ownership:
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=facilities)
    return Ownership(
        owner=await owner_of(ledger, exam),
        assignable=[PossibleOwner(**person) for person in await assignable(ledger, exam.facility)],
    )


@get("/api/exams/{number:str}/owner")
async def api_owner(request: Ask, number: FromPath[str]) -> Ownership:
    """Who looks after an exam."""
    me = await signed_in(request)
    return await _shown(request, number, me.person.facilities)


@post("/api/exams/{number:str}/owner/{action:str}", status_code=200)
async def api_change_owner(
    request: Ask,
    number: FromPath[str],
    action: FromPath[Literal["claim", "release", "give"]],
    data: JSONBody[Handover],
) -> Ownership:
    """Claim an exam that nobody has, let it go, or, as a coordinator, give it to somebody."""
    me = await signed_in(request)
    me.require("technician", "coordinator")
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    await change_hands(engine, exam, me.person, action, data.to)
    return await _shown(request, number, me.person.facilities)


HANDLERS = [api_owner, api_change_owner]
