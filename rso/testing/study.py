"""Studies to send, and whether they arrived: for tests from outside."""

import os
import struct
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import generate_uid

from rso.dicom.part10 import read_file_meta
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for

__all__ = ["CT_IMAGE_STORAGE", "delivered", "make_study", "missing", "other_bytes", "tiny_dataset"]

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def make_study(
    source: Path, folder: Path, count: int, *, side: int = 0, **changes: str
) -> list[Path]:
    """A Study of so many instances in nested folders, made from one real CT slice.

    Args:
        source: The slice.
        folder: Where the files go.
        count: How many.
        side: Rows and columns of each, in place of the slice's own 128.
        changes: Elements to change, by keyword.
    """
    dataset = pydicom.dcmread(source)
    if side:
        dataset.Rows = dataset.Columns = side
        dataset.PixelData = os.urandom(side * side * 2)
    for name, value in {"StudyInstanceUID": generate_uid(), **changes}.items():
        setattr(dataset, name, value)
    pixels = bytearray(dataset.PixelData)
    files = []
    for index in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = index + 1
        pixels[:4] = index.to_bytes(4, "little")
        dataset.PixelData = bytes(pixels)
        file = folder / f"S{index % 3}" / f"I{index:04}"
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(file)
        files.append(file)
    return files


def missing(pacs: Pacs, files: list[Path]) -> int:
    """How many of the files the PACS has not, byte for byte after the file meta."""
    got = pacs.by_uid()
    count = 0
    for file in files:
        data = file.read_bytes()
        meta = read_file_meta(data[: 1 << 17])
        received = got.get(meta.sop_instance_uid)
        count += received is None or received.dataset != data[meta.dataset_offset :]
    return count


def delivered(site: Site, number: str, count: int) -> dict[str, Any]:
    """The exam once n of n instances are acknowledged by its PACS."""

    def found() -> dict[str, Any] | None:
        exam: dict[str, Any] = site.rso("exam", "show", number, "--json")
        done = exam["deliveries"] and exam["deliveries"][0]["acknowledged"] == count
        return exam if done and exam["instances"] == count else None

    exam: dict[str, Any] = wait_for(found, 90)
    return exam


def tiny_dataset(sop_instance_uid: str, **values: bytes) -> bytes:
    """A CT instance of some 300 bytes without pixels, Explicit VR Little Endian.

    Args:
        sop_instance_uid: Its own.
        values: Raw values by ``study``, ``series``, ``name`` or ``patient_id``, unchecked.
    """
    elements = (
        (0x0008, 0x0016, b"UI", CT_IMAGE_STORAGE.encode()),
        (0x0008, 0x0018, b"UI", sop_instance_uid.encode()),
        (0x0008, 0x0060, b"CS", b"CT"),
        (0x0010, 0x0010, b"PN", values.get("name", b"TINY^ONE")),
        (0x0010, 0x0020, b"LO", values.get("patient_id", b"T-1")),
        (0x0020, 0x000D, b"UI", values.get("study", b"1.2.826.0.1.3680043.8.498.1")),
        (0x0020, 0x000E, b"UI", values.get("series", b"1.2.826.0.1.3680043.8.498.1.1")),
        (0x0028, 0x0010, b"US", b"\x01\x00"),
    )
    made = b""
    for group, number, vr, value in elements:
        padded = value + (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        made += struct.pack("<HH2sH", group, number, vr, len(padded)) + padded
    return made


def other_bytes(file: Path, target: Path) -> Path:
    """The same instance with other pixels."""
    dataset = pydicom.dcmread(file)
    dataset.PixelData = bytes(reversed(dataset.PixelData))
    dataset.save_as(target)
    return target
