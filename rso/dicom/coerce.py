"""Replacing header elements on the way out, and saying so in Original Attributes."""

from datetime import UTC, datetime

from rso.core.coercion import Coercion
from rso.core.errors import RsoError
from rso.core.transport import Buffer
from rso.dicom.elements import Element, Encoding, encoding_of, iterate

__all__ = ["TAGS", "CoercionError", "splice"]

TAGS = {
    "accession_number": (0x00080050, b"SH"),
    "patient_name": (0x00100010, b"PN"),
    "patient_id": (0x00100020, b"LO"),
    "issuer_of_patient_id": (0x00100021, b"LO"),
    "birth_date": (0x00100030, b"DA"),
    "sex": (0x00100040, b"CS"),
}
_CHARACTER_SET = 0x00080005
_ORIGINAL_ATTRIBUTES = 0x04000561
_TEXT = frozenset({b"PN", b"LO", b"SH"})


class CoercionError(RsoError):
    """A value cannot be written in the dataset's own character set."""


def splice(
    prefix: Buffer,
    transfer_syntax_uid: str,
    coercion: Coercion,
    *,
    total: int | None = None,  # noqa: ARG001  (the prefix may be the whole dataset)
    at: datetime | None = None,
) -> tuple[bytes, int]:
    """New leading bytes of a dataset, and the offset from which its own bytes follow unchanged.

    The replaced elements are kept in an item of the Original Attributes Sequence (PS3.3 C.12.1).

    Args:
        prefix: The dataset, at least up to group 0400; a view of the whole file will do.
        transfer_syntax_uid: Its encoding, which the new bytes share.
        coercion: What to replace.
        total: Bytes of the whole dataset.
        at: The time to write; now when not given.

    Raises:
        CoercionError: A value does not fit the dataset's character set.
        NotDicomError, RefusedError: The dataset cannot be walked.
    """
    encoding = encoding_of(transfer_syntax_uid)
    data = memoryview(prefix)
    elements = list(iterate(data, encoding, stop=_ORIGINAL_ATTRIBUTES))
    by_tag = {element.tag: element for element in elements}
    new, kept = _replacements(data, by_tag, encoding, coercion)
    new[_ORIGINAL_ATTRIBUTES] = _original_attributes(
        data, by_tag.get(_ORIGINAL_ATTRIBUTES), encoding, kept, coercion.reason, at
    )
    changed_groups = {tag >> 16 for tag in new}
    pieces = {e.tag: bytes(data[e.start : e.end]) for e in elements}
    for tag in list(pieces):
        # A group length that no longer fits is worse than none (retired, PS3.5 7.2).
        if tag & 0xFFFF == 0 and tag >> 16 in changed_groups:
            del pieces[tag]
    pieces |= new
    resume = elements[-1].end if elements else 0
    return b"".join(pieces[tag] for tag in sorted(pieces)), resume


def _replacements(
    data: memoryview, by_tag: dict[int, Element], encoding: Encoding, coercion: Coercion
) -> tuple[dict[int, bytes], list[bytes]]:
    new: dict[int, bytes] = {}
    kept: list[bytes] = []
    declared = b""
    if _CHARACTER_SET in by_tag:
        declared = _value(data, by_tag[_CHARACTER_SET])
    for name, (tag, vr) in sorted(TAGS.items(), key=lambda item: item[1][0]):
        text = getattr(coercion, name)
        if text is None:
            continue
        value = _encode(text, vr, declared)
        if not value.isascii() and not declared.strip():
            # Nothing declared means ASCII throughout, which UTF-8 contains.
            declared = b"ISO_IR 192"
            new[_CHARACTER_SET] = element_bytes(encoding, _CHARACTER_SET, b"CS", declared)
        new[tag] = element_bytes(encoding, tag, vr, value)
        old = by_tag.get(tag)
        kept.append(
            bytes(data[old.start : old.end]) if old else element_bytes(encoding, tag, vr, b"")
        )
    return new, kept


def _value(data: memoryview, element: Element) -> bytes:
    return bytes(data[element.value : element.end])


def _encode(text: str, vr: bytes, declared: bytes) -> bytes:
    if text.isascii():
        return text.encode("ascii")
    if vr not in _TEXT:
        raise CoercionError("a code or date holds characters that DICOM does not allow")
    terms = [t.strip() for t in declared.decode("ascii", "replace").strip(" \0").split("\\")]
    if not any(terms):
        return text.encode("utf-8")
    from pydicom import charset  # noqa: PLC0415  (half a second, and most text is ASCII)

    try:
        encodings = charset.convert_encodings(terms if len(terms) > 1 else terms[0])
        value = charset.encode_string(text, encodings)
        sound = charset.decode_bytes(value, encodings, {0x5E, 0x3D}) == text
    except Exception as exc:  # pydicom raises in many ways about one thing
        raise CoercionError("a value does not fit the dataset's character set") from exc
    if not sound:
        raise CoercionError("a value does not fit the dataset's character set")
    return bytes(value)


def element_bytes(encoding: Encoding, tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in the given encoding, padded to even length."""
    if len(value) % 2:
        value += b" "
    head = encoding.tag.pack(tag >> 16, tag & 0xFFFF)
    if not encoding.explicit:
        return head + encoding.four.pack(len(value)) + value
    if vr == b"SQ":
        return head + vr + b"\0\0" + encoding.four.pack(len(value)) + value
    return head + vr + encoding.two.pack(len(value)) + value


def _item(encoding: Encoding, content: bytes) -> bytes:
    return encoding.tag.pack(0xFFFE, 0xE000) + encoding.four.pack(len(content)) + content


def _original_attributes(
    data: memoryview,
    old: Element | None,
    encoding: Encoding,
    kept: list[bytes],
    reason: str,
    at: datetime | None,
) -> bytes:
    time = (at or datetime.now(UTC)).strftime("%Y%m%d%H%M%S.%f+0000").encode()
    item = b"".join(
        (
            element_bytes(encoding, 0x04000550, b"SQ", _item(encoding, b"".join(kept))),
            element_bytes(encoding, 0x04000562, b"DT", time),
            element_bytes(encoding, 0x04000563, b"LO", b"RSO"),
            element_bytes(encoding, 0x04000564, b"LO", b""),
            element_bytes(encoding, 0x04000565, b"CS", reason.encode()),
        )
    )
    before = b""
    if old is not None:
        before = bytes(data[old.value : old.end - (8 if old.undefined else 0)])
    return element_bytes(encoding, _ORIGINAL_ATTRIBUTES, b"SQ", before + _item(encoding, item))
