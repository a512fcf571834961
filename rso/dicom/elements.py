"""Walking a dataset's elements without trusting any of its lengths.

Nothing here recurses or allocates by a length that a file claims (PS3.5 7).
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from rso.core.errors import NotDicomError, RefusedError
from rso.core.transport import Buffer

__all__ = [
    "DEFLATED",
    "EXPLICIT_BIG",
    "IMPLICIT_LITTLE",
    "UNDEFINED",
    "Element",
    "Encoding",
    "encoding_of",
    "is_uid",
    "iterate",
    "skip_undefined",
]

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
UNDEFINED = 0xFFFFFFFF
_UID = re.compile(r"[0-9.]{1,64}")
MOST_ELEMENTS = 100_000
DEEPEST = 16
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
# VRs whose length takes four bytes after two reserved ones (PS3.5 7.1.2).
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN",
                      b"UR", b"UT", b"UV"})  # fmt: skip


class Encoding(NamedTuple):
    """How a Transfer Syntax writes elements."""

    explicit: bool
    two: struct.Struct
    tag: struct.Struct
    four: struct.Struct


_LITTLE = (struct.Struct("<H"), struct.Struct("<HH"), struct.Struct("<L"))
_BIG = (struct.Struct(">H"), struct.Struct(">HH"), struct.Struct(">L"))


def is_uid(text: str) -> bool:
    """Whether it can be a UID (PS3.5 9.1), and so be proposed to a peer."""
    return _UID.fullmatch(text) is not None


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """The encoding of a Transfer Syntax; every compressed one is explicit little endian.

    Raises:
        NotDicomError: It is no UID, so nothing says how the dataset is to be read.
        RefusedError: The dataset is deflated: its size says nothing of what it unpacks to.
    """
    if not is_uid(transfer_syntax_uid):
        raise NotDicomError("the Transfer Syntax is no UID")
    if transfer_syntax_uid in DEFLATED:
        raise RefusedError("a deflated Transfer Syntax is not accepted")
    order = _BIG if transfer_syntax_uid == EXPLICIT_BIG else _LITTLE
    return Encoding(transfer_syntax_uid != IMPLICIT_LITTLE, *order)


class Element(NamedTuple):
    """Where one top-level element stands; ``end`` is after its value and any delimiter."""

    tag: int
    vr: bytes
    start: int
    value: int
    end: int
    undefined: bool


def _head(data: Buffer, pos: int, end: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, VR, value position and length of the element at ``pos``."""
    if pos + 8 > end:
        raise NotDicomError(f"the dataset ends inside an element at byte {pos}")
    group, number = encoding.tag.unpack_from(data, pos)
    tag = group << 16 | number
    if group == 0xFFFE or not encoding.explicit:
        return tag, b"", pos + 8, encoding.four.unpack_from(data, pos + 4)[0]
    vr = bytes(data[pos + 4 : pos + 6])
    if vr in LONG_VRS:
        if pos + 12 > end:
            raise NotDicomError(f"the dataset ends inside an element at byte {pos}")
        return tag, vr, pos + 12, encoding.four.unpack_from(data, pos + 8)[0]
    return tag, vr, pos + 8, encoding.two.unpack_from(data, pos + 6)[0]


def iterate(data: Buffer, encoding: Encoding, *, stop: int = 0xFFFFFFFF) -> Iterator[Element]:
    """Top-level elements up to, not including, the first tag above ``stop``.

    Raises:
        NotDicomError: A length goes past the end, or a limit is passed.
    """
    pos, end = 0, len(data)
    for _ in range(MOST_ELEMENTS):
        if pos == end:
            return
        tag, vr, value, length = _head(data, pos, end, encoding)
        if tag > stop:
            return
        undefined = length == UNDEFINED
        after = skip_undefined(data, value, end, encoding, vr) if undefined else value + length
        if after > end:
            raise NotDicomError(f"element {tag:08X} at byte {pos} goes past the end")
        yield Element(tag, vr, pos, value, after, undefined)
        pos = after
    raise NotDicomError(f"more than {MOST_ELEMENTS} elements")


def skip_undefined(data: Buffer, pos: int, end: int, encoding: Encoding, vr: bytes = b"") -> int:
    """The position after a value of undefined length: nested sequences or fragments.

    Raises:
        NotDicomError: It does not end, nests deeper than 16, or has too many parts.
    """
    # UN of undefined length holds implicit little endian (PS3.5 6.2.2).
    if vr == b"UN":
        encoding = encoding_of(IMPLICIT_LITTLE)
    stack = [_SEQUENCE_END]
    for _ in range(MOST_ELEMENTS):
        tag, inner_vr, value, length = _head(data, pos, end, encoding)
        if tag == stack[-1]:
            stack.pop()
            pos = value
            if not stack:
                return pos
        elif (tag == _ITEM) is not (stack[-1] == _SEQUENCE_END):
            raise NotDicomError(f"a sequence is broken at byte {pos}")
        elif length != UNDEFINED:
            pos = value + length
            if pos > end:
                raise NotDicomError(f"element {tag:08X} inside a sequence goes past the end")
        elif inner_vr == b"UN":
            pos = skip_undefined(data, value, end, encoding, inner_vr) if len(stack) < 2 else end
        else:
            if len(stack) >= 2 * DEEPEST:
                raise NotDicomError(f"sequences nest deeper than {DEEPEST}")
            stack.append(_ITEM_END if tag == _ITEM else _SEQUENCE_END)
            pos = value
    raise NotDicomError("a sequence has too many elements")
