"""How the site stands, as JSON: the dashboard's figures, refusals and bans, where an exam goes."""

from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import Request, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec import Meta, Struct

from rso.core.exam import Priority
from rso.engine.check_port import StandingBan, clear_bans, standing_bans
from rso.engine.disk import Volume
from rso.engine.explain import explain_route
from rso.ledger import audit
from rso.ledger.exams import now
from rso.ledger.lists import facilities_of
from rso.ledger.refusals import Refused, recent_refusals
from rso.web.auth import engine_of, signed_in
from rso.web.dashboard import figures_of
from rso.web.typed import in_utc

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class OpenHolds(Struct, frozen=True, kw_only=True):
    """What waits for a decision, and since when the oldest does."""

    count: int
    alarms: int
    oldest: datetime | None


class HourView(Struct, frozen=True, kw_only=True):
    """Images received and exams delivered in the hour that begins at ``at``."""

    at: datetime
    received: int
    delivered: int


class TurnaroundView(Struct, frozen=True, kw_only=True):
    """From request to last delivery, of the exams of one priority.

    Attributes:
        half_minutes: The median.
        most_minutes: The 90th percentile.
        target_minutes: The shortest, where facilities differ.
        on_target: In percent.
    """

    priority: str
    exams: int
    half_minutes: float
    most_minutes: float
    target_minutes: float
    on_target: int


_TIMES = [name for name in TurnaroundView.__struct_fields__ if name != "on_target"]


class QueueView(Struct, frozen=True, kw_only=True):
    """A destination's queue; ``waiting`` where it is not tried for now."""

    code: str
    paused: bool
    waiting: bool
    failures: int
    pending: int
    stopped: int
    last_success_at: datetime | None


class SourceView(Struct, frozen=True, kw_only=True):
    """A source and when its last image came; ``silent`` for a day or longer."""

    facility: str
    channel: str
    identity: str
    kind: str
    last_instance_at: datetime | None
    silent: bool


class Figures(Struct, frozen=True, kw_only=True):
    """The dashboard's figures of the caller's facilities, at most a few seconds old.

    Attributes:
        states: Active exams by status.
        spool_bytes: What is on its way into the archive, with the space laid out for it.
    """

    at: datetime
    hours: int
    states: dict[str, int]
    overdue: int
    holds: OpenHolds
    flow: list[HourView]
    turnaround: list[TurnaroundView]
    destinations: list[QueueView]
    sources: list[SourceView]
    volumes: list[Volume]
    spool_bytes: int


class Refusals(Struct, frozen=True, kw_only=True):
    """Who was not let in during the last day, and the bans that stand.

    Bans are shown to those who see the whole site: they belong to no facility.
    """

    refusals: list[Refused]
    bans: list[StandingBan]


class BannedAddress(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address, or a network, as ``GET /api/refusals`` names it."""

    address: Annotated[str, Meta(min_length=1, max_length=100)]


class Lifted(Struct, frozen=True, kw_only=True):
    """How many bans were lifted."""

    bans: int


class RouteDestination(Struct, frozen=True, kw_only=True):
    """Where a radiologist receives images."""

    code: str
    radiologist: str
    sender: str


class RouteView(Struct, frozen=True, kw_only=True):
    """Where an exam like this goes; it is held where there is no destination.

    Attributes:
        because: Why each radiologist was taken or passed over.
        decided_by: A plugin; empty: RSO's own rule.
        problem: Why it is not known.
    """

    destinations: list[RouteDestination]
    because: list[str]
    decided_by: str
    problem: str


@get("/api/figures")
async def api_figures(request: Ask, hours: FromQuery[Literal[24, 48]] = 24) -> Figures:
    """The dashboard, of the last 24 or 48 hours."""
    me = await signed_in(request)
    me.require("coordinator")
    found = await figures_of(request, me, hours)
    own = {
        "holds": OpenHolds(**found["holds"]),
        "flow": [HourView(**row) for row in found["flow"]],
        "turnaround": [
            TurnaroundView(on_target=row["kept"], **{name: row[name] for name in _TIMES})
            for row in found["turnaround"]
        ],
        "destinations": [_queue(row) for row in found["destinations"]],
        "sources": [
            SourceView(**{name: row[name] for name in SourceView.__struct_fields__})
            for row in found["sources"]
        ],
        "spool_bytes": found["spool"],
    }
    return Figures(
        **own, **{name: found[name] for name in Figures.__struct_fields__ if name not in own}
    )


def _queue(row: dict[str, Any]) -> QueueView:
    return QueueView(
        code=row["code"],
        paused=bool(row["paused"]),
        waiting=row["open"],
        failures=row["failures"],
        pending=row["pending"],
        stopped=row["stopped"],
        last_success_at=row["last_success_at"],
    )


@get("/api/refusals")
async def api_refusals(request: Ask) -> Refusals:
    """The last day's refusals that concern one's facilities, and why; all for who sees all."""
    me = await signed_in(request)
    me.require("coordinator", "auditor")
    engine, whose = engine_of(request), me.person.facilities
    return Refusals(
        refusals=await recent_refusals(engine.ledger, whose),
        bans=standing_bans(engine) if whose is None else [],
    )


@post("/api/bans/lift", status_code=200)
async def api_lift_bans(request: Ask, data: JSONBody[BannedAddress]) -> Lifted:
    """Lift the bans of an address."""
    me = await signed_in(request)
    me.require()
    engine = engine_of(request)
    count = clear_bans(engine, data.address)
    if not count:
        raise NotFoundException("no ban of this address stands")
    facts = {"address": data.address}
    await audit.append(engine.ledger, actor=me.person.email, action="bans lifted", facts=facts)
    return Lifted(bans=count)


@get("/api/route")
async def api_route(
    request: Ask,
    facility: FromQuery[str],
    modality: Annotated[str, QueryParameter(max_length=16)] = "",
    priority: FromQuery[Priority] = Priority.ROUTINE,
    at: FromQuery[datetime | None] = None,
) -> RouteView:
    """Where an exam like this goes, and why.

    A time other than the present counts for RSO's own rule only; one without a zone is in UTC.
    """
    me = await signed_in(request)
    me.require()
    engine = engine_of(request)
    known = await facilities_of(engine.ledger, me.person.facilities)
    if facility not in {row["code"] for row in known}:
        raise NotFoundException("no facility has this code")
    found = await explain_route(
        engine, facility=facility, modality=modality, priority=priority, at=in_utc(at) or now()
    )
    route = found.route
    return RouteView(
        destinations=[
            RouteDestination(code=d.code, radiologist=d.radiologist, sender=d.sender)
            for d in (route.destinations if route else ())
        ],
        because=list(route.because) if route else [],
        decided_by=found.decided,
        problem=found.problem,
    )


HANDLERS = [api_figures, api_refusals, api_lift_bans, api_route]
