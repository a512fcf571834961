"""Hostile bytes: Hypothesis strategies that break well-formed ones, and ways to pack them."""

import io
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from rso.dicom.part10 import build_file_meta
from rso.testing.study import CT_IMAGE_STORAGE

__all__ = ["corpus", "mutated", "nested", "part10", "zipped"]

_LITTLE = str(ExplicitVRLittleEndian)

_LENGTHS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def corpus(folder: Path) -> list[bytes]:
    """The kept cases of one target, in the order of their names."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@st.composite
def mutated(draw: Any, seeds: Sequence[bytes]) -> bytes:
    """A seed with up to six changes: bytes, lengths, cuts, repeats, pieces of another seed."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["byte", "length", "cut", "drop", "repeat", "splice", "noise"]))
        if kind == "byte" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "length":
            form = draw(st.sampled_from(("<H", ">H", "<L", ">L")))
            value = draw(st.sampled_from(_LENGTHS)) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
            made = struct.pack(form, value)
            data[at : at + len(made)] = made
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "repeat":
            size = draw(st.integers(1, 40))
            data[at:at] = data[at : at + size] * draw(st.integers(1, 30))
        elif kind == "splice":
            other = draw(st.sampled_from(seeds))
            data[at:at] = other[draw(st.integers(0, len(other))) :][:200]
        elif kind == "noise":
            data[at:at] = draw(st.binary(max_size=40))
    return bytes(data)


def part10(dataset: bytes, syntax: str = _LITTLE) -> bytes:
    """A file."""
    meta = build_file_meta(
        sop_class_uid=CT_IMAGE_STORAGE, sop_instance_uid=generate_uid(), transfer_syntax_uid=syntax
    )
    return bytes(meta) + dataset


def nested(depth: int) -> bytes:
    """A sequence in a sequence in a sequence."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    ends = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return (sequence + item) * depth + ends * depth


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in files:
            archive.writestr(name.replace("\0", ""), data)
    return made.getvalue()
