"""The files that ``rso send`` is given: what is an instance, what is none, what cannot be read."""

import hashlib
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

__all__ = ["Found", "dataset_digest", "find"]


class Found(Struct, kw_only=True):
    """What is below the paths.

    Attributes:
        rounds: Files by SOP Instance UID. Other bytes under a UID that an earlier round has
            are in the next: they are sent too, and RSO holds them.
        skipped: What is no instance, with the reason.
        failed: What is one, or may be, and cannot be sent, with the reason.
        same: How many more have the very dataset of one that is sent.
    """

    rounds: list[dict[str, Path]]
    skipped: list[str]
    failed: list[str]
    same: int = 0

    @property
    def count(self) -> int:
        """How many are to be sent."""
        return sum(map(len, self.rounds))

    def add(self, uid: str, file: Path) -> None:
        """Take an instance, unless the same bytes are there."""
        for files in self.rounds:
            other = files.setdefault(uid, file)
            if other is file:
                return
            if dataset_digest(other) == dataset_digest(file):
                self.same += 1
                return
        self.rounds.append({uid: file})


def find(paths: Sequence[Path], number: str, folder: Path) -> Found:
    """Look at every file below the paths; copies stamped with a ``number`` go to ``folder``."""
    from rso.core.errors import IntakeError  # noqa: PLC0415
    from rso.dicom.deposit import DICOMDIR  # noqa: PLC0415
    from rso.dicom.part10 import read_file_meta  # noqa: PLC0415
    from rso.dicom.stamp import stamp_file  # noqa: PLC0415

    found = Found(rounds=[], skipped=[], failed=[])
    for position, (name, file) in enumerate(_files(paths, folder, found.failed)):
        try:
            with file.open("rb") as opened:
                head = opened.read(1 << 17)
            if head[128:132] != b"DICM":
                found.skipped.append(f"{name}: not a DICOM file: no DICM at byte 128")
                continue
            meta = read_file_meta(head)
            if meta.sop_class_uid == DICOMDIR:
                found.skipped.append(f"{name}: a DICOMDIR is no instance; it is skipped")
                continue
            kept = file
            if number:
                kept = folder / f"stamped-{position}.dcm"
                stamp_file(file, kept, number)
            found.add(meta.sop_instance_uid, kept)
        except (IntakeError, OSError) as exc:
            found.failed.append(f"{name}: {exc}")
    return found


def dataset_digest(file: Path) -> tuple[str, int]:
    """SHA-256 of the dataset, as hex, and bytes of the whole file."""
    from rso.dicom.part10 import read_file_meta  # noqa: PLC0415

    with file.open("rb") as opened:
        opened.seek(read_file_meta(opened.read(1 << 17)).dataset_offset)
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return digest, opened.tell()


def _files(paths: Sequence[Path], folder: Path, failed: list[str]) -> Iterator[tuple[str, Path]]:
    """Every file below the paths, those inside ZIPs unpacked into ``folder``, with its name."""
    from rso.core.errors import IntakeError  # noqa: PLC0415
    from rso.dicom.zip_reader import SIGNATURE  # noqa: PLC0415

    for path in paths:
        for file in _below(path, failed):
            try:
                with file.open("rb") as opened:
                    packed = opened.read(4) == SIGNATURE
                if packed:
                    yield from _unpacked(file, folder, failed)
                else:
                    yield str(file), file
            except (IntakeError, OSError, zipfile.BadZipFile) as exc:
                failed.append(f"{file}: {exc}")


def _below(path: Path, failed: list[str]) -> list[Path]:
    """A file, or all files of a folder; a folder that cannot be listed has failed."""
    if not path.is_dir():
        return [path]
    below = os.walk(path, onerror=lambda exc: failed.append(f"{exc.filename}: {exc.strerror}"))
    files = (Path(folder, name) for folder, _, names in below for name in names)
    return sorted(file for file in files if file.is_file())


def _unpacked(zip_file: Path, folder: Path, failed: list[str]) -> Iterator[tuple[str, Path]]:
    """The files of a ZIP; one that is broken has failed, and the others come."""
    from rso.core.errors import IntakeError  # noqa: PLC0415
    from rso.dicom.zip_reader import open_zip  # noqa: PLC0415

    for member in open_zip(zip_file):
        name = f"{zip_file}, file {member.position}"
        target = folder / f"unpacked-{secrets.token_hex(8)}"
        try:
            with member.open() as stream, target.open("xb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
        except (IntakeError, zipfile.BadZipFile, zlib.error, EOFError) as exc:
            failed.append(f"{name}: {exc}")
            continue
        yield name, target
