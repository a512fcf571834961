"""``rso check``: is everything that RSO leans on there, and does it answer?"""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from rso.core.errors import RsoError
from rso.core.routing import Destination
from rso.engine.check_notify import check_notify
from rso.engine.check_port import Check, check_port
from rso.engine.context import Engine
from rso.engine.dispatch import make_sender
from rso.engine.faults import StandingFault, standing_faults
from rso.engine.set_aside import note_names
from rso.engine.spool_files import Space

__all__ = ["Check", "run_checks", "test_destination"]


async def run_checks(engine: Engine) -> list[Check]:
    """Look at everything; never raises for what it finds."""
    checks = [Check(name="configuration", ok=True, detail=str(engine.settings.path))]
    await engine.ledger.fetch("SELECT 1 AS one")
    checks.append(Check(name="database", ok=True, detail=engine.ledger.kind))
    checks += [_folder("data", engine.settings.data_dir)]
    checks += [_folder("archive", engine.settings.archive_dir)]
    checks += _faults(engine.settings.data_dir)
    checks += _set_aside(engine.settings.data_dir)
    for info in engine.plugins.describe():
        checks.append(
            Check(
                name=f"plugin {info.name}",
                ok=info.state != "failed",
                detail=info.error or info.state,
            )
        )
    for row in await engine.ledger.fetch("SELECT * FROM destination ORDER BY code"):
        checks.append(await asyncio.to_thread(_destination, engine, row))
    return [*checks, *await check_notify(engine), *await check_port(engine)]


async def test_destination(engine: Engine, code: str) -> Check:
    """Ask one destination whether it is there."""
    rows = await engine.ledger.fetch("SELECT * FROM destination WHERE code = ?", code)
    if not rows:
        return Check(name=f"destination {code}", ok=False, detail="no such destination")
    return await asyncio.to_thread(_destination, engine, rows[0])


def _folder(name: str, path: Any) -> Check:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = path / ".probe"
        probe.write_bytes(b"x")
        probe.unlink()
        space = Space(path)
        seen = path.stat().st_mode & 0o007
    except OSError as exc:
        return Check(name=f"folder {name}", ok=False, detail=f"{path}: {exc.strerror}")
    free = space.free()
    detail = f"{path}: {free >> 20} MB free"
    if seen:
        detail += "; every account of this machine may look in: chmod 700"
    return Check(
        name=f"folder {name}", ok=free > space.low_water, detail=detail, warning=bool(seen)
    )


def _faults(data_dir: Path) -> list[Check]:
    """What the running processes do not trust any more."""
    try:
        standing = standing_faults(data_dir)
    except OSError as exc:
        return [Check(name="faults", ok=False, detail=f"{data_dir / 'faults'}: {exc.strerror}")]
    return [
        Check(
            name=f"fault of {fault.where}", ok=False, detail=f"{fault} ({_help(fault, data_dir)})"
        )
        for fault in standing
    ]


def _set_aside(data_dir: Path) -> list[Check]:
    """What was acknowledged and has no row."""
    try:
        count = len(note_names(data_dir))
    except OSError as exc:
        return [Check(name="set aside", ok=False, detail=f"{data_dir}: {exc.strerror}")]
    told = f"{count} that the database refuses: notes in {data_dir / 'set-aside'}, images in the"
    told += " archive; no exam has them. An upgrade may help: rso reindex tries again"
    return [Check(name="set aside", ok=False, detail=told)] if count else []


def _help(fault: StandingFault, data_dir: Path) -> str:
    if fault.where == "intake":
        return "what was received waits in the spool; it goes on by itself when this is mended"
    if fault.where == "sources":
        return f"in {data_dir / 'snapshot'}; receivers know the sources as they were until then"
    return f"below {data_dir}; look at the volume and the log, then start RSO again"


def _destination(engine: Engine, row: dict[str, Any]) -> Check:
    name = f"destination {row['code']}"
    try:
        sender = make_sender(
            engine,
            Destination(
                code=row["code"],
                radiologist=row["radiologist"],
                sender=row["sender"],
                options=msgspec.json.decode(row["options"]),
            ),
        )
    except RsoError as exc:
        return Check(name=name, ok=False, detail=str(exc))
    health = sender.check()
    return Check(name=name, ok=health.ok, detail=health.detail)
