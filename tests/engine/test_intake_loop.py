"""The intake loop when what it leans on fails."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from rso.core.errors import VolumeError
from rso.engine.archive import LocalArchive
from rso.engine.intake_loop import IntakeLoop


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


async def test_a_failed_sync_is_not_trusted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is released from the log, and nothing more is taken in, until a person looked."""
    loop = IntakeLoop(Parts(tmp_path), tmp_path / "spool")  # type: ignore[arg-type]
    tried = 0

    async def fails() -> None:
        nonlocal tried
        tried += 1
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(loop, "checkpoint", fails)
    monkeypatch.setattr("rso.engine.intake_loop._SYNC_SECONDS", 0.01)
    stop = asyncio.Event()
    task: Any = asyncio.create_task(loop.run(stop))
    await asyncio.sleep(0.3)
    with pytest.raises(VolumeError, match="could not be synced"):
        await loop.step()
    stop.set()
    await asyncio.wait_for(task, 5)
    assert tried == 1
