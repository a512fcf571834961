"""Set aside: what was acknowledged and the ledger refuses to hold, so that nothing waits behind it.

The bytes are in the archive, and say in their file meta where they came from. A note in the folder
``set-aside`` stands for the row that they have not; ``rso check``, ``/metrics`` and the audit tell
people of it. ``rso reindex`` tries again, and takes the note away.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from blake3 import blake3
from msgspec import Struct

from rso.core.transport import Provenance
from rso.engine.context import Engine
from rso.engine.intake import store_records, take_records
from rso.engine.spool_files import sync_folder
from rso.engine.spool_reader import Alert, InstanceRecord, Record
from rso.ledger import LedgerValueError, audit
from rso.ledger.exams import now

__all__ = ["Note", "Taken", "forget", "note_names", "take_in"]

log = structlog.get_logger(__name__)


class Note(Struct, frozen=True, kw_only=True):
    """Why no row names an instance of the archive, or what an alert said.

    Attributes:
        reason: What the database called it; never the value, which may name a patient.
        provenance: Where an instance came from.
        alert: The alert, where it is one.
    """

    at: datetime
    reason: str
    provenance: Provenance | None = None
    alert: Alert | None = None


class Taken(NamedTuple):
    """How many instances were new, and the names of the notes of what was set aside."""

    new: int
    aside: frozenset[str] = frozenset()


async def take_in(engine: Engine, records: Sequence[Record], *, discard: bool = True) -> Taken:
    """Take records in, but set aside those that hold a value which the database refuses.

    When it returns, all of them may be released after the archive's next ``sync``; see
    ``take_records``.

    Raises:
        OSError: A note could not be made durable; nothing may be released.
    """
    try:
        return Taken(await take_records(engine, records, discard=discard))
    except LedgerValueError as exc:
        if len(records) == 1:
            return Taken(
                0, await _set_aside(engine, records[0], type(exc.__cause__ or exc).__name__)
            )
    # Nothing of the group was committed. Halves find the few that are refused in few steps.
    half = len(records) // 2
    first = await take_in(engine, records[:half], discard=discard)
    second = await take_in(engine, records[half:], discard=discard)
    return Taken(first.new + second.new, first.aside | second.aside)


async def _set_aside(engine: Engine, record: Record, reason: str) -> frozenset[str]:
    note = Note(at=now(), reason=reason)
    if isinstance(record, InstanceRecord):
        name, facility = record.record_id, record.provenance.facility
        note = msgspec.structs.replace(note, provenance=record.provenance)
        facts = {"record": name, "reason": reason}
        if record.path is None or record.path.exists():  # else it was moved before
            await asyncio.to_thread(store_records, engine, [record])
    elif isinstance(record, Alert):
        name, facility = blake3(msgspec.json.encode(record)).hexdigest(length=16), ""
        note = msgspec.structs.replace(note, alert=record)
        facts = {"note": name, "reason": reason}
    else:
        # A batch's instances say themselves where they came from.
        log.warning("a batch is not in the ledger", batch=record.batch_id, reason=reason)
        return frozenset()
    path = _folder(engine.settings.data_dir) / f"{name}.json"
    if not path.exists():
        log.error("the database refuses it, so it is set aside", name=name, reason=reason)
        with contextlib.suppress(LedgerValueError):
            await audit.append(
                engine.ledger, actor="intake", action="set aside", facility=facility, facts=facts
            )
        await asyncio.to_thread(_write, path, note)
    return frozenset({name})


def _folder(data_dir: Path) -> Path:
    return data_dir / "set-aside"


def _write(path: Path, note: Note) -> None:
    """Durable when it returns."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        sync_folder(path.parent.parent)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def note_names(data_dir: Path) -> list[str]:
    """The names of all notes: an instance's is its record's id.

    Raises:
        OSError: The folder cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(_folder(data_dir)) as found:
        return sorted(Path(entry.name).stem for entry in found if entry.name.endswith(".json"))
    return []


def forget(data_dir: Path, names: Iterable[str]) -> None:
    """Take away the notes of what the ledger has by now, if there are any."""
    for name in set(names) & set(note_names(data_dir)):
        (_folder(data_dir) / f"{name}.json").unlink(missing_ok=True)
