"""One file on its way: in memory while it is small, in a part file when large or cut off."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from pyftpdlib.exceptions import FilesystemError

from rso.dicom.deposit import deposit_part10, deposit_zip, refuse_dicomdir
from rso.dicom.part10 import read_file_meta, walk, walk_bytes
from rso.dicom.zip_reader import SIGNATURE, is_zip_complete
from rso.ledger import new_id
from rso.plugins import (
    Batch,
    IntakeError,
    NoSpaceError,
    NotDicomError,
    Provenance,
    QuotaError,
    Receipt,
    ReceiverContext,
    RefusedError,
    RsoError,
    VolumeError,
)
from rso_ftp.config import FtpConfig
from rso_ftp.names import Name, Names

__all__ = ["Upload", "UploadError", "Uploads"]

log = structlog.get_logger(__name__)

_IN_MEMORY = 2 << 20
_LOOK = 1 << 17
_SPACE_STEP = 64 << 20


class UploadError(OSError):
    """A write that cannot go on; carries the FTP reply."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


class Uploads:
    """The files under way. One connection at a time writes a file: the newest.

    A client that lost its connection goes on with another long before the server notices.
    """

    def __init__(
        self, names: Names, folder: Path, context: ReceiverContext, config: FtpConfig
    ) -> None:
        self.names, self.folder, self.spool = names, folder, context.spool
        self.most_bytes = config.most_bytes
        self._context, self._config = context, config
        self._active: dict[tuple[str, str], Upload] = {}
        self._beginning: dict[tuple[str, str], _Turn] = {}
        self._lock = threading.Lock()  # never held while anything is waited for

    def begin(
        self, account: str, path: str, batch: Callable[[], Batch], *, offset: int | None
    ) -> "Upload":
        """Begin a file at ``offset`` of what is there; ``None`` appends.

        ``batch`` opens the session's batch with its first whole file. Where an earlier
        connection's file is being kept, this waits for it; other files go on.

        Raises:
            FilesystemError: It cannot begin there; the message is for the client.
            NoSpaceError: The volume is full.
        """
        key = account, path
        with self._turn(key):
            with self._lock:
                earlier = self._active.pop(key, None)
            if earlier is not None:
                earlier.close()
            upload = Upload(self, account, path, batch, offset)
            with self._lock:
                self._active[key] = upload
        return upload

    @contextmanager
    def _turn(self, key: tuple[str, str]) -> Iterator[None]:
        """One beginning of a file at a time: two would go on with the same part."""
        with self._lock:
            turn = self._beginning.setdefault(key, _Turn())
            turn.users += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    del self._beginning[key]

    def require(self, upload: "Upload", size: int, provenance: Provenance) -> int:
        """Look whether an account may have ``size`` bytes of a file on the disk before it is whole.

        Returns:
            The bytes of all its incomplete files.

        Raises:
            QuotaError: That is more than the configuration, or a quota of today, allows.
        """
        with self._lock:
            active = [u for u in self._active.values() if u.account == upload.account]
        sizes = self.names.waiting(upload.account)
        for one in active:
            if one.on_disk:
                sizes[one.name] = max(sizes.get(one.name, 0), one.on_disk)
        sizes.pop(upload.name, None)
        others = list(sizes.values())
        total = sum(others) + size
        if len(others) >= self._config.open_files or total > self._config.open_bytes:
            raise QuotaError("this account has too many incomplete files, end some of them first")
        self._context.require_quota(provenance, len(others) + 1, total)
        return total

    def ended(self, upload: "Upload") -> None:
        """Forget a file that is under way no more."""
        key = upload.account, upload.name
        with self._lock:
            if self._active.get(key) is upload:
                del self._active[key]


class _Turn:
    """A lock, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Upload:
    """A file object for pyftpdlib's data channel."""

    def __init__(
        self, store: Uploads, account: str, path: str, batch: Callable[[], Batch],
        offset: int | None,
    ) -> None:  # fmt: skip
        self.name = path
        self.account = account
        self.closed = False
        self._store = store
        self._batch = batch
        self._lock = threading.RLock()
        self._memory = bytearray()
        self._file = -1
        self._part = ""
        self._size = 0
        self._promised = 0
        self._was = store.names.find(account, path)
        if self._was is not None and self._was.kind == "folder":
            raise FilesystemError("A folder has this name")
        self._require(_IN_MEMORY)
        self._resume(offset)

    def _resume(self, offset: int | None) -> None:
        was = self._was
        size = was.size if was else 0
        if offset is None:
            offset = size
        if offset > size:
            raise FilesystemError(f"The file has {size} bytes, it cannot go on at {offset}")
        self._size = offset
        if not offset or was is None or was.kind == "kept":
            return
        # What lies behind the offset is sent again; a lie about it is found by the walk.
        self._part = was.part
        self._file = os.open(self._store.folder / self._part, os.O_RDWR)
        os.ftruncate(self._file, offset)
        os.lseek(self._file, offset, os.SEEK_SET)

    @property
    def _kept_before(self) -> bool:
        return self._was is not None and self._was.kind == "kept"

    @property
    def on_disk(self) -> int:
        """Bytes of its part."""
        return self._size if self._file >= 0 else 0

    def _require(self, size: int) -> None:
        if self._promised < size:
            self._store.spool.require_space(max(size, _IN_MEMORY))
            self._promised = max(size, _SPACE_STEP)
            if self._file >= 0:
                self._require_part(self._size)

    def _require_part(self, size: int) -> None:
        total = self._store.require(self, size, self._batch().provenance)
        # Once more for the copy in the spool: an account's parts take half of the room at most.
        self._store.spool.require_space(total)

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            UploadError: No space, a broken volume, or too large; with the reply.
        """
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self.closed:
            raise UploadError("426 Another connection goes on with this file.")
        self._size += len(data)
        if self._size > self._store.most_bytes:
            raise UploadError(f"552 Larger than {self._store.most_bytes} bytes.")
        if self._kept_before and self._size > len(data) and not self._memory and self._file < 0:
            raise UploadError("550 This file was kept whole before; send it from its beginning.")
        try:
            if self._file < 0 and len(self._memory) + len(data) <= _IN_MEMORY:
                self._memory += data
                return
            self._require(len(data))
            self._promised -= len(data)
            if self._file < 0:
                self._require_part(self._size)
            self._spill()
            self._put(data)
        except QuotaError as exc:
            self._drop()
            raise UploadError(f"452 {exc}.") from exc
        except NoSpaceError as exc:
            raise UploadError(f"452 {exc}.") from exc
        except OSError as exc:
            raise UploadError(f"452 The file cannot be written: {exc.strerror}.") from exc

    def _spill(self) -> None:
        if self._file < 0:
            self._part = self._part or f"{new_id()}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            self._file = os.open(self._store.folder / self._part, flags, 0o600)
        if self._memory:
            self._put(self._memory)
            self._memory = bytearray()

    def _put(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def finish(self) -> str:
        """The data connection ended in good order: join the spool; the reply to the client."""
        with self._lock:
            if self.closed:
                return "426 Another connection goes on with this file."
            return self._finish()

    def _finish(self) -> str:
        if self._kept_before and self._file < 0 and not self._memory and self._size:
            self.close()
            return "226 Kept before."
        try:
            reply = self._join()
        except QuotaError as exc:  # it lasts longer than anybody should fill the disk for
            self._drop()
            return f"452 {exc}."
        except NoSpaceError as exc:
            reply = f"452 {exc}."
        except VolumeError as exc:
            reply = f"451 {exc}."
        except (IntakeError, UploadError) as exc:
            self._drop()
            return f"550 Not kept: {exc}."
        except OSError as exc:
            reply = f"451 The file cannot be read back: {exc.strerror}."
        if reply.startswith("226"):
            self._drop(kept=True)
        else:
            self.close()
        return reply

    def _join(self) -> str:
        head = bytes(self._memory[:_LOOK]) if self._file < 0 else os.pread(self._file, _LOOK, 0)
        if head.startswith(SIGNATURE):
            return self._join_zip()
        path = self._store.folder / self._part
        found = walk_bytes(self._memory) if self._file < 0 else walk(path)
        if not found.complete:
            if not found.is_dicom:
                raise NotDicomError(found.reason)
            return self._incomplete(found.reason)
        if self._file >= 0:
            with path.open("rb") as stream:
                deposit_part10(self._batch(), stream)
            return "226 Kept."
        meta = read_file_meta(self._memory)
        try:
            refuse_dicomdir(meta)
        except RefusedError as exc:
            return f"226 {exc}."
        with memoryview(self._memory) as view:
            self._batch().append(
                [view[meta.dataset_offset :]], transfer_syntax_uid=meta.transfer_syntax_uid
            )
        return "226 Kept."

    def _incomplete(self, reason: str) -> str:
        # The same bytes a second time: the file itself is cut, and a retry would not mend it.
        again = self._size == (self._was.size if self._was and self._was.kind == "part" else 0)
        code = "550" if again else "426"
        return f"{code} Incomplete after {self._size} bytes ({reason}); waiting for the rest."

    def _join_zip(self) -> str:
        self._spill()
        path = self._store.folder / self._part
        if not is_zip_complete(path):
            return self._incomplete("the ZIP's directory is missing")
        kept, skipped = 0, 0
        failed: IntakeError | None = None
        for result in deposit_zip(self._batch(), path):
            if isinstance(result, (NoSpaceError, VolumeError)):
                raise result
            if isinstance(result, IntakeError):
                failed = result
            kept += isinstance(result, Receipt)
            skipped += result is None
        if failed is not None:
            raise NotDicomError(f"{kept} instances are kept, not all: {failed}")
        if not kept:
            raise NotDicomError("the ZIP holds no DICOM instance")
        return f"226 Kept {kept} instances, skipped {skipped} other files."

    def _drop(self, *, kept: bool = False) -> None:
        """Nothing waits any more: the name says kept, or is free again."""
        self.closed = True
        self._store.ended(self)
        self._release()
        self._unlink()
        self._memory = bytearray()
        if kept:
            name = Name(path=self.name, kind="kept", size=self._size)
            self._store.names.put(self.account, name)
        else:
            self._store.names.remove(self.account, self.name)

    def _unlink(self) -> None:
        for part in {self._part, self._was.part if self._was else ""} - {""}:
            (self._store.folder / part).unlink(missing_ok=True)

    def close(self) -> None:
        """Park what is there for its resume; called for a broken connection too."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self._store.ended(self)
                self._park()

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _park(self) -> None:
        store, was = self._store, self._was
        try:
            if self._file < 0 and not self._memory:
                return  # nothing came: what was there stays
            if self._file < 0:
                store.require(self, self._size, self._batch().provenance)
            self._spill()
            name = Name(
                path=self.name, kind="part", size=self._size, part=self._part,
                provenance=self._batch().provenance,
            )  # fmt: skip
            store.names.put(self.account, name)
            if was is not None and was.part and was.part != self._part:
                (store.folder / was.part).unlink(missing_ok=True)
        except (OSError, RsoError) as exc:
            log.warning("the incomplete file could not be parked", reason=type(exc).__name__)
            self._unlink()
            store.names.remove(self.account, self.name)
        finally:
            self._release()
