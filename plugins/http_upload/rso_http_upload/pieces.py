"""Large instances in pieces: what has come stays, the next request goes on.

What an account has begun and not ended is bounded, in number and in announced bytes: by the
configuration, by its quotas of today, and by half of the room that the volume has.
"""

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from rso.dicom.deposit import deposit_part10
from rso.plugins import (
    IdentifierError,
    NoSpaceError,
    Provenance,
    QuotaError,
    Receipt,
    ReceiverContext,
    VolumeError,
)

if TYPE_CHECKING:
    from rso_http_upload.receiver import HttpUploadConfig

__all__ = ["CrowdedError", "OffsetError", "Pieces"]

_LOCKS = 64
_CHUNK = 1 << 20


class OffsetError(Exception):
    """A piece that does not go on where the last one ended; ``offset`` is where that is."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the next byte is {offset}")
        self.offset = offset


class CrowdedError(Exception):
    """The account has begun as many instances as it may; it should end one first."""


class _Part(Struct, frozen=True):
    """An instance that is not whole, the account that began it, and its announced bytes."""

    path: Path
    owner: str
    announced: int


class Pieces:
    """Instances under way; each is one file with a name of RSO's own. One process has them."""

    def __init__(self, context: ReceiverContext, config: "HttpUploadConfig") -> None:
        self._context = context
        self._config = config
        # A lock of its own for each path would have to go some day, and somebody waits for it.
        self._locks = [asyncio.Lock() for _ in range(_LOCKS)]
        self._parts = dict(map(_found, context.data_dir.glob("*.part")))
        self._lock = threading.Lock()

    def offset(self, provenance: Provenance, uid: str, length: int, identity: str = "") -> int:
        """How many bytes of a file are there; ``identity`` as for ``add``."""
        part = self._parts.get(_name(provenance, uid, length, identity))
        try:
            return part.path.stat().st_size if part is not None else 0
        except FileNotFoundError:
            return 0

    async def add(
        self,
        provenance: Provenance,
        uid: str,
        data: bytes,
        *,
        offset: int,
        length: int,
        identity: str = "",
    ) -> tuple[int, Receipt | None]:
        """Append a piece; with the last one the instance joins the spool.

        Args:
            provenance: Whose it is; nobody goes on with what another account has begun.
            uid: SOP Instance UID that the sender says.
            data: The piece.
            offset: Where it belongs, in bytes.
            length: Bytes of the whole file.
            identity: What tells the file from others of its UID and length; empty: only where
                a first piece comes again with other bytes it is known to be another file.

        Returns:
            How many bytes are there, and the receipt once all are.

        Raises:
            OffsetError: It does not begin where the last piece ended.
            CrowdedError: The account has begun too many others.
            IntakeError: It cannot be kept; the pieces are forgotten unless the disk is at fault.
        """
        name = _name(provenance, uid, length, identity)
        async with self._locks[hash(name) % _LOCKS]:
            size = await asyncio.to_thread(self._append, name, provenance, data, offset, length)
            if size < length:
                return size, None
            return size, await asyncio.to_thread(self._keep, name, provenance, uid)

    def _append(
        self, name: str, provenance: Provenance, data: bytes, offset: int, length: int
    ) -> int:
        if not offset:
            self.expire()
        known = self._parts.get(name)
        if known is not None and not offset and not _begins(known.path, data):
            self._forget(name)
            known = None
        if known is not None:
            return self._write(known.path, data, offset, length)
        if offset:
            raise OffsetError(0)
        part = self._begin(name, provenance, length)
        try:
            return self._write(part.path, data, offset, length)
        except BaseException:
            self._forget(name)
            raise

    def _begin(self, name: str, provenance: Provenance, length: int) -> _Part:
        """Make room among what the account has begun."""
        owner = _owner(provenance)
        config = self._config
        with self._lock:
            others = [part.announced for part in self._parts.values() if part.owner == owner]
            if len(others) >= config.open_instances:
                raise CrowdedError(f"{len(others)} instances are begun: end one of them first")
            announced = sum(others) + length
            if announced > config.open_bytes:
                raise QuotaError("what is begun has too many bytes: end some of it first")
            part = _Part(self._context.data_dir / f"{name}-{owner}-{length}.part", owner, length)
            self._parts[name] = part
        try:
            # Once more for the copy in the spool; and others need room meanwhile.
            self._context.spool.require_space(2 * announced)
            self._context.require_quota(provenance, len(others) + 1, announced)
        except BaseException:
            self._forget(name)
            raise
        return part

    def _write(self, path: Path, data: bytes, offset: int, length: int) -> int:
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

    def _keep(self, name: str, provenance: Provenance, uid: str) -> Receipt:
        part = self._parts.get(name)
        if part is None:  # it expired this very moment
            raise OffsetError(0)
        batch = self._context.spool.open_batch(provenance)
        try:
            with part.path.open("rb") as stream:
                receipt = deposit_part10(batch, stream)
        except BaseException as exc:
            # A quota of today lasts longer than anybody should fill the disk for.
            if isinstance(exc, QuotaError) or not isinstance(exc, (NoSpaceError, VolumeError)):
                self._forget(name)
            raise
        finally:
            batch.close()
        self._forget(name)
        if receipt.header.sop_instance_uid != uid:
            raise IdentifierError("kept, but its SOP Instance UID is not the one of the address")
        return receipt

    def _forget(self, name: str) -> None:
        with self._lock:
            part = self._parts.pop(name, None)
        if part is not None:
            part.path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Remove what nobody went on with; none of it was ever acknowledged."""
        oldest = time.time() - self._config.expire_hours * 3600
        with self._lock:
            parts = list(self._parts.items())
        for name, part in parts:
            try:
                if part.path.stat().st_mtime < oldest:
                    self._forget(name)
            except FileNotFoundError:  # it is just begun
                continue


def _name(provenance: Provenance, uid: str, length: int, identity: str) -> str:
    # UID and length alone do not tell two versions of an instance apart, and a file that begins
    # as one and ends as the other would be read without complaint.
    key = (provenance.exam_number, _owner(provenance), uid, str(length), identity)
    return hashlib.sha256("\0".join(key).encode()).hexdigest()


def _begins(path: Path, data: bytes) -> bool:
    """Whether a file and a first piece agree as far as both go."""
    at = 0
    try:
        with path.open("rb") as file:
            while at < len(data) and (there := file.read(min(_CHUNK, len(data) - at))):
                if there != data[at : at + len(there)]:
                    return False
                at += len(there)
    except FileNotFoundError:
        return True
    return True


def _owner(provenance: Provenance) -> str:
    """What stands for the account: a person, or a source of a facility."""
    account = provenance.user or f"{provenance.facility}\0{provenance.source}"
    return hashlib.sha256(account.encode()).hexdigest()[:32]


def _found(path: Path) -> tuple[str, _Part]:
    """What the name of a part says after a restart; those of earlier versions say less."""
    name, owner, announced = (*path.stem.split("-"), "", "")[:3]
    return name, _Part(path, owner, int(announced) if announced.isdecimal() else 0)
