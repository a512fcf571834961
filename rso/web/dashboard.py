"""The dashboard: how work stands, at one look; for who coordinates."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import quantiles
from typing import Any

from litestar import Request, get
from litestar.params import FromQuery
from litestar.response import Template

from rso.core.exam import Priority
from rso.engine.context import Engine
from rso.engine.disk import spool_bytes, volumes
from rso.engine.turnaround import targets_from
from rso.ledger.active import ACTIVE, count_active
from rso.ledger.exams import now
from rso.ledger.figures import (
    count_overdue,
    delivered_since,
    destination_queues,
    per_hour,
    sources_of,
)
from rso.ledger.holds import open_holds
from rso.settings import Turnaround
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.charts import Series, bars_svg, range_svg
from rso.web.page import page, tiles_for
from rso.web.words import ago_words, span_words

__all__ = ["HANDLERS", "figures_of"]

Ask = Request[Any, Any, Any]
_HOURS = (24, 48)
_KEPT_SECONDS = 5.0
_SILENT = timedelta(days=1)
_MOST_KEPT = 200


@get("/dashboard")
async def dashboard(request: Ask, hours: FromQuery[int] = 24) -> Template:
    """All figures, and the tiles that plugins add."""
    me = await signed_in(request)
    me.require("coordinator")
    return page(
        request, "dashboard.html", me, tiles=tiles_for(request, me),
        **await figures_of(request, me, hours),
    )  # fmt: skip


@get("/dashboard/figures")
async def dashboard_figures(request: Ask, hours: FromQuery[int] = 24) -> Template:
    """The figures alone, as they change."""
    me = await signed_in(request)
    me.require("coordinator")
    return page(request, "dashboard_figures.html", me, **await figures_of(request, me, hours))


async def figures_of(request: Ask, me: Identity, hours: int) -> dict[str, Any]:
    """What the page shows; counted anew every few seconds at most for all who see the same."""
    hours = hours if hours in _HOURS else _HOURS[0]
    kept: dict[Any, tuple[float, dict[str, Any]]] = request.app.state.setdefault("figures", {})
    key = (me.person.facilities, hours)
    found = kept.get(key)
    if found is None or time.monotonic() - found[0] > _KEPT_SECONDS:
        if len(kept) > _MOST_KEPT:
            kept.clear()
        made = await _count(engine_of(request), me.person.facilities, hours)
        found = kept[key] = (time.monotonic(), made)
    return found[1]


async def _count(engine: Engine, facilities: Sequence[str] | None, hours: int) -> dict[str, Any]:
    ledger, at = engine.ledger, now()
    states = dict.fromkeys(ACTIVE, 0)
    for (facility, status), count in (await count_active(ledger)).items():
        if facilities is None or facility in facilities:
            states[status] += count
    rows = await per_hour(ledger, facilities, until=at, hours=hours)
    return {
        "hours": hours,
        "choices": _HOURS,
        "states": states,
        "overdue": await count_overdue(ledger, facilities, at),
        "holds": await open_holds(ledger, facilities),
        "flow": rows,
        "flow_svg": _flow(rows, hours),
        "turnaround": await _turnaround(engine, facilities, at - timedelta(hours=hours)),
        "destinations": [
            {**d, "open": d["open_until"] is not None and d["open_until"] > at}
            for d in await destination_queues(ledger, facilities)
        ],
        "sources": [_source(row, at) for row in await sources_of(ledger, facilities)],
        "volumes": await asyncio.to_thread(volumes, engine.settings),
        "spool": await asyncio.to_thread(spool_bytes, engine.settings),
        "at": at,
    }


def _flow(rows: Sequence[dict[str, Any]], hours: int) -> str:
    images, exams = sum(r["received"] for r in rows), sum(r["delivered"] for r in rows)
    labels = [row["at"].strftime("%H") for row in rows]
    first = bars_svg(
        "received", f"Images received per hour, last {hours} hours",
        f"{images:,} images in all; hours are UTC.", labels,
        [Series(name="received", values=[row["received"] for row in rows])],
    )  # fmt: skip
    second = bars_svg(
        "exams", f"Exams delivered per hour, last {hours} hours",
        f"{exams:,} exams in all; hours are UTC.", labels,
        [Series(name="sent", values=[row["delivered"] for row in rows])],
    )  # fmt: skip
    return first + second


async def _turnaround(
    engine: Engine, facilities: Sequence[str] | None, since: datetime
) -> list[dict[str, Any]]:
    """Median and 90th percentile by priority, and how many kept their facility's target."""
    rows = await delivered_since(engine.ledger, facilities, since)
    stored = await engine.ledger.fetch("SELECT code, settings FROM facility")
    targets = {row["code"]: targets_from(engine.settings, row["settings"]) for row in stored}
    shown = []
    for priority in Priority:
        rank = priority.rank
        own = [row for row in rows if row["priority"] == rank]
        if own:
            shown.append(_percentiles(priority, own, targets, engine.settings.turnaround))
    return shown


def _percentiles(
    priority: Priority,
    rows: Sequence[dict[str, Any]],
    targets: dict[str, Turnaround],
    default: Turnaround,
) -> dict[str, Any]:
    spent = [(r["delivered_at"] - r["created_at"]).total_seconds() / 60 for r in rows]
    allowed = [targets.get(r["facility"], default).minutes(priority.rank) for r in rows]
    kept = sum(a <= b for a, b in zip(spent, allowed, strict=True))
    tenths = quantiles(spent, n=10, method="inclusive") if len(spent) > 1 else [spent[0]] * 9
    half, most, target = tenths[4], tenths[8], min(allowed)
    words = f"Half within {span_words(half)}, 90 % within {span_words(most)}."
    return {
        "priority": priority.value,
        "exams": len(rows),
        "half": span_words(half),
        "most": span_words(most),
        "target": span_words(target),
        "late": most > target,
        "half_minutes": half,
        "most_minutes": most,
        "target_minutes": target,
        "kept": round(100 * kept / len(rows)),
        "svg": range_svg(
            f"turnaround-{priority.value}", f"Turnaround of {priority.value} exams", words,
            half=half, most=most, target=target,
        ),
    }  # fmt: skip


def _source(row: dict[str, Any], at: datetime) -> dict[str, Any]:
    last = row["last_instance_at"]
    return {
        **row,
        "ago": ago_words(at - last) if last else "never",
        "silent": last is None or at - last > _SILENT,
    }


HANDLERS = [dashboard, dashboard_figures]
