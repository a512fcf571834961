"""Hypothesis strategies that break well-formed bytes as an attacker or a bad cable does."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

__all__ = ["corpus", "mutated"]

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
