"""The images that are sent: Studies of equal instances, made from one real CT."""

import os
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

__all__ = ["SETS", "make_large", "make_set", "split"]

# Instances, bytes of pixel data.
SETS = {
    "tiny": (3000, 1 << 10),
    "MR": (1500, 128 << 10),
    "CT": (600, 512 << 10),
    "CR": (20, 10 << 20),
}
_SAMPLE = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def make_set(folder: Path, kind: str, count: int = 0) -> Path:
    """Files of one Study; ``count`` instead of as many as the kind has."""
    folder.mkdir(parents=True)
    usual, size = SETS[kind]
    dataset = pydicom.dcmread(_SAMPLE)
    side = max(int((size / 2) ** 0.5), 16)
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = os.urandom(side * side * 2)
    dataset.StudyInstanceUID = generate_uid()
    for i in range(count or usual):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = i
        dataset.save_as(folder / f"{i:05d}.dcm")
    os.sync()  # or whoever syncs first during a run pays for writing the set
    return folder


def make_large(folder: Path, size: int) -> Path:
    """One multi-frame instance with so many bytes of pixel data."""
    make_set(folder, "CT", 1)
    path = folder / "00000.dcm"
    whole = path.read_bytes()
    head = b"\xe0\x7f\x10\x00OW\0\0"  # Pixel Data, explicit little endian; its length follows
    start = whole.index(head) + len(head)
    with path.open("wb") as file:
        file.write(whole[:start] + size.to_bytes(4, "little"))
        piece = os.urandom(1 << 20)
        for _ in range(size >> 20):
            file.write(piece)
    return folder


def split(folder: Path, parts: int) -> list[Path]:
    """The same files in so many folders beside it, as hard links."""
    made = []
    for part in range(parts):
        own = folder.parent / f"{folder.name}-{part}"
        own.mkdir()
        for file in sorted(folder.iterdir())[part::parts]:
            os.link(file, own / file.name)
        made.append(own)
    return made
