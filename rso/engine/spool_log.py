"""The writing end of the log: one gathered write a record, one sync for all who wait."""

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rso.core.errors import ConfigError, NoSpaceError, VolumeError
from rso.core.transport import Buffer
from rso.engine.spool_segment import HEAD, RecordType, encode_record, large_files, read_record

__all__ = ["SegmentLog", "Space", "sync_folder"]

_LARGEST_SEGMENT = 64 << 20
_SMALLEST_SEGMENT = 8 << 20
_ZEROS = bytes(1 << 20)


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

    def free(self) -> int:
        """Free bytes for an ordinary user."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def require(self, size: int) -> None:
        """Raise NoSpaceError when ``size`` more bytes would go below the mark."""
        if self.free() - size < self.low_water:
            raise NoSpaceError("out of space, try again later")


class SegmentLog:
    """Appends records durably. Safe to use from many threads; one process a folder."""

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
        self.segment_size = min(
            max(self.space.free() // 16 & ~0xFFF, _SMALLEST_SEGMENT), _LARGEST_SEGMENT
        )
        self._lock = threading.Lock()
        self._synced = threading.Condition()
        self._written = 0
        self._durable = 0
        self._syncing = False
        self._failed = ""
        self._fd = -1
        self._ended = False  # the segment's last record is its end
        self._next_ready = threading.Event()
        self._preparing: threading.Thread | None = None
        self.segment = self._recover()
        self._open_next()

    def _segments(self) -> list[int]:
        return sorted(int(p.stem) for p in self.folder.glob("[0-9]*.seg"))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}.seg"

    def _recover(self) -> int:
        """End the segment that a crash left open; returns the last number used."""
        for stale in self.folder.glob("*.part"):
            stale.unlink()
        (self.folder / "next.tmp").unlink(missing_ok=True)
        checkpoint = self.folder / "checkpoint"
        used = int(checkpoint.read_text().split()[0]) if checkpoint.exists() else 0
        numbers = self._segments()
        if numbers:
            self._end_segment(numbers[-1])
        self._remove_orphans(used)
        return max([used, *numbers])

    def _remove_orphans(self, first: int) -> None:
        """Large files that no record names: a crash came between the file and its record."""
        orphans = {path.name: path for path in self.folder.glob("large-*.dcm")}
        for number in self._segments() if orphans else ():
            if number < first:
                continue
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

    def _end_segment(self, number: int) -> None:
        with self._path(number).open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = memoryview(mapped)
                pos, record = 0, read_record(view, 0, number)
                while record is not None and record.kind is not RecordType.END:
                    pos = record.end
                    record = read_record(view, pos, number)
                ended = record is not None
                del record
                view.release()
            if not ended:
                os.pwritev(file.fileno(), encode_record(RecordType.END, number), pos)
                os.fsync(file.fileno())

    def _prepare(self) -> None:
        """Make ``next.seg`` ready: an old segment again, or a new one full of zeros."""
        try:
            ready = self.folder / "next.seg"
            if not ready.exists():
                for free in self.folder.glob("free-*.seg"):
                    if free.stat().st_size >= self.segment_size:
                        with contextlib.suppress(FileNotFoundError):
                            free.rename(ready)
                            break
                    free.unlink(missing_ok=True)
                else:
                    self._make_segment(ready)
                sync_folder(self.folder)
        except OSError:
            return  # the append that needs it will say so
        finally:
            self._next_ready.set()

    def _make_segment(self, ready: Path) -> None:
        if self.space.free() < self.segment_size + self.space.low_water // 2:
            raise OSError(errno.ENOSPC, "no room for a segment")
        new = self.folder / "next.tmp"
        try:
            with new.open("wb") as file:
                for _ in range(self.segment_size // len(_ZEROS)):
                    file.write(_ZEROS)
                file.flush()
                os.fsync(file.fileno())
            new.rename(ready)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def _prepare_in_background(self) -> None:
        self._next_ready.clear()
        self._preparing = threading.Thread(target=self._prepare, name="spool-prepare", daemon=True)
        self._preparing.start()

    def _open_next(self) -> None:
        """Go over to the next segment; the lock is held, or nobody else is there yet.

        May be called again after it failed: what it did by then stands.
        """
        if self._preparing is not None:
            self._next_ready.wait()
        number = self.segment + 1
        path = self._path(number)
        try:
            if not path.exists():
                if not (self.folder / "next.seg").exists():
                    self._prepare()
                (self.folder / "next.seg").rename(path)
            self._sync_entry()
            fd = os.open(path, os.O_RDWR)
        except OSError as exc:
            if exc.errno in {errno.ENOENT, errno.ENOSPC, errno.EDQUOT}:
                raise NoSpaceError("out of space, try again later") from exc
            raise VolumeError("a segment of the spool cannot be opened") from exc
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.segment, self._pos = fd, number, 0
        self._size = os.fstat(fd).st_size
        self._ended = False
        self._prepare_in_background()

    def _sync_entry(self) -> None:
        try:
            sync_folder(self.folder)
        except OSError as exc:
            if exc.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:  # these pass
                self._failed = f"sync failed: {exc.strerror}"
            raise

    def _roll(self) -> None:
        """End the segment, and go on in the next one, which is made ready first."""
        if not self._ended:
            if not ((self.folder / "next.seg").exists() or self._can_prepare()):
                raise NoSpaceError("out of space, try again later")
            self._write(encode_record(RecordType.END, self.segment))
            # Whatever happens now, a record after the end would never be read.
            self._ended = True
            self._sync_now(self._written)
        self._open_next()

    def _can_prepare(self) -> bool:
        self._next_ready.wait()
        self._prepare()
        return (self.folder / "next.seg").exists()

    def append(self, records: Callable[[int], Sequence[list[Buffer]]]) -> None:
        """Write records as one unit and return once they are durable.

        Args:
            records: Makes the records for the number of the segment they go into; called again
                when they go into the next one.

        Raises:
            NoSpaceError: No room; nothing was written.
            VolumeError: A write or sync failed, now or before.
        """
        with self._lock:
            self._check()
            made = records(self.segment)
            size = sum(len(part) for record in made for part in record)
            if self._ended or self._pos + size + HEAD > self._size:
                self._roll()
                made = records(self.segment)
                size = sum(len(part) for record in made for part in record)
                if size + HEAD > self._size:
                    raise NoSpaceError("larger than a segment of the spool")
            for record in made:
                self._write(record)
            ticket = self._written
        self._sync(ticket)

    def _check(self) -> None:
        if self._failed:
            raise VolumeError("the spool's volume failed and is not trusted any more")

    def _write(self, record: list[Buffer]) -> None:
        size = sum(map(len, record))
        try:
            done = os.pwritev(self._fd, record, self._pos)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise NoSpaceError("out of space, try again later") from exc
            self._failed = f"write failed: {exc.strerror}"
            raise VolumeError("a write to the spool failed") from exc
        if done != size:
            # The rest is never acknowledged; the next record overwrites it.
            raise NoSpaceError("out of space, try again later")
        self._pos += size
        self._written += 1

    def _sync(self, ticket: int) -> None:
        with self._synced:
            while self._durable < ticket and self._syncing:
                self._synced.wait()
            self._check()
            if self._durable >= ticket:
                return
            self._syncing = True
        try:
            with self._lock:
                target, fd = self._written, os.dup(self._fd)
            try:
                self._sync_fd(fd)
            finally:
                os.close(fd)
            with self._synced:
                self._durable = max(self._durable, target)
        finally:
            with self._synced:
                self._syncing = False
                self._synced.notify_all()

    def _sync_now(self, target: int) -> None:
        self._sync_fd(self._fd)
        with self._synced:
            self._durable = max(self._durable, target)
            self._synced.notify_all()

    def _sync_fd(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as exc:
            self._failed = f"sync failed: {exc.strerror}"
            raise VolumeError("a sync of the spool failed") from exc

    def close(self) -> None:
        """Release the folder; the last segment is ended at the next start."""
        if self._preparing is not None:
            self._preparing.join()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock_file.close()
