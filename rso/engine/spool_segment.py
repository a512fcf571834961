"""The spool's log on disk: segments of records, each with its lengths and a checksum.

A segment is preallocated and used again. Each use begins with a head that holds a fresh random
seed; every checksum of that use is made with it. What an earlier use left behind, or what a sender
put into its pixels, therefore never looks like a record.
"""

import mmap
import struct
from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

import msgspec
import xxhash
from msgspec import Struct

from rso.core.header import Header
from rso.core.transport import Buffer, Provenance

__all__ = [
    "HEAD",
    "SEGMENT_HEAD",
    "Body",
    "InstanceMeta",
    "OpenRecord",
    "RecordHead",
    "RecordType",
    "Segment",
    "StoredProvenance",
    "encode_record",
    "encode_segment_head",
    "large_files",
    "read_record",
    "read_segment_head",
]

_SEGMENT_MAGIC = b"RSOSEG01"
_SEGMENT_FIELDS = struct.Struct("<8sQQ")
_MAGIC = b"RSOL"
_MOST_SUMMED = 16  # times the segment, in search of a record behind damage
_FIELDS = struct.Struct("<4sB3xQ16s16sII")
_CHECK = struct.Struct("<Q")
SEGMENT_HEAD = _SEGMENT_FIELDS.size + _CHECK.size
HEAD = _FIELDS.size + _CHECK.size
_NOTHING = UUID(int=0).bytes


class Segment(NamedTuple):
    """One use of a segment file; the seed is a secret of the spool's folder."""

    number: int
    seed: int


def encode_segment_head(segment: Segment) -> bytes:
    """The first bytes of a segment file."""
    fields = _SEGMENT_FIELDS.pack(_SEGMENT_MAGIC, segment.number, segment.seed)
    return fields + _CHECK.pack(xxhash.xxh3_64_intdigest(fields))


def read_segment_head(view: Buffer, number: int) -> Segment | None:
    """The use of a segment file that has this number; ``None`` before its head is there."""
    if len(view) < SEGMENT_HEAD:
        return None
    magic, found, seed = _SEGMENT_FIELDS.unpack_from(view)
    check = _CHECK.unpack_from(view, _SEGMENT_FIELDS.size)[0]
    if magic != _SEGMENT_MAGIC or found != number:
        return None
    if xxhash.xxh3_64_intdigest(bytes(view[: _SEGMENT_FIELDS.size])) != check:
        return None
    return Segment(number, seed)


class RecordType(IntEnum):
    """What a record says."""

    BATCH = 1
    INSTANCE = 2
    LARGE = 3
    CLOSE = 4
    ALERT = 5
    END = 6


class StoredProvenance(Struct, frozen=True, kw_only=True):
    """Provenance as it stands in a BATCH record and in each file's meta (0002,0102)."""

    batch: str
    provenance: Provenance


class InstanceMeta(Struct, frozen=True, kw_only=True, array_like=True):
    """What an INSTANCE or LARGE record says besides its bytes.

    ``size`` is that of a LARGE record's dataset; an INSTANCE record's own length tells it.
    """

    header: Header
    dataset_offset: int
    received_at: datetime
    size: int = 0
    file: str = ""


class OpenRecord(NamedTuple):
    """An instance's record while it is made."""

    record_id: str
    header: Header
    body: "Body"


class RecordHead(NamedTuple):
    """A valid record in a segment."""

    kind: RecordType
    record_id: str
    batch_id: str
    meta: memoryview
    payload: memoryview
    end: int


class Body:
    """A record's meta and payload with their checksum, which can be made as bytes come in.

    Made for one segment; asked for another one's, the checksum is made anew.
    """

    def __init__(self, segment: Segment, meta: bytes = b"", payload: Sequence[Buffer] = ()) -> None:
        self.meta = meta
        self.payload = list(payload)
        self.size = sum(map(len, self.payload))
        self._begin(segment)

    def _begin(self, segment: Segment) -> None:
        self._seed = segment.seed
        self._state = xxhash.xxh3_64(self.meta, seed=segment.seed)
        for part in self.payload:
            self._state.update(part)

    @property
    def length(self) -> int:
        """Bytes of both."""
        return len(self.meta) + self.size

    def add(self, part: Buffer) -> None:
        """Append to the payload."""
        self.update(part)
        self.complete(part, len(part))

    def update(self, beginning: Buffer) -> None:
        """Take into the checksum what is going to be the next bytes of the payload."""
        self._state.update(beginning)

    def complete(self, part: Buffer, taken: int) -> None:
        """Append to the payload; ``taken`` bytes of it are in the checksum already."""
        self.payload.append(part)
        self.size += len(part)
        if taken < len(part):
            self._state.update(memoryview(part)[taken:])

    def check(self, segment: Segment, fields: bytes) -> bytes:
        """The checksum over meta, payload and the record's fields, as it stands in the record."""
        if segment.seed != self._seed:
            self._begin(segment)
        state = self._state.copy()
        state.update(fields)
        return _CHECK.pack(state.intdigest())


def encode_record(
    kind: RecordType,
    segment: Segment,
    body: Body | None = None,
    *,
    record_id: str = "",
    batch_id: str = "",
) -> list[Buffer]:
    """A record as buffers for one gathered write."""
    body = body or Body(segment)
    fields = _FIELDS.pack(
        _MAGIC,
        kind,
        segment.number,
        bytes.fromhex(record_id.replace("-", "")) or _NOTHING,
        bytes.fromhex(batch_id.replace("-", "")) or _NOTHING,
        len(body.meta),
        body.size,
    )
    return [fields, body.check(segment, fields), body.meta, *body.payload]


def read_record(view: memoryview, pos: int, segment: Segment) -> RecordHead | None:
    """The record at ``pos``; ``None`` when there is no whole and sound one."""
    if pos + HEAD > len(view):
        return None
    magic, kind, number, record_id, batch_id, meta_size, size = _FIELDS.unpack_from(view, pos)
    if magic != _MAGIC or number != segment.number or kind not in RecordType.__members__.values():
        return None
    start = pos + HEAD
    end = start + meta_size + size
    if end > len(view):
        return None
    check = xxhash.xxh3_64(view[start:end], seed=segment.seed)
    check.update(view[pos : pos + _FIELDS.size])
    if check.intdigest() != _CHECK.unpack_from(view, pos + _FIELDS.size)[0]:
        return None
    return RecordHead(
        RecordType(kind),
        str(UUID(bytes=record_id)),
        str(UUID(bytes=batch_id)),
        view[start : start + meta_size],
        view[start + meta_size : end],
        end,
    )


def find_record(mapped: mmap.mmap, pos: int, segment: Segment) -> int:
    """Where the next whole record begins after ``pos``; -1 where none is found.

    A dataset may be full of what looks like heads of records, each of which has to be refuted by
    its checksum: the search ends when it has summed so much.
    """
    most = _MOST_SUMMED * len(mapped)
    with memoryview(mapped) as view:
        after = mapped.find(_MAGIC, pos + 1)
        while after >= 0 and (claimed := _claimed_size(view, after, segment)) <= most:
            if claimed and read_record(view, after, segment) is not None:
                return after
            most -= claimed
            after = mapped.find(_MAGIC, after + 1)
    return -1


def _claimed_size(view: memoryview, pos: int, segment: Segment) -> int:
    """How many bytes the record there says it has; 0 when it cannot be one of this segment."""
    if pos + HEAD > len(view):
        return 0
    magic, _, number, _, _, meta_size, size = _FIELDS.unpack_from(view, pos)
    end = pos + HEAD + int(meta_size) + int(size)
    return end - pos if magic == _MAGIC and number == segment.number and end <= len(view) else 0


def large_files(data: Buffer, number: int) -> list[str] | None:
    """The names of the files that an ended segment's LARGE records refer to.

    ``None`` when its records do not lead to its end.
    """
    view, pos = memoryview(data), SEGMENT_HEAD
    segment = read_segment_head(view, number)
    names: list[str] = []
    while segment and (record := read_record(view, pos, segment)) is not None:
        if record.kind is RecordType.END:
            return names
        if record.kind is RecordType.LARGE:
            names.append(msgspec.msgpack.decode(record.meta, type=InstanceMeta).file)
        pos = record.end
    return None
