"""Refusals: who was not let in lately and why, and the bans that stand."""

from typing import Any

from litestar import Request, get, post
from litestar.response import Redirect, Template

from rso.engine.check_port import clear_bans, standing_bans
from rso.ledger import audit
from rso.ledger.refusals import recent_refusals
from rso.web.auth import checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


@get("/refusals")
async def refusals_page(request: Ask) -> Template:
    """The last day's refusals that concern one's facilities; all of them for who sees all."""
    me = await signed_in(request)
    me.require("coordinator", "auditor")
    engine = engine_of(request)
    found = await recent_refusals(engine.ledger, me.person.facilities)
    # A ban has no facility: it is shown to those who see strangers too.
    bans = standing_bans(engine) if me.person.facilities is None else []
    return page(request, "refusals.html", me, refusals=found, bans=bans)


@post("/refusals/clear", status_code=303)
async def lift_bans(request: Ask) -> Redirect:
    """Lift the bans of an address."""
    me = await signed_in(request)
    me.require()
    address = (await checked_form(request)).get("address", "")
    engine = engine_of(request)
    if address and clear_bans(engine, address):
        facts = {"address": address}
        await audit.append(engine.ledger, actor=me.person.email, action="bans lifted", facts=facts)
    return Redirect("/refusals", status_code=303)


HANDLERS = [refusals_page, lift_bans]
