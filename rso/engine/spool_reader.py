"""The reading end of the log, in another process: records in order, from a checkpoint on."""

import mmap
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from msgspec import Struct

from rso.core.header import Header
from rso.core.transport import Buffer, Provenance
from rso.dicom.part10 import read_file_meta
from rso.engine.spool_segment import (
    HEAD,
    SEGMENT_HEAD,
    InstanceMeta,
    RecordHead,
    RecordType,
    Segment,
    StoredProvenance,
    find_record,
    read_record,
    read_segment_head,
)

__all__ = [
    "Alert",
    "BatchClosed",
    "BatchOpened",
    "InstanceRecord",
    "Position",
    "Record",
    "SpoolReader",
]

log = structlog.get_logger(__name__)

_FEWEST_FREE, _MOST_FREE = 3, 16  # segments kept for the next burst: a new one costs its size


class Position(NamedTuple):
    """A place in the log: everything before it was taken."""

    segment: int
    offset: int


class BatchOpened(Struct, frozen=True, kw_only=True):
    """A batch's provenance; repeated in each segment that holds instances of it."""

    batch_id: str
    provenance: Provenance


class BatchClosed(Struct, frozen=True, kw_only=True):
    """The channel ended."""

    batch_id: str


class Alert(Struct, frozen=True, kw_only=True):
    """A security-relevant event."""

    kind: str
    facts: dict[str, str]


class InstanceRecord(Struct, frozen=True, kw_only=True):
    """An instance as Part 10: in the log (``part10``), or in a file of its own (``path``)."""

    record_id: str
    batch_id: str
    provenance: Provenance
    header: Header
    part10: memoryview | None
    path: Path | None
    dataset_offset: int
    size: int
    received_at: datetime


Record = BatchOpened | BatchClosed | Alert | InstanceRecord


class SpoolReader:
    """Reads one spool folder; the only one to do so."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: dict[str, Provenance] = {}  # open ones, of the mapped segment
        self._map: tuple[int, memoryview] | None = None
        self._use: Segment | None = None  # what the mapped file is used as
        self.released = self._read_checkpoint()
        self.position = self.released

    @staticmethod
    def discover(root: Path) -> Iterator[Path]:
        """Spool folders below ``root``."""
        if root.is_dir():
            yield from sorted(p for p in root.iterdir() if (p / "lock").exists())

    def _read_checkpoint(self) -> Position:
        try:
            segment, offset = (self._folder / "checkpoint").read_text().split()
        except (FileNotFoundError, ValueError):
            return Position(0, 0)
        return Position(int(segment), int(offset))

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:012d}.seg"

    def _segments(self) -> list[int]:
        return sorted(int(p.stem) for p in self._folder.glob("[0-9]*.seg"))

    def _view(self, segment: int) -> memoryview:
        if self._map is None or self._map[0] != segment:
            with self._path(segment).open("rb") as file:
                # The map lives as long as any record's bytes are referred to.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._map = segment, memoryview(mapped)
            # A segment repeats what its instances belong to; a channel that died never closes.
            self._batches.clear()
        return self._map[1]

    def _record(self, number: int, pos: int) -> RecordHead | None:
        """The record there, if a whole one is; offset 0 is the first one's too."""
        view = self._view(number)
        if self._use is None or self._use.number != number:
            self._use = read_segment_head(view, number)
        if self._use is None:
            return None  # a crash came before the segment's head was durable
        return read_record(view, pos or SEGMENT_HEAD, self._use)

    def poll(self) -> bool:
        """Whether there may be something to read; cheap."""
        if not self._enter():
            return False
        view = self._view(self.position.segment)
        pos = self.position.offset or SEGMENT_HEAD
        # A record begins with its magic; zeros or an older use's bytes fail the read.
        if pos + HEAD <= len(view) and view[pos] != 0:
            return True
        # The writer went on although nothing ends this one: its last records never reached the
        # disk, or it had no room for more.
        return self._path(self.position.segment + 1).exists()

    def _enter(self) -> bool:
        """Stand on a segment that exists."""
        if self._map is not None and self._map[0] == self.position.segment:
            return True
        if self._path(self.position.segment).exists():
            return True
        later = [n for n in self._segments() if n > self.position.segment]
        if not later:
            return False
        if self._path(self.position.segment).exists():
            return True  # it came before those, and after the look at it
        self.position = Position(later[0], 0)
        return True

    def read(self, most_records: int, most_bytes: int) -> list[Record]:
        """The next records, at most so many; fewer, or none, where the log ends for now."""
        records: list[Record] = []
        size = 0
        while len(records) < most_records and size < most_bytes and self._enter():
            segment, pos = self.position
            head = self._record(segment, pos)
            if head is None:
                if not self._skip_damage(segment, pos):
                    break
                continue
            self.position = Position(segment, head.end)
            if head.kind is RecordType.END:
                self.position = Position(segment + 1, 0)
                continue
            size += head.end - pos
            if (record := self._decode(head)) is not None:
                records.append(record)
        return records

    def _skip_damage(self, segment: int, pos: int) -> bool:
        """Past a record that stays unreadable although the writer has gone on; else False."""
        if not any(n > segment for n in self._segments()):
            return False
        if self._record(segment, pos) is not None:
            # It came after the look at it. The writer has ended the segment since, so what is
            # still unreadable now stays so.
            return True
        mapped = self._view(segment).obj
        assert isinstance(mapped, mmap.mmap)
        after = find_record(mapped, pos, self._use) if self._use is not None else -1
        log.error("a part of the spool is unreadable", segment=segment, offset=pos)
        self.position = Position(segment, after) if after >= 0 else Position(segment + 1, 0)
        return True

    def _decode(self, head: RecordHead) -> Record | None:
        if head.kind is RecordType.BATCH:
            stored = msgspec.json.decode(head.meta, type=StoredProvenance)
            self._batches[head.batch_id] = stored.provenance
            return BatchOpened(batch_id=head.batch_id, provenance=stored.provenance)
        if head.kind is RecordType.CLOSE:
            self._batches.pop(head.batch_id, None)
            return BatchClosed(batch_id=head.batch_id)
        if head.kind is RecordType.ALERT:
            kind, facts = msgspec.json.decode(head.meta, type=tuple[str, dict[str, str]])
            return Alert(kind=kind, facts=facts)
        meta = msgspec.msgpack.decode(head.meta, type=InstanceMeta)
        large = head.kind is RecordType.LARGE
        path = self._folder / Path(meta.file).name if large else None
        provenance = (
            self._batches.get(head.batch_id)
            or self._provenance_before(head.batch_id)
            or _provenance_within(head.payload if path is None else _beginning(path))
        )
        return InstanceRecord(
            record_id=head.record_id,
            batch_id=head.batch_id,
            provenance=provenance,
            header=meta.header,
            part10=None if large else head.payload,
            path=path,
            dataset_offset=meta.dataset_offset,
            size=meta.size if large else len(head.payload) - meta.dataset_offset,
            received_at=meta.received_at,
        )

    def _provenance_before(self, batch_id: str) -> Provenance | None:
        """A batch's provenance from earlier in its segment: this reader began after it."""
        segment, pos = self.position.segment, 0
        while (head := self._record(segment, pos)) is not None:
            if head.kind is RecordType.BATCH:
                self._decode(head)
                if head.batch_id == batch_id:
                    return self._batches[batch_id]
            pos = head.end
        return None  # a part before it is damaged

    def rewind(self, position: Position | None) -> None:
        """Read again from ``position`` (the last release when not given)."""
        self.position = position or self.released

    def release(self, position: Position) -> None:
        """Everything before ``position`` is durable elsewhere; its segments are used again."""
        temporary = self._folder / "checkpoint.tmp"
        with temporary.open("w") as file:
            file.write(f"{position.segment} {position.offset}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._folder / "checkpoint")
        self.released = position
        free = len(list(self._folder.glob("free-*.seg")))
        done = [n for n in self._segments() if n < position.segment]
        most = self._most_free(done[0]) if done else 0
        for segment in done:
            if free < most:
                self._path(segment).rename(self._folder / f"free-{segment:012d}.seg")
                free += 1
            else:
                self._path(segment).unlink()

    def _most_free(self, segment: int) -> int:
        """As many as take a twentieth of the room that is left, within bounds."""
        found = os.statvfs(self._folder)
        size = self._path(segment).stat().st_size
        room = found.f_bavail * found.f_frsize // 20
        return min(max(room // max(size, 1), _FEWEST_FREE), _MOST_FREE)

    def close(self) -> None:
        """Forget the map."""
        self._map = None


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 16)


def _provenance_within(part10: Buffer) -> Provenance:
    """Where an instance came from, by its own file meta (0002,0102)."""
    meta = read_file_meta(part10[: 1 << 16])
    return msgspec.json.decode(meta.private_information, type=StoredProvenance).provenance
