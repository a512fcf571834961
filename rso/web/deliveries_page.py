"""Deliveries: every destination live, and what a person does about it."""

from typing import Any

from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect, Template

from rso.engine.delivery_control import check_destination, pause_destination, retry_destination
from rso.engine.destinations import view_destinations
from rso.ledger.exams import now
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


async def _show(request: Ask, template: str) -> Template:
    me = await signed_in(request)
    me.require("coordinator", "auditor")
    found = await view_destinations(engine_of(request).ledger, facilities=me.person.facilities)
    return page(request, template, me, destinations=found, at=now())


@get("/deliveries")
async def delivery_page(request: Ask) -> Template:
    """Every destination: what waits, what goes, what fails and why."""
    return await _show(request, "deliveries.html")


@get("/deliveries/rows")
async def delivery_rows(request: Ask) -> Template:
    """The destinations alone, as they change."""
    return await _show(request, "deliveries_rows.html")


async def _coordinator(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require("coordinator")
    return me


@post("/deliveries/{code:str}", status_code=303)
async def act(request: Ask, code: FromPath[str]) -> Redirect:
    """Pause a destination, let it go on, or try all again."""
    me = await _coordinator(request)
    form = await checked_form(request)
    engine, whose = engine_of(request), me.person.facilities
    action, actor = form.get("do", ""), me.person.email
    if action in {"pause", "resume"}:
        await pause_destination(
            engine, code, paused=action == "pause", actor=actor, facilities=whose
        )
    elif action == "retry":
        await retry_destination(engine, code, actor=actor, facilities=whose)
    else:
        raise NotFoundException("no such action")
    return Redirect("/deliveries", status_code=303)


@post("/deliveries/{code:str}/test", status_code=200)
async def test(request: Ask, code: FromPath[str]) -> Template:
    """Ask a destination whether it is there, and say so beside its button."""
    me = await _coordinator(request)
    await checked_form(request)
    found = await check_destination(engine_of(request), code, facilities=me.person.facilities)
    return page(request, "deliveries_test.html", me, found=found)


HANDLERS = [delivery_page, delivery_rows, act, test]
