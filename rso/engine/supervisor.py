"""The supervisor: one process a role, restarted when it crashes, drained on SIGTERM.

A child reports its addresses as one line of JSON on its standard output when it listens, and stops
when its standard input closes, so no child outlives a supervisor that was killed.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import structlog
from msgspec import Struct

from rso.core.errors import ConfigError

__all__ = ["ROLES", "Child", "Supervisor"]

log = structlog.get_logger(__name__)

ROLES = ("receive", "web", "work")
_DRAIN_SECONDS = 40.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_AFTER_READY_SECONDS = 2.0  # it can start: what it serves shall not wait
_STEADY_SECONDS = 30.0
_CONFIG_EXIT = 2  # a child's word that starting it again cannot help


class Child(Struct, frozen=True, kw_only=True):
    """A process to keep running."""

    name: str
    command: tuple[str, ...]


class Supervisor:
    """Runs children until it is told to stop."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        on_ready: Callable[[Mapping[str, Sequence[str]]], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._children = children
        self._on_ready = on_ready
        self._environment = environment
        self._addresses: dict[str, list[str]] = {}
        self._stop = asyncio.Event()
        self._failed = ""
        self._announced = False
        self._ready: set[str] = set()  # those that have listened since they were last started

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; every child is drained before this returns.

        Raises:
            ConfigError: A child cannot start with this configuration.
        """
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop.set)
        await asyncio.gather(*(self._keep(child) for child in self._children))
        if self._failed:
            raise ConfigError(self._failed)

    async def _keep(self, child: Child) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            began = time.monotonic()
            self._ready.discard(child.name)
            code = await self._run_once(child)
            if self._stop.is_set():
                return
            if code == _CONFIG_EXIT and not self._announced:
                self._failed = f"{child.name} could not start; its message is above"
                self._stop.set()
                return
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            if child.name in self._ready:
                pause = min(pause, _LONGEST_PAUSE_AFTER_READY_SECONDS)
            log.error("process ended", process=child.name, exit=code, again_in_seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _run_once(self, child: Child) -> int:
        process = await asyncio.create_subprocess_exec(
            *child.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            # The terminal's Ctrl-C reaches the supervisor only; it drains the children itself.
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        reports = asyncio.create_task(self._read_reports(child, process.stdout))
        waits = {
            asyncio.create_task(process.wait(), name="exit"),
            asyncio.create_task(self._stop.wait(), name="stop"),
        }
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _DRAIN_SECONDS)
            except TimeoutError:
                log.error("process did not drain", process=child.name)
                process.kill()
        for task in waits:
            task.cancel()
        code = await process.wait()
        process.stdin.close()
        await reports
        return code

    async def _read_reports(self, child: Child, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            try:
                self._addresses[child.name] = list(json.loads(line)["ready"])
                self._ready.add(child.name)
            except (ValueError, KeyError, TypeError):
                sys.stderr.write(line.decode("utf-8", "replace"))
                continue
            if not self._announced and len(self._addresses) == len(self._children):
                self._announced = True
                self._on_ready(self._addresses)
