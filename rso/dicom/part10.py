"""Part 10 files (PS3.10 7.1): their meta read and written, and whether one is whole."""

import struct
import zlib
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from rso.core.errors import NotDicomError
from rso.core.transport import Buffer
from rso.dicom.elements import DEFLATED, Encoding, encoding_of, is_uid, iterate
from rso.dicom.mapping import mapped

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "IMPLEMENTATION_VERSION_NAME",
    "Completeness",
    "FileMeta",
    "build_file_meta",
    "read_file_meta",
    "walk",
    "walk_bytes",
]

IMPLEMENTATION_CLASS_UID = "2.25.278347502938475029384750293847502938"
IMPLEMENTATION_VERSION_NAME = "RSO_0_1"
_PRIVATE_CREATOR_UID = f"{IMPLEMENTATION_CLASS_UID}.1"
_PREAMBLE = b"\0" * 128 + b"DICM"
_MOST_META = 1 << 16
_PIXELS = 0x7FE0
_LONG = struct.Struct("<L")
_META_BEGINS = _PREAMBLE + struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)
_LITTLE = Encoding(True, struct.Struct("<H"), struct.Struct("<HH"), struct.Struct("<L"))


class FileMeta(Struct, frozen=True, kw_only=True):
    """Group 0002 of a file, as far as RSO reads it; ``dataset_offset`` is where the rest begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int
    source_ae_title: str = ""
    private_information: bytes = b""


def read_file_meta(prefix: Buffer) -> FileMeta:
    """Read the meta of a file from its first bytes (64 KiB are always enough).

    Raises:
        NotDicomError: No DICM at byte 128, or a broken meta.
    """
    if bytes(prefix[128:132]) != b"DICM":
        raise NotDicomError("not a DICOM file: no DICM at byte 128")
    view = memoryview(prefix)[132 : 132 + _MOST_META]
    found: dict[int, bytes] = {}
    end = 0
    try:
        for element in iterate(view, _LITTLE, stop=0x0002FFFF):
            if element.tag >> 16 != 0x0002:
                break
            found[element.tag] = bytes(view[element.value : element.end])
            end = element.end
    except NotDicomError:
        # The bytes end in the dataset, behind a meta that may be whole.
        if 0x00020010 not in found or not _meta_ended(view, end):
            raise
    if 0x00020010 not in found:
        raise NotDicomError("the file meta names no Transfer Syntax")
    return FileMeta(
        sop_class_uid=_text(found, 0x00020002),
        sop_instance_uid=_text(found, 0x00020003),
        transfer_syntax_uid=_text(found, 0x00020010),
        dataset_offset=132 + end,
        source_ae_title=_text(found, 0x00020016),
        private_information=found.get(0x00020102, b"").rstrip(b"\0"),
    )


def _meta_ended(view: memoryview, end: int) -> bool:
    return end + 2 <= len(view) and bytes(view[end : end + 2]) != b"\x02\x00"


def _text(found: dict[int, bytes], tag: int) -> str:
    return found.get(tag, b"").decode("ascii", "replace").strip(" \0")


def _short(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value


def _long(number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sHL", 0x0002, number, vr, 0, len(value)) + value


def build_file_meta(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str = "",
    private_information: bytes = b"",
) -> bytes:
    """Zero preamble, DICM and group 0002 of RSO's own (PS3.10 7.1)."""
    before, after = _around_instance_uid(
        sop_class_uid, transfer_syntax_uid, source_ae_title, private_information
    )
    instance = _short(0x0003, b"UI", sop_instance_uid.encode())
    size = len(before) + len(instance) + len(after)
    return b"".join((_META_BEGINS, _LONG.pack(size), before, instance, after))


@lru_cache(maxsize=256)
def _around_instance_uid(
    sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str, private_information: bytes
) -> tuple[bytes, bytes]:
    """What stands before and after the one element that differs within a batch."""
    before = _long(0x0001, b"OB", b"\0\1") + _short(0x0002, b"UI", sop_class_uid.encode())
    after = (
        _short(0x0010, b"UI", transfer_syntax_uid.encode())
        + _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode())
        + _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode())
    )
    if source_ae_title:
        after += _short(0x0016, b"AE", source_ae_title.encode("ascii", "replace"))
    if private_information:
        after += _short(0x0100, b"UI", _PRIVATE_CREATOR_UID.encode())
        after += _long(0x0102, b"OB", private_information)
    return before, after


class Completeness(Struct, frozen=True, kw_only=True):
    """Whether a file is whole; ``is_dicom`` tells a cut file from something else."""

    complete: bool
    is_dicom: bool
    reason: str = ""


def walk(path: Path) -> Completeness:
    """Follow a Part 10 file's lengths to its very end; a cut file is not complete."""
    with mapped(path) as view:
        return walk_bytes(view)


def walk_bytes(data: Buffer) -> Completeness:
    """The same for a file in memory."""
    if len(data) < 132:
        return Completeness(complete=False, is_dicom=not data, reason="too short")
    with memoryview(data) as view:
        if bytes(view[128:132]) != b"DICM":
            return Completeness(complete=False, is_dicom=False, reason="no DICM at byte 128")
        try:
            meta = read_file_meta(view[: 132 + _MOST_META])
            if not is_uid(meta.transfer_syntax_uid):
                # No more of it would help: the spool refuses it, and sets a copy aside.
                return Completeness(complete=True, is_dicom=True)
            with view[meta.dataset_offset :] as dataset:
                return _walk_dataset(dataset, meta)
        except NotDicomError as exc:
            return Completeness(complete=False, is_dicom=True, reason=str(exc))


def _walk_dataset(dataset: memoryview, meta: FileMeta) -> Completeness:
    if meta.transfer_syntax_uid in DEFLATED:
        return _walk_deflated(dataset)
    tag = 0
    for element in iterate(dataset, encoding_of(meta.transfer_syntax_uid)):
        tag = element.tag
    if not tag:
        return Completeness(complete=False, is_dicom=True, reason="no dataset yet")
    from pydicom import config  # noqa: PLC0415  (half a second, and few commands come here)
    from pydicom.uid import UID  # noqa: PLC0415

    # Cut between two elements, only what should follow can tell.
    # pydicom would log what is no UID as it came.
    name = UID(meta.sop_class_uid, validation_mode=config.IGNORE).name
    if "Image Storage" in name and tag >> 16 < _PIXELS:
        return Completeness(complete=False, is_dicom=True, reason="no pixel data yet")
    return Completeness(complete=True, is_dicom=True)


def _walk_deflated(dataset: memoryview) -> Completeness:
    inflate = zlib.decompressobj(-15)
    for start in range(0, len(dataset), 1 << 16):
        data = bytes(dataset[start : start + (1 << 16)])
        while data and not inflate.eof:
            inflate.decompress(data, 1 << 20)
            data = inflate.unconsumed_tail
    done = inflate.eof
    return Completeness(complete=done, is_dicom=True, reason="" if done else "the stream is cut")
