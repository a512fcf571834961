"""The threads that hold sessions to one destination open and send through them.

Parallel sessions are an offer: one that the destination does not take is no failure, its work
goes to those that are open. Idle sessions are released.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct, structs

from rso.core.errors import PermanentTransportError, RsoError, TransientTransportError
from rso.core.printable import printable
from rso.core.transport import Outcome, Sender, SenderSession, SendResult
from rso.engine.outgoing import Parcel, Preparer

__all__ = ["Fault", "NotSent", "SessionThreads"]

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 3.0
_REFUSED_SECONDS = 30.0
_JOIN_SECONDS = 30.0
_MOST_CODE = 16


class Fault(Struct, frozen=True, kw_only=True):
    """The connection failed; ``item`` tells whether it did so while this instance was sent."""

    item: bool
    reason: str
    code: str = "fault"


class NotSent(SendResult, frozen=True, kw_only=True):
    """The end of an instance that could not be prepared: says nothing of its destination."""


class SessionThreads:
    """Feeds up to ``sender.parallel`` sessions from one queue, the most urgent first."""

    def __init__(
        self,
        sender: Sender,
        preparer: Preparer,
        answer: Callable[[Parcel, SendResult | Fault], None],
    ) -> None:
        self._sender = sender
        self._preparer = preparer
        self._answer = answer
        self._queue: queue.PriorityQueue[tuple[int, int, Parcel]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open = 0
        self._closing = threading.Event()
        self._alone_until = 0.0  # no further session is tried before

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Queue parcels and see that enough threads work on them."""
        for parcel in parcels:
            self._queue.put((parcel.priority, next(self._order), parcel))
        self.tend()

    def tend(self) -> None:
        """See that threads work on what is queued: one that could not connect has ended.

        Its fault alone does not empty the queue where another instance was just acknowledged.
        """
        with self._lock:
            self._threads = [t for t in self._threads if t.is_alive()]
            wanted = min(self._sender.parallel, self._queue.qsize())
            if self._threads and time.monotonic() < self._alone_until:
                return
            for _ in range(wanted - len(self._threads)):
                thread = threading.Thread(target=self._run, name="session", daemon=True)
                self._threads.append(thread)
                thread.start()

    def drain(self) -> list[Parcel]:
        """Take back what no session has begun."""
        parcels = []
        while True:
            try:
                parcels.append(self._queue.get_nowait()[2])
            except queue.Empty:
                return parcels

    def close(self) -> None:
        """Let each session finish its instance, then end them."""
        self._closing.set()
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.1))

    def _run(self) -> None:
        worker = _Worker(self)
        try:
            while not self._closing.is_set():
                try:
                    _, _, parcel = self._queue.get(timeout=_IDLE_SECONDS)
                except queue.Empty:
                    # put() counts a live thread as one that will take its work.
                    with self._lock:
                        if self._queue.empty():
                            self._threads.remove(threading.current_thread())
                            return
                    continue
                if not worker.deliver(parcel):
                    return
        finally:
            worker.close()

    def _wanted(self, first: tuple[str, str]) -> list[tuple[str, str]]:
        with self._queue.mutex:
            ahead = [entry[2].pair for entry in sorted(self._queue.queue)]
        return list(dict.fromkeys([first, *ahead]))[: self._sender.most_pairs]

    def _may_open(self) -> bool:
        """Whether a failure to open counts: it does when no other session stands."""
        with self._lock:
            return self._open == 0

    def _count(self, change: int) -> None:
        with self._lock:
            self._open += change


class _Worker:
    """One thread's session."""

    def __init__(self, threads: SessionThreads) -> None:
        self._of = threads
        self._session: SenderSession | None = None
        self._offered: set[tuple[str, str]] = set()  # what the session was opened for

    def deliver(self, parcel: Parcel) -> bool:
        """Send one parcel and report; False when this thread should end."""
        of = self._of
        try:
            outgoing = of._preparer.outgoing(parcel)
        except Exception as exc:  # stops this instance, and not the thread of all
            reason = _reason(parcel, exc)
            self._answer(parcel, NotSent(outcome=Outcome.STOPPED, code="local", reason=reason))
            return True
        if self._session is not None and parcel.pair not in self._offered:
            self.close()
        if self._session is None and not self._connect(parcel):
            return False
        assert self._session is not None
        try:
            self._answer(parcel, self._session.send(outgoing))
        except TransientTransportError as exc:
            self._drop(parcel, str(exc))
        except PermanentTransportError as exc:
            self.close()  # perhaps in the middle of this instance: the next would be part of it
            result = SendResult(outcome=Outcome.STOPPED, code="refused", reason=str(exc))
            self._answer(parcel, result)
        except Exception as exc:  # a sender's own fault must not end the courier
            log.exception("sender failed")
            self._drop(parcel, f"{type(exc).__name__} in the sender")
        return True

    def _answer(self, parcel: Parcel, result: SendResult | Fault) -> None:
        """Report; what no row can hold is left out, for it would take others' answers along."""
        reason, code = printable(result.reason), printable(result.code)[:_MOST_CODE]
        self._of._answer(parcel, structs.replace(result, reason=reason, code=code))

    def _connect(self, parcel: Parcel) -> bool:
        of = self._of
        try:
            wanted = of._wanted(parcel.pair)
            self._session = of._sender.open(wanted)
        except Exception as exc:
            reason = str(exc)
            if not isinstance(exc, RsoError):
                log.exception("sender failed")
                reason = f"{type(exc).__name__} in the sender"
            if of._may_open():
                self._answer(parcel, Fault(item=False, reason=reason))
            else:
                of._alone_until = time.monotonic() + _REFUSED_SECONDS
                of._queue.put((parcel.priority, next(of._order), parcel))
            return False
        self._offered = set(wanted)
        of._count(+1)
        return True

    def _drop(self, parcel: Parcel, reason: str) -> None:
        self.close()
        self._answer(parcel, Fault(item=True, reason=reason))

    def close(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None
            self._of._count(-1)


def _reason(parcel: Parcel, exc: Exception) -> str:
    """Why an instance cannot be prepared, for a person; a fault of our own is in the log too."""
    if isinstance(exc, RsoError):
        return str(exc)
    if isinstance(exc, OSError):
        return "its archive file cannot be read"
    log.error("instance cannot be prepared", instance=parcel.instance, exc_info=exc)
    return f"{type(exc).__name__} while it was prepared"
