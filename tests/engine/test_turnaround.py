"""Turnaround targets: the facility's own, the site's for the rest, and what is due by them."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rso.core.exam import Exam, Patient, Priority
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam
from rso.engine.turnaround import renew_due, run_turnaround, turnaround_of
from rso.ledger import Ledger
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """Two facilities; the site's STAT target is 30 minutes."""
    file = tmp_path / "rso.toml"
    file.write_text("[turnaround]\nstat_minutes = 30\n")
    settings = load_settings(file)
    await load_site(ledger, {"facility": [{"code": "NORTH"}, {"code": "SOUTH"}]})
    return Engine(
        ledger=ledger,
        plugins=load_plugins(settings),
        settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )


async def set_targets(engine: Engine, text: str) -> None:
    """Write NORTH's settings."""
    await engine.ledger.execute("UPDATE facility SET settings = ? WHERE code = 'NORTH'", text)


async def minutes(engine: Engine, exam: Exam) -> float:
    """How long the exam has, as it stands in the ledger."""
    rows = await engine.ledger.fetch("SELECT due_at, created_at FROM exam WHERE id = ?", exam.id)
    left: timedelta = rows[0]["due_at"] - rows[0]["created_at"]
    return left.total_seconds() / 60


async def stat(engine: Engine, facility: str, **more: Any) -> Exam:
    """A STAT exam."""
    return await create_exam(
        engine, facility=facility, patient=Patient(name="DOE^JANE"), priority=Priority.STAT,
        actor="t", **more,
    )  # fmt: skip


async def test_a_facility_says_what_differs(engine: Engine) -> None:
    """Its own minutes count, the site's for what it leaves out."""
    await set_targets(engine, '{"settle_seconds": 3, "turnaround": {"stat_minutes": 15}}')
    targets = await turnaround_of(engine, "NORTH")
    assert (targets.stat_minutes, targets.urgent_minutes) == (15, 240)
    assert (await turnaround_of(engine, "SOUTH")).stat_minutes == 30
    assert (await turnaround_of(engine, "NOWHERE")).stat_minutes == 30
    assert await minutes(engine, await stat(engine, "NORTH")) == 15
    assert await minutes(engine, await stat(engine, "SOUTH")) == 30


async def test_another_priority_is_due_at_another_time(engine: Engine) -> None:
    """An edited priority moves what is due."""
    exam = await stat(engine, "SOUTH")
    await edit_exam(engine, exam, actor="t", priority=Priority.URGENT)
    assert await minutes(engine, exam) == 240


async def test_changed_targets_reach_open_exams(engine: Engine) -> None:
    """The worker sees the change by itself; what is delivered keeps its time."""
    north, south, done = (
        await stat(engine, "NORTH"), await stat(engine, "SOUTH"), await stat(engine, "NORTH")
    )  # fmt: skip
    await engine.ledger.execute("UPDATE exam SET status = 'delivered' WHERE id = ?", done.id)
    stop = asyncio.Event()
    loop = asyncio.create_task(run_turnaround(engine, stop))
    await set_targets(engine, '{"turnaround": {"stat_minutes": 20}}')
    for _ in range(100):
        if await minutes(engine, north) == 20:
            break
        await asyncio.sleep(0.1)
    stop.set()
    await loop
    assert [await minutes(engine, e) for e in (north, south, done)] == [20, 30, 30]
    assert await renew_due(engine, "NORTH") == 0
