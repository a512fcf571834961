"""Delivery: one courier a destination, its own queue, sessions and circuit breaker.

Items are leased in the ledger, sent by threads, and their answers journalled in groups: after a
crash only what was answered but not yet journalled is sent again. Whoever ends a lease in the
ledger (a stop, a recall) is heard at the courier's next turn: only what a session had begun by
then still leaves, and its acknowledgement is written down too. While the database does not answer,
or undoes what it was told, the courier keeps the answers and goes on.
"""

import asyncio
import contextlib
import queue
import random
import time
from datetime import timedelta
from typing import Any

import structlog
from msgspec import structs

from rso.core.delivery import backoff
from rso.core.transport import Outcome, Sender, SendResult
from rso.engine.again import run_again
from rso.engine.context import Engine
from rso.engine.late import note_late
from rso.engine.outbox import emit
from rso.engine.outgoing import Parcel, Preparer
from rso.engine.sessions import Fault, NotSent, SessionThreads
from rso.engine.settle import conclude
from rso.ledger import LedgerUnavailable
from rso.ledger.attempts import keep_attempts
from rso.ledger.deliveries import (
    Answer,
    claim_items,
    complete_items,
    give_back,
    lock_deliveries,
    next_due,
    release_items,
    renew_items,
)
from rso.ledger.exams import now
from rso.ledger.leases import leased_items

__all__ = ["Courier"]

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 120.0
_AHEAD = 64  # items leased ahead for each session
_GROUP_SECONDS = 0.05  # how long answers wait for company before they are journalled, at least
_MOST_GROUP_SECONDS = 0.2
_IDLE_SECONDS = 1.0
_RECONNECT_CAP_SECONDS = 60.0
_FINISH_TRIES = 3
_NOTE_SECONDS = 1.0  # how old the ledger's last success of a busy destination may be


class Courier:
    """Sends everything that is due to one destination, until it is closed."""

    def __init__(
        self, engine: Engine, code: str, sender: Sender, preparer: Preparer, owner: str
    ) -> None:
        self.engine = engine
        self.code = code
        self.owner = f"{owner}:{code}"
        self.wake = asyncio.Event()
        self.preparer = preparer
        self.sender = sender
        self.leased: dict[str, Parcel] = {}
        self.lost: set[str] = set()  # of these: begun by a session, and no longer to be sent
        self.failures = 0
        self.open_until = 0.0  # monotonic; the breaker lets nothing through before
        self.renew_at = 0.0
        self.note_at = 0.0
        self.journal_seconds = 0.0  # how long the last group of answers took
        loop = asyncio.get_running_loop()
        self.answers: queue.SimpleQueue[tuple[Parcel, SendResult | Fault]] = queue.SimpleQueue()
        self.answered = asyncio.Event()
        self.unwritten: list[tuple[Parcel, SendResult | Fault]] = []  # of these answers

        def answer(parcel: Parcel, result: SendResult | Fault) -> None:
            self.answers.put((parcel, result))
            loop.call_soon_threadsafe(self.answered.set)

        self.sessions = SessionThreads(sender, preparer, answer)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what is under way and give the rest back."""
        try:
            await run_again(lambda: self._turns(stop), stop, what=f"courier {self.code}")
        finally:
            try:
                await asyncio.to_thread(self.sessions.close)
                await self._finish()
            finally:
                self.sender.close()

    async def _turns(self, stop: asyncio.Event) -> None:
        await self.journal()
        # Of a turn that failed: claimed, but not known to be, or not given back.
        stray = await leased_items(self.engine.ledger, self.owner) - self.leased.keys()
        await give_back(self.engine.ledger, self.owner, sorted(stray))
        while not stop.is_set():
            self.wake.clear()  # in each turn: what woke it must not keep it from resting
            await self.journal()
            paused = await self._is_paused()
            await self._keep_leases(paused=paused)
            self.sessions.tend()
            if paused or not await self._lease():
                await self._rest()

    async def _finish(self) -> None:
        """Write the last answers down; those that cannot be are asked for again in another life."""
        for _ in range(_FINISH_TRIES):
            try:
                await self.journal()
                await release_items(self.engine.ledger, self.owner)
            except LedgerUnavailable as exc:
                reason = str(exc)
                await asyncio.sleep(_IDLE_SECONDS)
            else:
                return
        log.error("answers could not be written down", destination=self.code, reason=reason)

    async def _lease(self) -> bool:
        """Lease more work where there is room for it; False when there is nothing to do now."""
        if time.monotonic() < self.open_until:
            return False
        room = _AHEAD * self.sender.parallel - len(self.leased)
        if room < _AHEAD // 2:
            return False
        rows = await claim_items(
            self.engine.ledger, self.code, self.owner, limit=room, seconds=_LEASE_SECONDS
        )
        # Taken away since the leases were looked at: what is ready of these is out of date.
        stale = [row["item"] for row in rows if row["item"] in self.leased]
        await give_back(self.engine.ledger, self.owner, stale)
        rows = [row for row in rows if row["item"] not in self.leased]
        if not rows:
            return False
        self.renew_at = self.renew_at or time.monotonic() + _LEASE_SECONDS / 3
        parcels = await self.preparer.parcels(rows)
        self.leased.update((p.item, p) for p in parcels)
        self.sessions.put(parcels)
        return True

    async def _keep_leases(self, *, paused: bool) -> None:
        """Keep what is leased, and take out of the queue what may not leave any more."""
        if not self.leased:
            return
        ledger = self.engine.ledger
        if time.monotonic() > self.renew_at:
            self.renew_at = time.monotonic() + _LEASE_SECONDS / 3
            await renew_items(ledger, self.owner, seconds=_LEASE_SECONDS)
        gone = self.leased.keys() - await leased_items(ledger, self.owner)
        if not gone and not paused:
            return
        queued = self.sessions.drain()
        if not paused:
            self.sessions.put([p for p in queued if p.item not in gone])
        back = [p.item for p in queued if paused or p.item in gone]
        for item in back:
            del self.leased[item]
        self.lost = (self.lost | gone) & self.leased.keys()
        await give_back(ledger, self.owner, back)
        if back:
            log.info("instances are taken back", destination=self.code, instances=len(back))

    async def _is_paused(self) -> bool:
        rows = await self.engine.ledger.fetch(
            "SELECT paused FROM destination WHERE code = ?", self.code
        )
        return not rows or bool(rows[0]["paused"])

    async def _rest(self) -> None:
        """Wait for an answer, new work, or the time when something is due again."""
        seconds = _IDLE_SECONDS
        if not self.leased:
            wait = self.open_until - time.monotonic()
            if wait > 0:
                seconds = min(wait, _IDLE_SECONDS)
            elif due := await next_due(self.engine.ledger, self.code):
                seconds = min(max((due - now()).total_seconds(), 0.02), _IDLE_SECONDS)
        waits = [asyncio.ensure_future(e.wait()) for e in (self.answered, self.wake)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            for task in waits:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self.answered.is_set() and self.answers.qsize() < _AHEAD // 2:
            wait = _GROUP_SECONDS
            if self.answers.qsize() < len(self.leased):
                # More is on its way: journalling may take a third of the time, not all of it.
                wait = min(max(wait, 2 * self.journal_seconds), _MOST_GROUP_SECONDS)
            await asyncio.sleep(wait)

    async def journal(self) -> None:
        """Write down what the destination answered."""
        self.answered.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self.unwritten.append(self.answers.get_nowait())
        taken = self.unwritten
        if not taken:
            return
        began = time.monotonic()
        answers = [self._judge(p, r) for p, r in taken if isinstance(r, SendResult) or r.item]
        await self._write(answers)
        self.unwritten = []
        self.journal_seconds = time.monotonic() - began
        faults = [r for _, r in taken if isinstance(r, Fault)]
        succeeded = any(isinstance(r, SendResult) and not isinstance(r, NotSent) for _, r in taken)
        for parcel, _ in taken:
            self.leased.pop(parcel.item, None)
        untried = [p.item for p, r in taken if isinstance(r, Fault) and not r.item]
        lost = [p.item for p, _ in taken if p.item in self.lost]
        self.lost.difference_update(lost)
        await give_back(self.engine.ledger, self.owner, untried + lost)
        await self._note_health(faults, succeeded=succeeded)
        if faults and not succeeded:
            await self._keep_faults({p.delivery for p, r in taken if isinstance(r, Fault)}, faults)

    def _judge(self, parcel: Parcel, result: SendResult | Fault) -> Answer:
        attempts = parcel.attempts + 1
        again = now() + timedelta(seconds=backoff(attempts, random.random()))  # noqa: S311
        answer = Answer(
            item=parcel.item,
            delivery=parcel.delivery,
            instance=parcel.instance,
            state="pending",
            attempts=attempts,
            next_at=again,
            code=result.code[:16],
            reason=result.reason,
        )
        if isinstance(result, SendResult) and result.outcome is not Outcome.RETRY:
            return structs.replace(answer, state=result.outcome.value, next_at=None)
        return answer

    async def _write(self, answers: list[Answer]) -> None:
        if not answers:
            return
        ledger = self.engine.ledger
        async with ledger.transaction():
            await lock_deliveries(ledger, sorted({a.delivery for a in answers}))
            # Leased anew, it may have another identity by now than it just left with.
            asked = [a for a in answers if a.item not in self.lost]
            changed = await complete_items(ledger, self.owner, asked)
            marks = ",".join("?" * len(changed)) or "NULL"
            exams = await ledger.fetch(
                f"SELECT DISTINCT exam FROM delivery WHERE id IN ({marks})",  # noqa: S608
                *changed,
            )
            await conclude(self.engine, [row["exam"] for row in exams])
            stopped: dict[str, Any] = {a.delivery: a for a in asked if a.state == "stopped"}
            for delivery, answer in stopped.items():
                rows = await ledger.fetch("SELECT exam FROM delivery WHERE id = ?", delivery)
                await emit(
                    ledger,
                    "delivery_failed",
                    exam=rows[0]["exam"],
                    dedupe=f"delivery_failed:{delivery}:{answer.code}",
                    facts={"destination": self.code, "code": answer.code, "reason": answer.reason},
                )
            await note_late(self.engine, self.code, answers)

    async def _keep_faults(self, deliveries: set[str], faults: list[Fault]) -> None:
        """Note at each delivery that waits that its destination could not be reached."""
        fault = faults[-1]
        if not fault.item:
            await keep_attempts(
                self.engine.ledger,
                [(d, d, "pending", fault.code, fault.reason, now()) for d in sorted(deliveries)],
            )

    async def _note_health(self, faults: list[Fault], *, succeeded: bool) -> None:
        ledger = self.engine.ledger
        if succeeded and (self.failures or time.monotonic() >= self.note_at):
            if self.failures:
                log.info("destination answers again", destination=self.code)
            self.failures = 0
            self.note_at = time.monotonic() + _NOTE_SECONDS
            await ledger.execute(
                "UPDATE destination SET failures = 0, open_until = NULL, last_success_at = ?,"
                " last_error = '' WHERE code = ?",
                now(),
                self.code,
            )
        if not faults or succeeded:
            return
        self.failures += 1
        pause = min(backoff(self.failures, random.random()), _RECONNECT_CAP_SECONDS)  # noqa: S311
        self.open_until = time.monotonic() + pause
        back = self.sessions.drain()
        for parcel in back:
            self.leased.pop(parcel.item, None)
        await give_back(ledger, self.owner, [p.item for p in back])
        log.warning(
            "destination fails",
            destination=self.code,
            reason=faults[-1].reason,
            again_in_seconds=round(pause, 1),
        )
        await ledger.execute(
            "UPDATE destination SET failures = ?, open_until = ?, last_error = ? WHERE code = ?",
            self.failures,
            now() + timedelta(seconds=pause),
            faults[-1].reason[:500],
            self.code,
        )
