"""The archive: one immutable Part 10 file an instance, under an opaque name."""

import ctypes
import errno
import filecmp
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from blake3 import blake3

from rso.core.errors import VolumeError
from rso.core.transport import Buffer
from rso.engine.spool_files import sync_folder

__all__ = ["LocalArchive", "file_digest", "instance_digest"]

_LIBC = ctypes.CDLL(None, use_errno=True)


def instance_digest(transfer_syntax_uid: str, dataset: Buffer) -> str:
    """BLAKE3 over Transfer Syntax UID, a zero byte, and the dataset; hex."""
    digest = blake3(transfer_syntax_uid.encode() + b"\0")
    digest.update(dataset)
    return str(digest.hexdigest())


def file_digest(path: Path, offset: int, transfer_syntax_uid: str) -> str:
    """The same digest of a dataset that begins at ``offset`` in a file; constant memory."""
    digest = blake3(transfer_syntax_uid.encode() + b"\0")
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(1 << 20):
            digest.update(data)
    return str(digest.hexdigest())


def _copy_durably(source: Path, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    with source.open("rb") as original, temporary.open("wb") as copy:
        shutil.copyfileobj(original, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    temporary.rename(path)


class LocalArchive:
    """Files below one folder, by the day of their record and two digits of its random part."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: set[Path] = set()

    def prepare(self) -> None:
        """Make the folder."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, record_id: str) -> Path:
        """Where a record's file is, or would be; nothing else ever names a file."""
        key = UUID(record_id)
        name = key.hex
        day = time.strftime("%Y%m%d", time.gmtime((key.int >> 80) / 1000))
        return Path(f"{self.root}/{day}/{name[-2:]}/{name}.dcm")

    def _place(self, record_id: str) -> Path:
        path = self.path(record_id)
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folders.add(path.parent)
        return path

    def put(self, record_id: str, data: Buffer) -> None:
        """Write a file; one that is there already stays, unless a crash left it damaged.

        Durable only after the next ``sync``.
        """
        path = self._place(record_id)
        if path.exists() and path.stat().st_size == len(data):
            with path.open("rb") as file:
                if file.read() == bytes(data):
                    return
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        temporary.rename(path)

    def link(self, record_id: str, source: Path) -> None:
        """Take a whole file over: by renaming it, or from another volume by a durable copy."""
        path = self._place(record_id)
        if source == path or (path.exists() and not source.exists()):
            return
        if not (path.exists() and filecmp.cmp(path, source, shallow=False)):
            try:
                source.rename(path)
            except OSError as exc:
                if exc.errno != errno.EXDEV:
                    raise
                _copy_durably(source, path)
            else:
                return
        # The spool's volume may forget the file before the archive's has its name.
        sync_folder(path.parent)
        source.unlink()

    def remove(self, record_id: str) -> None:
        """Take one file away; one that is gone already is as good."""
        self.path(record_id).unlink(missing_ok=True)

    def dataset_sha256(self, record_id: str, offset: int) -> str:
        """SHA-256 of a kept dataset, hex; empty when its file is not there."""
        try:
            with self.path(record_id).open("rb") as file:
                file.seek(offset)
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return ""

    def sync(self) -> None:
        """Make every file written so far durable: one sync of the volume for many files.

        Raises:
            VolumeError: It failed: what was written may be lost, whatever a second one says.
            OSError: It could not begin; nothing may be released, and a later one may.
        """
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _LIBC.syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise VolumeError(os.strerror(code))
        finally:
            os.close(fd)

    def walk(self) -> Iterator[tuple[str, Path]]:
        """Every file with its record id; whatever else lies around is passed over."""
        for path in sorted(self.root.glob("*/*/*.dcm")):
            try:
                yield str(UUID(path.stem)), path
            except ValueError:
                continue
