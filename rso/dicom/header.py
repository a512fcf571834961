"""The bounded header scan: what matching and the ledger need, never the pixel data."""

import struct
import warnings
from typing import Any

from rso.core.errors import NotDicomError
from rso.core.exam import Patient
from rso.core.header import Header
from rso.core.transport import Buffer
from rso.dicom.elements import (
    DEFLATED,
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    LONG_VRS,
    MOST_ELEMENTS,
    UNDEFINED,
    encoding_of,
    is_uid,
    skip_undefined,
)

__all__ = ["decode_text", "scan_beginning", "scan_header"]

_LAST_GROUP = 0x0020
_WANTED = frozenset(
    {
        0x00080005, 0x00080016, 0x00080018, 0x00080020, 0x00080050, 0x00080060, 0x00081030,
        0x0008103E, 0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040, 0x00180015,
        0x0020000D, 0x0020000E, 0x00200011, 0x00200013,
    }
)  # fmt: skip
_CONTROL = dict.fromkeys([*range(32), 127], None)
_USUAL = 16 << 10
_LITTLE, _BIG = struct.Struct("<HH2sH"), struct.Struct(">HH2sH")
_SWAPPED, _LENGTH = struct.Struct("<L2sH").unpack_from, struct.Struct("<L").unpack_from
# A little-endian tag read as one number: group and element change places.
_WANTED_SWAPPED = {tag >> 16 | (tag & 0xFFFF) << 16: tag for tag in _WANTED}
_MOST_USUAL = 2000  # elements
_NOT_EXPLICIT_LITTLE = DEFLATED | {IMPLICIT_LITTLE, EXPLICIT_BIG}
_EXPLICIT_LITTLE = encoding_of("1.2.840.10008.1.2.1")
_LONGEST = 1024  # of a value that is read; no wanted VR is longer


def scan_header(dataset: Buffer, transfer_syntax_uid: str, *, total: int | None = None) -> Header:
    """Read the header of a dataset (its bytes after group 0002).

    Args:
        dataset: The dataset, or at least all of it up to group 0020.
        transfer_syntax_uid: How it is encoded.
        total: Bytes of the whole dataset when only its beginning is given.

    Raises:
        NotDicomError: It cannot be read safely, the Transfer Syntax is no UID, or an identifier
            is missing; says where.
        RefusedError: The Transfer Syntax is deflated.
    """
    _require_uid(transfer_syntax_uid)
    found = _collect(dataset, transfer_syntax_uid, len(dataset) if total is None else total)
    return _header(found, transfer_syntax_uid)


def scan_beginning(dataset: Buffer, transfer_syntax_uid: str, total: int) -> Header:
    """The same from a dataset's first bytes alone, if they reach beyond group 0020.

    Raises:
        NotDicomError: They do not reach that far, or cannot be read.
    """
    _require_uid(transfer_syntax_uid)
    first = bytes(dataset[:_USUAL])
    usual = transfer_syntax_uid not in _NOT_EXPLICIT_LITTLE
    found = _scan_usual(first) if usual else None
    if found is None:
        found = _scan(first, transfer_syntax_uid, total, whole=False)
    return _header(found, transfer_syntax_uid)


def _require_uid(transfer_syntax_uid: str) -> None:
    # Whatever it says would be read as explicit little endian, kept, and proposed to a PACS.
    if not is_uid(transfer_syntax_uid):
        raise NotDicomError("the Transfer Syntax is no UID")


def _collect(data: Buffer, transfer_syntax_uid: str, total: int) -> dict[int, bytes]:
    # Nearly every header ends early: a small copy is read faster than a view of the whole.
    first = bytes(data[:_USUAL])
    if transfer_syntax_uid not in _NOT_EXPLICIT_LITTLE:
        found = _scan_usual(first)
        if found is not None:
            return found
    if len(data) > _USUAL:
        try:
            return _scan(first, transfer_syntax_uid, total, whole=False)
        except NotDicomError:
            data = memoryview(data)
    return _scan(data, transfer_syntax_uid, total, whole=True)


def _scan_usual(data: bytes) -> dict[int, bytes] | None:
    """The wanted elements of explicit little endian, if nothing is odd about them.

    Each length is checked by the next element's having to be there; so nothing is returned before
    an element beyond the last group was read. ``None`` leaves the rest to the careful scan.
    """
    wanted, long_vrs, undefined, read = _WANTED_SWAPPED, LONG_VRS, UNDEFINED, _SWAPPED
    found: dict[int, bytes] = {}
    pos = 0
    try:
        for _ in range(_MOST_USUAL):
            tag, vr, length = read(data, pos)
            if tag & 0xFFFF > _LAST_GROUP:
                return found
            pos += 8
            if vr in long_vrs:
                (length,) = _LENGTH(data, pos)
                pos += 4
                if length == undefined:
                    pos = skip_undefined(data, pos, len(data), _EXPLICIT_LITTLE, vr)
                    continue
            if tag in wanted:
                found[wanted[tag]] = data[pos : pos + (length if length < _LONGEST else _LONGEST)]
            pos += length
    except (struct.error, NotDicomError):
        pass
    return None


def _scan(data: Buffer, transfer_syntax_uid: str, total: int, *, whole: bool) -> dict[int, bytes]:
    encoding = encoding_of(transfer_syntax_uid)
    head = (_BIG if encoding.two.format[0] == ">" else _LITTLE).unpack_from
    explicit, four = encoding.explicit, encoding.four.unpack_from
    wanted, long_vrs, undefined = _WANTED, LONG_VRS, UNDEFINED  # locals are read faster
    found: dict[int, bytes] = {}
    pos, last, end = 0, len(data) - 8, len(data)
    for _ in range(MOST_ELEMENTS):
        if pos > last:
            if pos == end and whole:
                return found
            raise NotDicomError(f"the dataset ends inside an element at byte {pos}")
        group, number, vr, length = head(data, pos)
        if group > _LAST_GROUP:
            return found
        value = pos + 8
        if not explicit:
            length = four(data, pos + 4)[0]
        elif vr in long_vrs:
            if pos + 12 > end:
                raise NotDicomError(f"the dataset ends inside an element at byte {pos}")
            length = four(data, value)[0]
            value += 4
        if length == undefined:
            pos = skip_undefined(data, value, end, encoding, vr if explicit else b"")
            continue
        after = value + length
        if after > end:
            where = "goes past the end" if after > total else "is too long to be read"
            raise NotDicomError(f"element {group:04X}{number:04X} at byte {pos} {where}")
        tag = group << 16 | number
        if tag in wanted:
            found[tag] = bytes(data[value : min(after, value + _LONGEST)])
        pos = after
    raise NotDicomError(f"more than {MOST_ELEMENTS} elements")


def _header(found: dict[int, bytes], transfer_syntax_uid: str) -> Header:
    sets = found.get(0x00080005, b"")
    undecodable = False

    def text(tag: int) -> str:
        nonlocal undecodable
        value = found.get(tag)
        if not value:
            return ""
        decoded, sound = decode_text(value, sets, name=tag == 0x00100010)
        if tag == 0x00100010:
            undecodable = not sound
        return decoded

    return Header(
        sop_class_uid=_uid(found, 0x00080016, required=False),
        sop_instance_uid=_uid(found, 0x00080018),
        study_instance_uid=_uid(found, 0x0020000D),
        series_instance_uid=_uid(found, 0x0020000E, required=False),
        transfer_syntax_uid=transfer_syntax_uid,
        patient=Patient(
            name=text(0x00100010)[:400],
            patient_id=text(0x00100020)[:128],
            issuer_of_patient_id=text(0x00100021)[:64],
            birth_date=text(0x00100030)[:8] if len(found.get(0x00100030, b"")) < 12 else "",
            sex=text(0x00100040)[:1],
        ),
        accession_number=text(0x00080050)[:64],
        modality=text(0x00080060)[:16],
        body_part=text(0x00180015)[:64],
        study_date=text(0x00080020)[:8],
        study_description=text(0x00081030)[:200],
        series_description=text(0x0008103E)[:64],
        series_number=text(0x00200011)[:12],
        instance_number=text(0x00200013)[:12],
        undecodable=undecodable,
    )


def _uid(found: dict[int, bytes], tag: int, *, required: bool = True) -> str:
    value = found.get(tag, b"").decode("latin-1").strip(" \0")
    if not value and not required:
        return ""
    if not is_uid(value):
        raise NotDicomError(f"element {tag:08X} holds no UID")
    return value


def decode_text(value: bytes, character_sets: bytes, *, name: bool = False) -> tuple[str, bool]:
    """Decode a text value by Specific Character Set (PS3.3 C.12.1.1.2).

    Returns:
        The text, stripped and without control characters, and whether every byte was sound.
    """
    if value.isascii() and b"\x1b" not in value:
        text = value.decode("ascii")
        return (text.strip(" \0") if text.isprintable() else _clean(text)), True
    terms = [t.strip() for t in character_sets.decode("ascii", "replace").split("\\")]
    if not any(terms):
        return _clean(value.decode("ascii", "replace")), False
    from pydicom import charset  # noqa: PLC0415  (half a second, and most text is ASCII)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encodings = charset.convert_encodings(terms if len(terms) > 1 else terms[0])
            delimiters: Any = {0x5E, 0x3D} if name else {0x5C, 0x09, 0x0A, 0x0C, 0x0D}
            text = charset.decode_bytes(value, encodings, delimiters)
    except Exception:  # pydicom raises and warns in many ways about one thing
        return _clean(value.decode("ascii", "replace")), False
    return _clean(text), "\ufffd" not in text


def _clean(text: str) -> str:
    return text.translate(_CONTROL).strip()
