"""Turnaround: how long an exam may take, by priority, and when it is due.

A facility's own targets stand in its settings under ``turnaround``; what it leaves out is the
site's. Each exam carries ``due_at``, so that a list can be ordered by it.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime

import msgspec
import structlog
from msgspec import Struct, structs

from rso.core.exam import Priority
from rso.engine.context import Engine
from rso.settings import Settings, Turnaround

__all__ = ["due_at", "renew_due", "run_turnaround", "targets_from", "turnaround_of"]

log = structlog.get_logger(__name__)

_TURN_SECONDS = 5.0
_CHUNK = 2000


class _Own(Struct, frozen=True, kw_only=True):
    stat_minutes: int | None = None
    urgent_minutes: int | None = None
    routine_minutes: int | None = None


class _FacilitySettings(Struct, frozen=True, kw_only=True):
    turnaround: _Own = _Own()


def targets_from(settings: Settings, facility_settings: str) -> Turnaround:
    """A facility's targets, from its settings as the ledger keeps them (JSON, may be empty)."""
    own = msgspec.json.decode(facility_settings or "{}", type=_FacilitySettings).turnaround
    given = {name: value for name, value in structs.asdict(own).items() if value is not None}
    return structs.replace(settings.turnaround, **given)


async def turnaround_of(engine: Engine, facility: str) -> Turnaround:
    """The targets in force at a facility; an unknown one has the site's."""
    rows = await engine.ledger.fetch("SELECT settings FROM facility WHERE code = ?", facility)
    return targets_from(engine.settings, rows[0]["settings"] if rows else "")


async def due_at(
    engine: Engine, facility: str, priority: Priority, created_at: datetime
) -> datetime:
    """When an exam that was made at ``created_at`` should be delivered."""
    targets = await turnaround_of(engine, facility)
    return created_at + targets.time(priority.rank)


async def renew_due(engine: Engine, facility: str) -> int:
    """Write ``due_at`` of a facility's open exams by its targets; returns how many changed."""
    targets = await turnaround_of(engine, facility)
    changed, after = 0, ""
    while True:
        rows = await engine.ledger.fetch(
            "SELECT id, number, priority, created_at, due_at FROM exam WHERE facility = ?"
            " AND status IN ('requested', 'receiving', 'settled') AND number > ?"
            " ORDER BY number LIMIT ?",
            facility,
            after,
            _CHUNK,
        )
        due = [row["created_at"] + targets.time(row["priority"]) for row in rows]
        wrong = [(at, r["id"]) for r, at in zip(rows, due, strict=True) if r["due_at"] != at]
        await engine.ledger.execute_many("UPDATE exam SET due_at = ? WHERE id = ?", wrong)
        changed += len(wrong)
        if len(rows) < _CHUNK:
            return changed
        after = rows[-1]["number"]


async def run_turnaround(engine: Engine, stop: asyncio.Event) -> None:
    """Renew what is due whenever a facility's targets have changed, until ``stop`` is set."""
    known: Mapping[str, Turnaround] = {}
    while not stop.is_set():
        rows = await engine.ledger.fetch("SELECT code, settings FROM facility")
        found = {row["code"]: targets_from(engine.settings, row["settings"]) for row in rows}
        for facility, targets in found.items():
            if known.get(facility) != targets and (changed := await renew_due(engine, facility)):
                log.info("turnaround targets changed", facility=facility, exams=changed)
        known = found
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _TURN_SECONDS)
