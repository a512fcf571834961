"""Rebuilding the ledger's index of instances from the archive's files alone.

Each file's meta carries where it came from, so batches, Studies and instances come back; matches
are decided anew. What people typed (exams, users) is not in the files: that is the backup's. The
other way round, a row whose file is missing is told.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from rso.core.errors import IntakeError
from rso.dicom.header import scan_header
from rso.dicom.mapping import mapped
from rso.dicom.part10 import read_file_meta
from rso.engine.context import Engine
from rso.engine.reconcile import reconcile_all
from rso.engine.set_aside import Taken, forget, take_in
from rso.engine.spool_reader import InstanceRecord
from rso.engine.spool_segment import StoredProvenance
from rso.ledger.exams import now
from rso.ledger.retention import mark_leaving

__all__ = ["Reindexed", "read_archived", "reindex"]

log = structlog.get_logger(__name__)

_GROUP = 200


class Reindexed(Struct, frozen=True, kw_only=True):
    """What a run found.

    Attributes:
        files: Archive files that were read.
        brought_back: Of these, instances that no row named.
        unreadable: Archive files that are not one of RSO's, or damaged.
        missing: Instances of the ledger whose file is gone or cut short; each is in the audit.
        set_aside: Files with a value that the database refuses, as it did before.
    """

    files: int
    brought_back: int
    unreadable: int
    missing: int
    set_aside: int


def read_archived(record_id: str, path: Path) -> InstanceRecord:
    """What a spool record of this archive file was.

    Raises:
        IntakeError, msgspec.DecodeError, OSError: The file is not one of RSO's, or is damaged.
    """
    with mapped(path) as view:
        meta = read_file_meta(view[: 1 << 16])
        stored = msgspec.json.decode(meta.private_information, type=StoredProvenance)
        with view[meta.dataset_offset :] as dataset:
            header = scan_header(dataset, meta.transfer_syntax_uid)
            size = len(dataset)
    return InstanceRecord(
        record_id=record_id,
        batch_id=stored.batch,
        provenance=stored.provenance,
        header=header,
        part10=None,
        path=path,
        dataset_offset=meta.dataset_offset,
        size=size,
        received_at=now(),
    )


async def reindex(engine: Engine, progress: Callable[[int], None] = lambda _: None) -> Reindexed:
    """Bring back every instance that the ledger does not know, and tell those without a file.

    Files that the ledger knows are left as they are, so this may run at any time.
    """
    read, unreadable, group = 0, 0, []
    back = aside = 0
    for record_id, path in engine.archive.walk():
        try:
            group.append(await asyncio.to_thread(read_archived, record_id, path))
        except (IntakeError, msgspec.DecodeError, ValueError, OSError) as exc:
            log.warning("archive file left out", record=record_id, reason=type(exc).__name__)
            unreadable += 1
            continue
        read += 1
        if len(group) >= _GROUP:
            taken = await _bring_back(engine, group)
            back, aside, group = back + taken.new, aside + len(taken.aside), []
            progress(read)
    taken = await _bring_back(engine, group)
    progress(read)
    return Reindexed(
        files=read,
        brought_back=back + taken.new,
        unreadable=unreadable,
        missing=await reconcile_all(engine),
        set_aside=aside + len(taken.aside),
    )


async def _bring_back(engine: Engine, records: Sequence[InstanceRecord]) -> Taken:
    """Take in what no row names; a purged instance's file that came back leaves again."""
    ids = [record.record_id for record in records]
    marks = ",".join("?" * len(ids)) or "''"
    known = await engine.ledger.fetch(
        f"SELECT id, purged_at FROM instance WHERE id IN ({marks})",  # noqa: S608
        *ids,
    )
    await mark_leaving(engine.ledger, [row["id"] for row in known if row["purged_at"] is not None])
    named = {str(row["id"]) for row in known}
    new = [record for record in records if record.record_id not in named]
    taken = await take_in(engine, new, discard=False)
    await asyncio.to_thread(forget, engine.settings.data_dir, {*ids} - taken.aside)
    return taken
