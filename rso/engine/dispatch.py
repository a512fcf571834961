"""The dispatcher: keeps one courier running for each destination in the ledger."""

import asyncio
import contextlib
from typing import Any

import msgspec
import structlog

from rso.core.errors import ConfigError, PluginError, RsoError
from rso.core.routing import Destination
from rso.core.transport import Sender
from rso.engine.again import run_again
from rso.engine.context import Engine
from rso.engine.delivery import Courier
from rso.engine.outgoing import Preparer
from rso.engine.router import retry_routing
from rso.ledger.deliveries import release_items
from rso.plugins.config import decode_options

__all__ = ["Dispatcher", "make_sender"]

log = structlog.get_logger(__name__)

_RELOAD_SECONDS = 2.0


def make_sender(engine: Engine, destination: Destination) -> Sender:
    """The sender of one destination.

    Raises:
        ConfigError: Its plugin is not installed, or its options are wrong.
        PluginError: The plugin could not begin.
    """
    if destination.sender not in engine.plugins.senders:
        raise ConfigError(
            f"destination {destination.code}: no installed sender is called {destination.sender}"
        )
    sender, config = engine.plugins.senders[destination.sender]
    options = decode_options(
        sender.options_type, destination.options, f"destination {destination.code}"
    )
    try:
        return sender(config, options)
    except RsoError:
        raise
    except Exception as exc:
        raise PluginError(destination.sender, f"{type(exc).__name__}: {exc}") from exc


class Dispatcher:
    """Starts, wakes and ends couriers as destinations come, change and go."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self._owner = owner
        self._running: dict[str, tuple[str, Courier, asyncio.Event, asyncio.Task[None]]] = {}
        self._broken: dict[str, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until ``stop`` is set, then let every courier finish what is under way."""
        # Leases of an earlier life of this process are void: nobody sends for them any more.
        earlier = self._owner.rsplit("/", 1)[0] + "/"
        await run_again(
            lambda: release_items(self._engine.ledger, earlier), stop, what="dispatcher"
        )
        try:
            await run_again(lambda: self._turns(stop), stop, what="dispatcher")
        finally:
            await self._end(list(self._running))

    async def _turns(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._reload()
            await retry_routing(self._engine)
            await self._wait(stop)

    async def _wait(self, stop: asyncio.Event) -> None:
        """Pass wake-ups on until it is time to look at the destinations again."""
        deadline = asyncio.get_running_loop().time() + _RELOAD_SECONDS
        while not stop.is_set():
            left = deadline - asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._engine.work.wait(), max(left, 0.01))
            if not self._engine.work.is_set():
                return
            self._engine.work.clear()
            for _, courier, _, _ in self._running.values():
                courier.wake.set()
            if any(await self._unserved()):
                return

    async def _unserved(self) -> list[str]:
        rows = await self._engine.ledger.fetch("SELECT code FROM destination")
        return [r["code"] for r in rows if r["code"] not in {*self._running, *self._broken}]

    async def _reload(self) -> None:
        rows = await self._engine.ledger.fetch(
            "SELECT code, radiologist, sender, egress, options FROM destination"
        )
        served = await self._engine.ledger.fetch(
            "SELECT a.radiologist, a.facility, f.issuer_of_patient_id FROM attachment a"
            " JOIN facility f ON f.code = a.facility ORDER BY a.radiologist, a.facility"
        )
        wanted = {
            row["code"]: str([row, [s for s in served if s["radiologist"] == row["radiologist"]]])
            for row in rows
        }
        await self._end(
            [code for code, running in self._running.items() if wanted.get(code) != running[0]]
        )
        for code, task in [(c, r[3]) for c, r in self._running.items()]:
            if task.done():
                log.error("courier ended", destination=code, reason=repr(task.exception()))
                await self._end([code])
        for row in rows:
            if row["code"] not in self._running:
                await self._begin(row, wanted[row["code"]])

    async def _begin(self, row: dict[str, Any], state: str) -> None:
        code = row["code"]
        destination = Destination(
            code=code,
            radiologist=row["radiologist"],
            sender=row["sender"],
            egress=row["egress"],
            options=msgspec.json.decode(row["options"]),
        )
        try:
            sender = make_sender(self._engine, destination)
        except Exception as exc:  # one that a plugin cannot make holds up no other
            reason = (
                str(exc) if isinstance(exc, RsoError) else f"{type(exc).__name__} in the sender"
            )
            if self._broken.get(code) != reason:
                fault = None if isinstance(exc, RsoError) else exc
                log.error(
                    "destination cannot be served", destination=code, reason=reason, exc_info=fault
                )
                self._broken[code] = reason
                await self._engine.ledger.execute(
                    "UPDATE destination SET last_error = ?, failures = 1 WHERE code = ?",
                    reason[:500],
                    code,
                )
            return
        self._broken.pop(code, None)
        preparer = Preparer(self._engine, destination)
        await preparer.load()
        courier = Courier(self._engine, code, sender, preparer, self._owner)
        stop = asyncio.Event()
        task = asyncio.create_task(courier.run(stop), name=f"courier {code}")
        self._running[code] = state, courier, stop, task

    async def _end(self, codes: list[str]) -> None:
        ending = [self._running.pop(code) for code in codes]
        for _, courier, stop, _ in ending:
            stop.set()
            courier.wake.set()
        await asyncio.gather(*(task for *_, task in ending), return_exceptions=True)
