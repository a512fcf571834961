"""Large instances in pieces: what has come stays, the next request goes on."""

import asyncio
import hashlib
import os
import time
from pathlib import Path

from rso.dicom.deposit import deposit_part10
from rso.plugins import (
    IdentifierError,
    NoSpaceError,
    Provenance,
    Receipt,
    ReceiverContext,
    VolumeError,
)

__all__ = ["OffsetError", "Pieces"]

_LOCKS = 64


class OffsetError(Exception):
    """A piece that does not go on where the last one ended; ``offset`` is where that is."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next byte is {offset}")
        self.offset = offset


class Pieces:
    """Instances under way; each is one file with a name of RSO's own."""

    def __init__(self, context: ReceiverContext, most_bytes: int, expire_seconds: float) -> None:
        self._context = context
        self.most_bytes = most_bytes
        self._expire_seconds = expire_seconds
        # A lock of its own for each path would have to go some day, and somebody waits for it.
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]

    def _path(self, exam_number: str, uid: str, length: int) -> Path:
        # Two people who send the same instance go on with each other's; their digests agree.
        name = hashlib.sha256(f"{exam_number}\0{uid}\0{length}".encode()).hexdigest()
        return self._context.data_dir / f"{name}.part"

    def offset(self, exam_number: str, uid: str, length: int) -> int:
        """How many bytes are there."""
        try:
            return self._path(exam_number, uid, length).stat().st_size
        except FileNotFoundError:
            return 0

    async def add(
        self, provenance: Provenance, uid: str, data: bytes, *, offset: int, length: int
    ) -> tuple[int, Receipt | None]:
        """Append a piece; with the last one the instance joins the spool.

        Returns:
            How many bytes are there, and the receipt once all are.

        Raises:
            OffsetError: It does not begin where the last piece ended.
            IntakeError: It cannot be kept; the pieces are forgotten unless the disk is at fault.
        """
        path = self._path(provenance.exam_number, uid, length)
        async with self._locks[hash(path) % _LOCKS]:
            size = await asyncio.to_thread(self._append, path, data, offset, length)
            if size < length:
                return size, None
            return size, await asyncio.to_thread(self._keep, path, provenance, uid)

    def _append(self, path: Path, data: bytes, offset: int, length: int) -> int:
        if not offset:
            self.expire()
        self._context.spool.require_space(len(data))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as exc:
            raise NoSpaceError("out of space, try again later") from exc
        with os.fdopen(descriptor, "wb") as file:
            size = os.fstat(descriptor).st_size
            if offset != size or offset + len(data) > length:
                raise OffsetError(size)
            file.seek(size)
            try:
                file.write(data)
                file.flush()
            except OSError as exc:
                os.ftruncate(descriptor, size)
                raise NoSpaceError("out of space, try again later") from exc
        return size + len(data)

    def _keep(self, path: Path, provenance: Provenance, uid: str) -> Receipt:
        batch = self._context.spool.open_batch(provenance)
        try:
            with path.open("rb") as stream:
                receipt = deposit_part10(batch, stream)
        except (NoSpaceError, VolumeError):
            raise
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            batch.close()
        path.unlink(missing_ok=True)
        if receipt.header.sop_instance_uid != uid:
            raise IdentifierError("kept, but its SOP Instance UID is not the one of the address")
        return receipt

    def expire(self) -> None:
        """Remove what nobody went on with; none of it was ever acknowledged."""
        oldest = time.time() - self._expire_seconds
        for path in self._context.data_dir.glob("*.part"):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
