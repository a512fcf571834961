"""Rebuilding the ledger's index of instances from the archive's files alone.

Each file's meta carries where it came from, so batches, Studies and instances come back; matches
are decided anew. What people typed (exams, users) is not in the files: that is the backup's.
"""

import asyncio
import mmap
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from rso.core.errors import IntakeError
from rso.dicom.header import scan_header
from rso.dicom.part10 import read_file_meta
from rso.engine.context import Engine
from rso.engine.intake import take_records
from rso.engine.spool_reader import InstanceRecord
from rso.engine.spool_segment import StoredProvenance
from rso.ledger.exams import now

__all__ = ["read_archived", "reindex"]

log = structlog.get_logger(__name__)

_GROUP = 200


def read_archived(record_id: str, path: Path) -> InstanceRecord:
    """What a spool record of this archive file was.

    Raises:
        IntakeError: The file is not one of RSO's, or is damaged.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
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


async def reindex(engine: Engine, progress: Callable[[int], None] = lambda _: None) -> int:
    """Bring back every instance that the ledger does not know; returns how many files were read.

    Files that the ledger knows are left as they are, so this may run at any time.
    """
    read, group = 0, []
    for record_id, path in engine.archive.walk():
        try:
            group.append(await asyncio.to_thread(read_archived, record_id, path))
        except (IntakeError, msgspec.DecodeError, ValueError) as exc:
            log.warning("archive file left out", record=record_id, reason=type(exc).__name__)
            continue
        read += 1
        if len(group) >= _GROUP:
            await take_records(engine, group, discard=False)
            group = []
            progress(read)
    await take_records(engine, group, discard=False)
    progress(read)
    return read
