"""The intake loop: drains every spool folder of this machine and checkpoints what is safe."""

import asyncio
import contextlib
import time
from pathlib import Path

import structlog

from rso.core.errors import RsoError, VolumeError
from rso.engine.context import Engine
from rso.engine.faults import Fault
from rso.engine.set_aside import take_in
from rso.engine.spool_reader import Position, SpoolReader

__all__ = ["IntakeLoop"]

log = structlog.get_logger(__name__)

_MAX_RECORDS = 256
_MAX_BYTES = 96 << 20
_POLL_SECONDS = 0.02
_MOST_REST_SECONDS = 0.15
_SYNC_SECONDS = 1.0
_MOST_UNSYNCED_SECONDS = 10.0
_MOST_UNSYNCED_SEGMENTS = 4
_DISCOVER_SECONDS = 1.0
_FAULT_SECONDS = 1.0
_FAULTS_TO_TELL = 5  # in a row: a busy database is nobody's errand


class IntakeLoop:
    """Reads the logs one after the other; the only reader of their folders."""

    def __init__(self, engine: Engine, spool: Path) -> None:
        self._engine = engine
        self._spool = spool
        self._readers: dict[Path, SpoolReader] = {}
        self._taken: dict[Path, Position] = {}
        self._seen: dict[Path, Position] = {}  # what was taken when a sync was last thought of
        self._unsynced_since = time.monotonic()
        self._discover_at = 0.0
        self._failed = ""
        self._archive_fault: Fault | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Take records in until ``stop`` is set; what was read is finished first."""
        waits = Fault(self._spool.parent / "faults" / "intake")
        self._archive_fault = Fault(self._spool.parent / "faults" / "archive")
        checkpoints = asyncio.create_task(self._checkpoints(stop))
        faults = 0
        try:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    most = await self.step()
                except (RsoError, OSError) as exc:
                    # The records stay in the log: nothing is lost by waiting.
                    log.error("intake waits", reason=str(exc))
                    faults += 1
                    if faults >= _FAULTS_TO_TELL:
                        waits.say(_reason(exc))
                    await self._pause(stop, _FAULT_SECONDS)
                    continue
                faults = 0
                waits.clear()
                if most < _MAX_RECORDS:
                    # As long as the step took: what comes meanwhile shares the next transaction.
                    rest = max(time.monotonic() - began, _POLL_SECONDS) if most else _POLL_SECONDS
                    await self._pause(stop, min(rest, _MOST_REST_SECONDS))
        finally:
            if not stop.is_set():  # ended from outside: nobody will tell the other task
                checkpoints.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await checkpoints
            for reader in self._readers.values():
                reader.close()
            waits.close()
            self._archive_fault.close()

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)

    async def step(self) -> int:
        """Take one group from each log; how many records the largest had."""
        if self._failed:
            raise VolumeError(self._failed)
        now = asyncio.get_running_loop().time()
        if now >= self._discover_at:
            self._discover_at = now + _DISCOVER_SECONDS
            self._discover()
        most = 0
        for folder, reader in self._readers.items():
            if not reader.poll():
                continue
            try:
                records = await asyncio.to_thread(reader.read, _MAX_RECORDS, _MAX_BYTES)
                if records:
                    await take_in(self._engine, records)
            except BaseException:
                # A read that breaks stands behind records that nobody got.
                reader.rewind(self._taken.get(folder))
                raise
            self._taken[folder] = reader.position
            most = max(most, len(records))
        return most

    def _discover(self) -> None:
        for folder in SpoolReader.discover(self._spool):
            if folder not in self._readers:
                reader = SpoolReader(folder)
                self._readers[folder] = reader
                self._taken[folder] = reader.position

    async def _checkpoints(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._pause(stop, _SYNC_SECONDS)
            if not stop.is_set() and not self._is_due():
                continue
            try:
                await self.checkpoint()
            except VolumeError:
                log.error("archive failed", reason=self._failed)
                return
            except OSError as exc:
                # The archive has everything; what is not released is only read again.
                log.warning("spool could not be released", reason=str(exc))

    def _is_due(self) -> bool:
        """Whether to sync the archive: receiving waits for the disk meanwhile, so not in a burst.

        The log holds what is not synced; it is due when nothing came for a turn, when much has
        gathered, or when some of it has waited long.
        """
        seen, self._seen = self._seen, dict(self._taken)
        now = time.monotonic()
        if all(p == self._readers[f].released for f, p in seen.items()):
            self._unsynced_since = now
        return (
            seen == self._taken
            or now - self._unsynced_since >= _MOST_UNSYNCED_SECONDS
            or any(
                p.segment - self._readers[f].released.segment >= _MOST_UNSYNCED_SEGMENTS
                for f, p in self._taken.items()
            )
        )

    async def checkpoint(self) -> None:
        """Make the archive durable, then release what it now holds.

        Raises:
            VolumeError: The archive could not be synced; nothing is taken in any more.
            OSError: The sync could not begin, or a log not be released; the next call tries again.
        """
        due = {f: p for f, p in self._taken.items() if p != self._readers[f].released}
        if not due:
            return
        try:
            await asyncio.to_thread(self._engine.archive.sync)
        except VolumeError as exc:
            # After a failed sync a second one may say yes for bytes that are lost: what the log
            # still holds stays there until a person has looked at the volume.
            self._failed = f"the archive could not be synced: {exc}"
            if self._archive_fault is not None:
                self._archive_fault.say(f"sync failed: {exc}")
            raise VolumeError(self._failed) from exc
        for folder, position in due.items():
            self._readers[folder].release(position)


def _reason(exc: Exception) -> str:
    """What to tell of a fault; the path in an OSError is for the log only."""
    return (exc.strerror or "a file failed") if isinstance(exc, OSError) else str(exc)
