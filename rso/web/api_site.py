"""Destinations, facilities, the site document, plugins and retention as JSON."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post, put
from litestar.exceptions import PermissionDeniedException
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from rso.core.transport import Health
from rso.engine.delivery_control import check_destination, pause_destination, retry_destination
from rso.engine.destinations import DestinationView, view_destinations
from rso.engine.purge import Purge, plan_purge, purge
from rso.engine.site import apply_site, plan_site
from rso.ledger.lists import facilities_of
from rso.ledger.site_document import SiteDocument
from rso.ledger.site_export import export_site
from rso.ledger.site_preview import SitePreview
from rso.plugins import PluginInfo
from rso.web.auth import Identity, engine_of, signed_in

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class Destinations(Struct, frozen=True, kw_only=True):
    """Destinations that read for the caller's facilities."""

    destinations: list[DestinationView]


class Facility(Struct, frozen=True, kw_only=True):
    """A facility in a list."""

    code: str
    name: str


class Facilities(Struct, frozen=True, kw_only=True):
    """The caller's facilities."""

    facilities: list[Facility]


class PluginList(Struct, frozen=True, kw_only=True):
    """What is installed."""

    plugins: list[PluginInfo]


class Started(Struct, frozen=True, kw_only=True):
    """How many instances go on."""

    instances: int


class Confirmed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images leave for good: say how many exams ``GET /api/purge`` named."""

    exams: Annotated[int, Meta(ge=0)]


async def _coordinator(request: Ask, *more: str) -> Identity:
    me = await signed_in(request)
    me.require("coordinator", *more)
    return me


async def _admin(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require()
    if me.person.facilities is not None:
        raise PermissionDeniedException("this is for whoever sees the whole site")
    return me


@get("/api/destinations")
async def api_destinations(request: Ask) -> Destinations:
    """Queue, rate, breaker and failures of each destination."""
    me = await _coordinator(request, "auditor")
    ledger = engine_of(request).ledger
    return Destinations(
        destinations=await view_destinations(ledger, facilities=me.person.facilities)
    )


@post("/api/destinations/{code:str}/{action:str}", status_code=200)
async def api_destination(
    request: Ask, code: FromPath[str], action: FromPath[Literal["pause", "resume", "retry"]]
) -> Started:
    """Pause a destination, let it go on, or try again what stopped there."""
    me = await _coordinator(request)
    engine, whose, actor = engine_of(request), me.person.facilities, me.person.email
    if action == "retry":
        count = await retry_destination(engine, code, actor=actor, facilities=whose)
        return Started(instances=count)
    await pause_destination(engine, code, paused=action == "pause", actor=actor, facilities=whose)
    return Started(instances=0)


@post("/api/destinations/{code:str}/test", status_code=200)
async def api_test(request: Ask, code: FromPath[str]) -> Health:
    """Ask a destination whether it is there (C-ECHO)."""
    me = await _coordinator(request)
    found = await check_destination(engine_of(request), code, facilities=me.person.facilities)
    return Health(ok=found.ok, detail=found.detail)


@get("/api/facilities")
async def api_facilities(request: Ask) -> Facilities:
    """The facilities that the caller may act for."""
    me = await signed_in(request)
    rows = await facilities_of(engine_of(request).ledger, me.person.facilities)
    return Facilities(facilities=[Facility(code=r["code"], name=r["name"]) for r in rows])


@get("/api/site")
async def api_site(request: Ask) -> SiteDocument:
    """Everything that is set up, as site.toml has it; hashes instead of passwords."""
    await _admin(request)
    return msgspec.convert(await export_site(engine_of(request).ledger), SiteDocument)


@put("/api/site")
async def api_load_site(
    request: Ask, data: JSONBody[SiteDocument], dry_run: FromQuery[bool] = False
) -> SitePreview:
    """Add and change what the document names; with ``dry_run`` only say what would change."""
    me = await _admin(request)
    engine = engine_of(request)
    document = msgspec.to_builtins(data)
    preview = await plan_site(engine, document)
    if not dry_run:
        await apply_site(engine, document, actor=me.person.email)
    return preview


@get("/api/plugins")
async def api_plugins(request: Ask) -> PluginList:
    """Installed plugins with their state, and what is wrong with those that failed."""
    await _admin(request)
    return PluginList(plugins=engine_of(request).plugins.describe())


@get("/api/purge")
async def api_plan_purge(request: Ask) -> Purge:
    """Whose images may leave the archive now."""
    await _admin(request)
    return await plan_purge(engine_of(request))


@post("/api/purge", status_code=200)
async def api_purge(request: Ask, data: JSONBody[Confirmed]) -> Purge:
    """Let them go; nothing goes when it is another number of exams by now."""
    me = await _admin(request)
    engine = engine_of(request)
    plan = await plan_purge(engine)
    if len(plan.exams) != data.exams:
        return plan
    return await purge(engine, actor=me.person.email)


HANDLERS = [
    api_destinations,
    api_destination,
    api_test,
    api_facilities,
    api_site,
    api_load_site,
    api_plugins,
    api_plan_purge,
    api_purge,
]
