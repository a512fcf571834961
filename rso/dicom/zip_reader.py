"""ZIP files from strangers: looked at before anything is unpacked, then read as streams.

Nothing is ever written under a name from inside the ZIP, and a ZIP within a ZIP stays closed.
"""

import stat
import struct
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import IO

from msgspec import Struct

from rso.core.errors import NotDicomError, RefusedError

__all__ = ["SIGNATURE", "Member", "ZipLimits", "is_zip_complete", "open_zip"]

SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = 30
_MOST_END = (1 << 16) + 98
_MOST_DIRECTORY = 32 << 20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


class ZipLimits(Struct, frozen=True, kw_only=True):
    """What a ZIP may hold; sizes in bytes.

    Attributes:
        ratio: How many times larger than the ZIP its contents may be, beyond ``free_size``.
    """

    entries: int = 50_000
    entry_size: int = 16 << 30
    total_size: int = 64 << 30
    ratio: int = 100
    free_size: int = 256 << 20


class Member:
    """One file inside; ``position`` counts from 1 and names it in messages."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, position: int) -> None:
        self._archive, self._info = archive, info
        self.position = position
        self.size = info.file_size

    def open(self) -> IO[bytes]:
        """Its bytes; reading on to the end checks length and CRC.

        Raises:
            RefusedError: It is encrypted, or its method is not known.
        """
        if self._info.flag_bits & 1:
            raise RefusedError("encrypted")
        if self._info.compress_type not in _METHODS:
            raise RefusedError("packed by a method other than deflate")
        try:
            return self._archive.open(self._info)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as exc:
            raise NotDicomError(f"broken inside the ZIP: {type(exc).__name__}") from exc


def is_zip_complete(path: Path) -> bool:
    """Whether the record at the end of a ZIP is there."""
    return _directory_size(path) >= 0


def _directory_size(path: Path) -> int:
    """Bytes of the central directory, as the end record says; -1 without an end record."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _MOST_END))
        tail = file.read(_MOST_END)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return -1
    found = int(struct.unpack_from("<L", tail, at + 12)[0])
    if found == 0xFFFFFFFF:  # ZIP64: a record of its own, 56 bytes, before a locator of 20
        at = tail.rfind(b"PK\x06\x06")
        return int(struct.unpack_from("<Q", tail, at + 40)[0]) if 0 <= at < len(tail) - 56 else -1
    return found


def open_zip(path: Path, limits: ZipLimits | None = None) -> Generator[Member, None, None]:
    """The files inside, in order; folders are left out.

    Raises:
        NotDicomError: It is not a ZIP, or a broken one.
        RefusedError: It holds a symbolic link, overlapping entries, or more than the limits say;
            nothing was unpacked then.
    """
    # zipfile takes the whole directory into memory before anybody can count it.
    if _directory_size(path) > _MOST_DIRECTORY:
        raise RefusedError(f"the directory of the ZIP is larger than {_MOST_DIRECTORY >> 20} MB")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as exc:
        raise NotDicomError("not a whole ZIP: its directory cannot be read") from exc
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _check(infos, path.stat().st_size, limits or ZipLimits())
        for position, info in enumerate(infos, 1):
            yield Member(archive, info, position)


def _check(infos: list[zipfile.ZipInfo], size: int, limits: ZipLimits) -> None:
    if len(infos) > limits.entries:
        raise RefusedError(f"the ZIP holds more than {limits.entries} files")
    total = sum(info.file_size for info in infos)
    most = min(limits.total_size, limits.free_size + limits.ratio * size)
    if total > most or any(info.file_size > limits.entry_size for info in infos):
        raise RefusedError("the ZIP is larger unpacked than is allowed")
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if stat.S_ISLNK(info.external_attr >> 16):
            raise RefusedError("the ZIP holds a symbolic link")
        if info.header_offset < end:
            raise RefusedError("the entries of the ZIP overlap")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size
    if end > size:
        raise RefusedError("an entry of the ZIP ends behind its end")
