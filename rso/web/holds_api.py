"""Holds as JSON: show, release, make an exam of one, reject, recall."""

from typing import Annotated, Any, Literal

from litestar import Request, Response, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct, structs

from rso.engine.holds import create_from_hold, recall_hold, reject_hold, release_hold, show_hold
from rso.engine.recall_notice import told_of_recall
from rso.web.auth import engine_of, signed_in
from rso.web.seen import hold_seen

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class Ruling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person decides of a hold, and why.

    Attributes:
        exam: The exam's number, for a release.
        identity: Whose identity is right where they differ, for a release.
    """

    reason: Annotated[str, Meta(min_length=1, max_length=2000)]
    exam: Annotated[str, Meta(max_length=32)] = ""
    identity: Literal["exam", "images"] = "exam"


@get("/api/holds/{hold_id:str}")
async def api_hold(request: Ask, hold_id: FromPath[str]) -> dict[str, Any]:
    """One hold with the evidence of the decision."""
    me = await signed_in(request)
    hold = await show_hold(engine_of(request).ledger, hold_id, facilities=me.person.facilities)
    await hold_seen(request, me, hold, "evidence")
    return structs.asdict(hold)


@post("/api/holds/{hold_id:str}/{action:str}", status_code=200)
async def api_decide(
    request: Ask, hold_id: FromPath[str], action: FromPath[str], data: JSONBody[Ruling]
) -> Response[dict[str, Any]]:
    """Decide; 202 when a second person must release it too."""
    me = await signed_in(request)
    me.require("coordinator")
    engine = engine_of(request)
    asked: dict[str, Any] = {
        "reason": data.reason,
        "actor": me.person.email,
        "facilities": me.person.facilities,
    }
    said: dict[str, Any] = {"id": hold_id}
    if action == "release":
        done = await release_hold(engine, hold_id, data.exam, identity=data.identity, **asked)
        said["state"] = "released" if done else "waits for a second person"
        return Response(said, status_code=200 if done else 202)
    if action == "create":
        exam = await create_from_hold(engine, hold_id, **asked)
        said |= {"state": "created", "exam_number": exam.number}
    elif action == "reject":
        await reject_hold(engine, hold_id, **asked)
        said["state"] = "rejected"
    elif action == "recall":
        said |= {"state": "recalled", "sent": await recall_hold(engine, hold_id, **asked)}
        hold = await show_hold(engine.ledger, hold_id, facilities=me.person.facilities)
        said["told"] = await told_of_recall(engine.ledger, hold)
    else:
        raise NotFoundException("no such action")
    return Response(said)


HANDLERS = [api_hold, api_decide]
