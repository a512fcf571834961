"""Do ledger and archive tell the same story? At a start of what came in lately, when asked of all.

Records not yet released are read again from the spool anyway. This looks at the rest: a row whose
file is gone or cut short is told to a person, because its bytes were promised.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog

from rso.engine.context import Engine
from rso.ledger import audit
from rso.ledger.exams import now

__all__ = ["damaged_files", "reconcile", "reconcile_all"]

log = structlog.get_logger(__name__)

_WINDOW = timedelta(hours=1)
_MOST = 20_000
_PAGE = 5_000
_FIRST = "00000000-0000-0000-0000-000000000000"
_COLUMNS = "id, size, dataset_offset, sop_instance_uid, facility"


async def reconcile(engine: Engine) -> int:
    """Check the newest instances against their files; returns how many are damaged."""
    rows = await engine.ledger.fetch(
        f"SELECT {_COLUMNS} FROM instance"  # noqa: S608
        " WHERE received_at > ? AND purged_at IS NULL ORDER BY id DESC LIMIT ?",
        now() - _WINDOW,
        _MOST,
    )
    return await _tell(engine, rows)


async def reconcile_all(engine: Engine) -> int:
    """Check every instance that was not purged; returns how many are damaged."""
    found, last = 0, _FIRST
    while rows := await engine.ledger.fetch(
        f"SELECT {_COLUMNS} FROM instance"  # noqa: S608
        " WHERE id > ? AND purged_at IS NULL ORDER BY id LIMIT ?",
        last,
        _PAGE,
    ):
        found += await _tell(engine, rows)
        last = str(rows[-1]["id"])
    return found


async def _tell(engine: Engine, rows: Sequence[dict[str, Any]]) -> int:
    damaged = await asyncio.to_thread(damaged_files, engine, rows)
    for row in damaged:
        log.error("archive file is missing or cut short", sop_instance_uid=row["sop_instance_uid"])
        await audit.append(
            engine.ledger,
            actor="reconcile",
            action="archive file damaged",
            facility=row["facility"],
            facts={"instance": str(row["id"]), "sop_instance_uid": row["sop_instance_uid"]},
        )
    return len(damaged)


def damaged_files(engine: Engine, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Which rows' files are gone or not as long as they were; blocks on the disk."""
    found = []
    for row in rows:
        try:
            size = engine.archive.path(row["id"]).stat().st_size
        except OSError:
            found.append(row)
            continue
        if size != row["dataset_offset"] + row["size"]:
            found.append(row)
    return found
