"""Calling React hooks: each in a thread that may hang, and hangs alone.

A thread cannot be ended from outside. A call that takes too long is left to itself; its plugin is
not called before it has ended, so that no more threads hang than there are plugins.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import structlog

__all__ = ["DONE", "Reactions"]

log = structlog.get_logger(__name__)

DONE = "done"
_SECONDS = 15.0
_MOST_KEPT = 1000


class Reactions:
    """The calls of one process. Of its event loop alone."""

    def __init__(self) -> None:
        self._hanging: dict[str, str] = {}  # plugin: the event that it has not ended with
        self._late: dict[tuple[str, str], str] = {}  # how such calls ended after all

    async def call(self, event: str, hook: str, plugin: str, call: Callable[[], Any]) -> str:
        """Call one plugin for one event.

        Args:
            event: Key of the event: a call that ended too late counts for it when asked again.
            hook: For the log.
            plugin: Its name.
            call: The call.

        Returns:
            ``done``, or why not.
        """
        if (late := self._late.pop((event, plugin), None)) is not None:
            return late
        if plugin in self._hanging:
            return "not called: it has not ended with an earlier event"
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()

        def end(outcome: str) -> None:
            if self._hanging.get(plugin) == event:
                del self._hanging[plugin]
                if len(self._late) < _MOST_KEPT:
                    self._late[event, plugin] = outcome
                log.warning("plugin has ended after all", plugin=plugin, hook_name=hook)
            elif not ended.done():
                ended.set_result(outcome)

        def run() -> None:
            outcome = _outcome(call)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, outcome)

        # A daemon: one that hangs does not keep the process from ending.
        threading.Thread(target=run, name=f"hook {plugin}", daemon=True).start()
        await asyncio.wait({ended}, timeout=_SECONDS)
        if ended.done():
            outcome = ended.result()
            if outcome != DONE:
                log.warning("plugin failed in hook", plugin=plugin, hook_name=hook)
            return outcome
        self._hanging[plugin] = event
        log.error("plugin hangs in hook", plugin=plugin, hook_name=hook, seconds=_SECONDS)
        return f"no end after {_SECONDS:.0f} seconds"


def _outcome(call: Callable[[], Any]) -> str:
    try:
        call()
    except (Exception, SystemExit) as exc:  # a plugin's own fault, kept and tried again
        return f"{type(exc).__name__}: {exc}"[:200]
    return DONE
