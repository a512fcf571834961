"""The spool's log on disk: segments of records, each with its lengths and a checksum.

A segment is preallocated and used again; a record carries its segment's number, so what an
earlier use left behind never looks like a record of this one.
"""

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
    "InstanceMeta",
    "RecordHead",
    "RecordType",
    "StoredProvenance",
    "encode_record",
    "large_files",
    "read_record",
]

_MAGIC = b"RSOL"
_FIELDS = struct.Struct("<4sB3xQ16s16sII")
_CHECK = struct.Struct("<Q")
HEAD = _FIELDS.size + _CHECK.size
_NOTHING = UUID(int=0).bytes


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
    """What an INSTANCE or LARGE record says besides its bytes."""

    header: Header
    dataset_offset: int
    size: int
    received_at: datetime
    file: str = ""


class RecordHead(NamedTuple):
    """A valid record in a segment."""

    kind: RecordType
    record_id: str
    batch_id: str
    meta: memoryview
    payload: memoryview
    end: int


def encode_record(
    kind: RecordType,
    segment: int,
    *,
    record_id: str = "",
    batch_id: str = "",
    meta: bytes = b"",
    payload: Sequence[Buffer] = (),
) -> list[Buffer]:
    """A record as buffers for one gathered write."""
    fields = _FIELDS.pack(
        _MAGIC,
        kind,
        segment,
        UUID(record_id).bytes if record_id else _NOTHING,
        UUID(batch_id).bytes if batch_id else _NOTHING,
        len(meta),
        sum(map(len, payload)),
    )
    check = xxhash.xxh3_64(fields)
    check.update(meta)
    for part in payload:
        check.update(part)
    return [fields, _CHECK.pack(check.intdigest()), meta, *payload]


def read_record(view: memoryview, pos: int, segment: int) -> RecordHead | None:
    """The record at ``pos``; ``None`` when there is no whole and sound one."""
    if pos + HEAD > len(view):
        return None
    magic, kind, number, record_id, batch_id, meta_size, size = _FIELDS.unpack_from(view, pos)
    if magic != _MAGIC or number != segment or kind not in RecordType.__members__.values():
        return None
    start = pos + HEAD
    end = start + meta_size + size
    if end > len(view):
        return None
    check = xxhash.xxh3_64(view[pos : pos + _FIELDS.size])
    check.update(view[start:end])
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


def large_files(data: bytes, segment: int) -> list[str] | None:
    """The names of the files that an ended segment's LARGE records refer to.

    ``None`` when its records do not lead to its end.
    """
    view, pos = memoryview(data), 0
    names: list[str] = []
    while (record := read_record(view, pos, segment)) is not None:
        if record.kind is RecordType.END:
            return names
        if record.kind is RecordType.LARGE:
            names.append(msgspec.msgpack.decode(record.meta, type=InstanceMeta).file)
        pos = record.end
    return None
