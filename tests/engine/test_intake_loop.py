"""The intake loop when what it leans on fails."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from rso.core.errors import VolumeError
from rso.engine.archive import LocalArchive
from rso.engine.faults import standing_faults
from rso.engine.intake_loop import IntakeLoop
from rso.engine.spool_reader import Position


class Parts:
    """As much of an engine as the loop asks for."""

    def __init__(self, folder: Path) -> None:
        self.archive = LocalArchive(folder)


async def test_it_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """Also when nobody set ``stop``, as happens when another loop of the process failed."""
    loop = IntakeLoop(Parts(tmp_path), tmp_path / "spool")  # type: ignore[arg-type]
    task = asyncio.create_task(loop.run(asyncio.Event()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_what_keeps_failing_is_told_and_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intake that waits again and again is a fault for the others; one that goes on is none."""
    loop = IntakeLoop(Parts(tmp_path), tmp_path / "spool")  # type: ignore[arg-type]
    monkeypatch.setattr("rso.engine.intake_loop._FAULT_SECONDS", 0.01)
    broken = True

    async def step() -> int:
        if broken:
            raise OSError(errno.EIO, "Input/output error", "/a/path")
        return 0

    monkeypatch.setattr(loop, "step", step)
    stop = asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    async with asyncio.timeout(5):
        while not (found := standing_faults(tmp_path)):
            await asyncio.sleep(0.01)
        assert [str(fault) for fault in found] == ["intake: Input/output error"]
        broken = False
        while standing_faults(tmp_path):
            await asyncio.sleep(0.01)
        stop.set()
        await task


class Log:
    """A reader with something to release, which fails so many times."""

    released = Position(0, 0)

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def poll(self) -> bool:
        """Nothing to read."""
        return False

    def release(self, position: Position) -> None:
        """As the disk allows."""
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        self.released = position

    def close(self) -> None:
        """Nothing to close."""


async def run_checkpoints(loop: IntakeLoop, log: Log, until: Any) -> None:
    """Let the loop run with this log until something is so."""
    folder = Path("log")
    loop._readers[folder], loop._taken[folder] = log, Position(1, 0)  # type: ignore[assignment]
    stop = asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    async with asyncio.timeout(5):
        while not until():
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_a_failed_sync_is_not_trusted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is released from the log, and nothing more is taken in, until a person looked."""
    parts = Parts(tmp_path)
    loop = IntakeLoop(parts, tmp_path / "spool")  # type: ignore[arg-type]
    tried: list[int] = []

    def fails() -> None:
        tried.append(1)
        raise VolumeError("Input/output error")

    monkeypatch.setattr(parts.archive, "sync", fails)
    monkeypatch.setattr("rso.engine.intake_loop._SYNC_SECONDS", 0.01)
    log = Log(0)
    await run_checkpoints(loop, log, lambda: loop._failed)
    with pytest.raises(VolumeError, match="could not be synced"):
        await loop.step()
    assert len(tried) == 1
    assert log.released == Position(0, 0)


async def test_a_sync_that_could_not_begin_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive's folder could not be opened: nothing is lost by that, and intake goes on."""
    parts = Parts(tmp_path)
    loop = IntakeLoop(parts, tmp_path / "spool")  # type: ignore[arg-type]
    tried: list[int] = []

    def once() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(parts.archive, "sync", once)
    monkeypatch.setattr("rso.engine.intake_loop._SYNC_SECONDS", 0.01)
    log = Log(0)
    await run_checkpoints(loop, log, lambda: log.released == Position(1, 0))
    assert len(tried) == 2
    assert not await loop.step()


async def test_a_failed_release_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is durable by then: the log is released as soon as that works."""
    loop = IntakeLoop(Parts(tmp_path), tmp_path / "spool")  # type: ignore[arg-type]
    monkeypatch.setattr("rso.engine.intake_loop._SYNC_SECONDS", 0.01)
    log = Log(2)
    await run_checkpoints(loop, log, lambda: log.released == Position(1, 0))
    assert not await loop.step()


class Clock:
    """What ``time.monotonic`` says."""

    now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


def test_the_archive_is_synced_when_it_is_quiet_or_much_or_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a burst the disk is left to the receivers."""
    clock = Clock()
    monkeypatch.setattr("rso.engine.intake_loop.time", clock)
    loop = IntakeLoop(Parts(tmp_path), tmp_path / "spool")  # type: ignore[arg-type]
    folder, log = Path("log"), Log(0)
    loop._readers[folder] = log  # type: ignore[assignment]
    offset = 0

    def turn(segment: int = 0, *, more: bool = True) -> bool:
        nonlocal offset
        clock.now += 1
        offset += more
        loop._taken[folder] = Position(segment, offset)
        return loop._is_due()

    assert not turn()
    assert turn(more=False)  # nothing came for a turn
    log.released = Position(0, offset)
    assert [turn() for _ in range(12)].index(True) in {9, 10}  # something waits for ten seconds
    log.released = Position(0, offset)
    assert not turn()
    assert turn(4)  # much has gathered
