"""Thumbnails: drawn by a process of their own, kept on disk by instance, shown or left out.

The web never decodes pixels. One process draws one picture under limits of memory, processor time
and the clock; whatever goes wrong in there, the answer here is "no picture". The folder is a
cache: it may be emptied at any time.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import structlog

from rso.dicom.thumbnail import NO_PICTURE

__all__ = ["THUMBNAILS", "Thumbnails", "forget_thumbnails"]

log = structlog.get_logger(__name__)

THUMBNAILS = "thumbnails"  # the folder below data_dir
_COMMAND = (sys.executable, "-I", "-m", "rso.dicom.thumbnail")
_AT_ONCE = 2
_MOST_WAITING = 64
_SECONDS = 15.0
_MOST_BYTES = 256 << 10
_ASK_AGAIN_SECONDS = 24 * 3600.0  # what could not be drawn is tried again after so long
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads reserve memory


class Thumbnails:
    """The pictures of one archive.

    Args:
        folder: Where they are kept.
        seconds: How long one may be drawn before its process is killed.
        command: What draws; the file's path is added.
    """

    def __init__(
        self, folder: Path, *, seconds: float = _SECONDS, command: Sequence[str] = _COMMAND
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._command = command
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._drawing: dict[str, asyncio.Task[bytes | None]] = {}

    async def picture(self, instance: str, source: Path) -> bytes | None:
        """An instance's picture as WebP; ``None`` when there is none, or too many are asked for.

        Args:
            instance: The instance's key in the ledger, already checked against who asks.
            source: Its file in the archive.
        """
        path = _place(self._folder, instance)
        found = await asyncio.to_thread(_read, path)
        if found is not None:
            return found or None
        task = self._drawing.get(instance)
        if task is None:
            if len(self._drawing) >= _MOST_WAITING or not source.exists():
                return None
            task = asyncio.create_task(self._draw(path, source))
            self._drawing[instance] = task
            task.add_done_callback(lambda _: self._drawing.pop(instance, None))
        # A browser that leaves does not take the picture from the others that wait for it.
        return await asyncio.shield(task)

    async def _draw(self, path: Path, source: Path) -> bytes | None:
        async with self._turns:
            picture = await self._run(source)
        await asyncio.to_thread(_write, path, picture or b"")
        return picture

    async def _run(self, source: Path) -> bytes | None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            str(source),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        assert process.stdout is not None
        picture = b""
        try:
            async with asyncio.timeout(self._seconds):
                while data := await process.stdout.read(64 << 10):
                    picture += data
                    if len(picture) > _MOST_BYTES:
                        return None
                code = await process.wait()
        except TimeoutError:
            log.warning("a thumbnail took too long", instance=source.stem)
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code not in {0, NO_PICTURE}:
            log.warning("a thumbnail's process was ended", instance=source.stem, exit=code)
        is_webp = picture[:4] == b"RIFF" and picture[8:12] == b"WEBP"
        return picture if code == 0 and is_webp else None


def _place(folder: Path, instance: str) -> Path:
    key = UUID(instance).hex
    return folder / key[-2:] / f"{key}.webp"


def _read(path: Path) -> bytes | None:
    """What is kept: a picture, nothing (it could not be drawn), or ``None``: not tried lately."""
    try:
        data = path.read_bytes()
        old = not data and time.time() - path.stat().st_mtime > _ASK_AGAIN_SECONDS
    except OSError:
        return None
    return None if old else data


def _write(path: Path, picture: bytes) -> None:
    # A full disk costs the picture's place, never the page.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(picture)
        temporary.rename(path)


def forget_thumbnails(data_dir: Path, instances: Sequence[str]) -> None:
    """Remove the pictures of instances that left the archive."""
    for instance in instances:
        _place(data_dir / THUMBNAILS, instance).unlink(missing_ok=True)
