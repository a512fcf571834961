"""A spool's folder: its segment files, made ready before they are needed, and the room left."""

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import threading
import time
from pathlib import Path

import structlog

from rso.core.errors import ConfigError, NoSpaceError, VolumeError
from rso.engine.faults import Fault
from rso.engine.spool_segment import (
    SEGMENT_HEAD,
    RecordType,
    Segment,
    encode_record,
    encode_segment_head,
    find_record,
    large_files,
    read_record,
    read_segment_head,
)

__all__ = ["PASSING", "SegmentFiles", "Space", "sync_folder"]

log = structlog.get_logger(__name__)

_LARGEST_SEGMENT = 64 << 20
_SMALLEST_SEGMENT = 8 << 20
_ZEROS = bytes(1 << 20)
_PLENTY = 1 << 30
_SPACE_SECONDS = 0.1

# What a process runs out of for a while, and says nothing about the volume.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Space:
    """Whether the volume is above its low-water mark: a fiftieth of it, 16 MB to 1 GB."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = os.statvfs(folder)
        whole = found.f_blocks * found.f_frsize
        self.low_water = min(max(whole // 50, 16 << 20), 1 << 30)
        self._known, self._known_until = 0, 0.0

    def free(self) -> int:
        """Free bytes for an ordinary user."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def has_plenty(self, size: int) -> bool:
        """Whether ``size`` bytes that nobody was promised leave twice the mark."""
        return self.free() - size >= 2 * self.low_water

    def require(self, size: int) -> None:
        """Raise NoSpaceError when ``size`` more bytes would go below the mark.

        The volume is asked again when a tenth of a second has passed, or there is little room.
        """
        at = time.monotonic()
        self._known -= size
        if at > self._known_until or self._known < self.low_water + _PLENTY:
            self._known, self._known_until = self.free() - size, at + _SPACE_SECONDS
        if self._known < self.low_water:
            raise NoSpaceError("out of space, try again later")


class SegmentFiles:
    """The files of one log. One process a folder; used by one thread at a time.

    Raises:
        ConfigError: Another process has the folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._lock_file = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._lock_file.close()
            raise ConfigError(f"another process writes the spool {folder.name}") from exc
        self.space = Space(folder)
        self.size = min(max(self.space.free() // 16 & ~0xFFF, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
        self._next_ready = threading.Event()
        self._preparing: threading.Thread | None = None
        self.failed = ""  # why the volume is not trusted any more
        self._opening: Segment | None = None  # the next segment, where opening it failed
        self._last = self._recover()
        self._fault = Fault(folder.parent.parent / "faults" / f"spool {folder.name}")

    @property
    def _next(self) -> Path:
        return self.folder / "next.seg"

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}.seg"

    def _recover(self) -> int:
        """End the segment that a crash left open; returns the last number used."""
        for stale in self.folder.glob("*.part"):
            stale.unlink()
        (self.folder / "next.tmp").unlink(missing_ok=True)
        checkpoint = self.folder / "checkpoint"
        used = int(checkpoint.read_text().split()[0]) if checkpoint.exists() else 0
        numbers = sorted(int(p.stem) for p in self.folder.glob("[0-9]*.seg"))
        for number in numbers:
            self._refuse_earlier_form(number, used)
        if numbers:
            self._end(numbers[-1])
        self._remove_orphans([n for n in numbers if n >= used])
        return max([used, *numbers])

    def _refuse_earlier_form(self, number: int, used: int) -> None:
        """Before segments had heads they began with a record, which this version cannot read."""
        with self._path(number).open("rb") as file:
            begins = file.read(4)
        if number >= used and begins == b"RSOL":
            self._lock_file.close()
            raise ConfigError(
                f"the spool {self.folder.name} holds records of an earlier version: run that one"
                " until it has taken them in, then upgrade"
            )

    def _remove_orphans(self, segments: list[int]) -> None:
        """Large files that no record names: a crash came between the file and its record."""
        orphans = {path.name: path for path in self.folder.glob("large-*.dcm")}
        for number in segments if orphans else ():
            try:
                named = large_files(self._path(number).read_bytes(), number)
            except FileNotFoundError:
                continue  # released meanwhile
            if named is None:
                return  # damaged: what it names is not known
            for name in named:
                orphans.pop(name, None)
        for path in orphans.values():
            path.unlink(missing_ok=True)

    def _end(self, number: int) -> None:
        """Put an end after the last whole record; one that is damaged hides none behind it."""
        with self._path(number).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                with memoryview(mapped) as view:
                    segment = read_segment_head(view, number)
                pos, ended = _last_record(mapped, segment) if segment else (SEGMENT_HEAD, False)
            if segment is None:
                # The crash came before its head was durable, so before anything in it was.
                segment = Segment(number, secrets.randbits(64))
                os.pwrite(file.fileno(), encode_segment_head(segment), 0)
            if not ended:
                os.pwritev(file.fileno(), encode_record(RecordType.END, segment), pos)
                os.fsync(file.fileno())

    def _prepare(self) -> None:
        """Make the next segment ready: an old one again, or a new one full of zeros."""
        try:
            if not self._next.exists():
                for free in self.folder.glob("free-*.seg"):
                    if free.stat().st_size >= self.size:
                        with contextlib.suppress(FileNotFoundError):
                            free.rename(self._next)
                            break
                    free.unlink(missing_ok=True)
                else:
                    self._make()
                sync_folder(self.folder)
        except OSError:
            return  # the append that needs it will say so
        finally:
            self._next_ready.set()

    def _make(self) -> None:
        if self.space.free() < self.size + self.space.low_water // 2:
            raise OSError(errno.ENOSPC, "no room for a segment")
        new = self.folder / "next.tmp"
        try:
            with new.open("wb") as file:
                for _ in range(self.size // len(_ZEROS)):
                    file.write(_ZEROS)
                file.flush()
                os.fsync(file.fileno())
            new.rename(self._next)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def ready(self) -> bool:
        """Whether there is a next segment, made now if it has to be."""
        if self._preparing is not None:
            self._next_ready.wait()
        if not self._next.exists():
            self._prepare()
        return self._next.exists()

    def open_next(self) -> tuple[Segment, int]:
        """The next segment with its head written, and a descriptor of it.

        May be called again after it failed: what it did by then stands.

        Raises:
            NoSpaceError: There is no room for one.
            VolumeError: It cannot be opened, or its entry cannot be made durable.
        """
        segment = self._opening or Segment(self._last + 1, secrets.randbits(64))
        path = self._path(segment.number)
        try:
            if not path.exists():
                if not self.ready():
                    raise NoSpaceError("out of space, try again later")
                self._opening = segment
                with self._next.open("r+b", buffering=0) as file:
                    file.write(encode_segment_head(segment))
                self._next.rename(path)
            self._sync_entry()
            fd = os.open(path, os.O_RDWR)
        except OSError as exc:
            if exc.errno in {errno.ENOENT, errno.ENOSPC, errno.EDQUOT}:
                raise NoSpaceError("out of space, try again later") from exc
            raise VolumeError("a segment of the spool cannot be opened") from exc
        self._opening, self._last = None, segment.number
        self._next_ready.clear()
        self._preparing = threading.Thread(target=self._prepare, name="spool-prepare", daemon=True)
        self._preparing.start()
        return segment, fd

    def _sync_entry(self) -> None:
        try:
            sync_folder(self.folder)
        except OSError as exc:
            if exc.errno not in PASSING:
                self.fail(f"sync failed: {exc.strerror}")
            raise

    def fail(self, reason: str) -> None:
        """Nothing is acknowledged any more until a person has looked and started again."""
        self.failed = reason
        log.error("the spool's volume failed", spool=self.folder.name, reason=reason)
        self._fault.say(reason)

    def close(self) -> None:
        """Release the folder; the last segment is ended at the next start."""
        if self._preparing is not None:
            self._preparing.join()
        self._fault.close()
        self._lock_file.close()


def _last_record(mapped: mmap.mmap, segment: Segment) -> tuple[int, bool]:
    """Where the last whole record of a segment ends, and whether that is its end."""
    end = at = SEGMENT_HEAD
    while at >= 0:
        with memoryview(mapped) as view:
            record = read_record(view, at, segment)
            kind, after = (record.kind, record.end) if record else (None, at)
            del record  # it refers to the view
        if kind is RecordType.END:
            return after, True
        if kind is None:
            at = find_record(mapped, at, segment)
        else:
            end = at = after
    return end, False
