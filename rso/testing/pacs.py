"""A PACS for tests and the demo: it takes everything, answers as scripted, and remembers."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from msgspec import Struct

from rso.core.transport import Buffer, Receipt, Sink
from rso.dicom.acceptor import Acceptor, Handler, Limits, Refusal, Request
from rso.dicom.dimse import Command
from rso.dicom.header import scan_header
from rso.testing.site import free_port

__all__ = ["Pacs", "Received", "script"]


class Received(Struct, frozen=True, kw_only=True):
    """One instance as it arrived: a SHA-256 of its dataset, the bytes, and when (monotonic)."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    dataset: bytes
    at: float


def script(statuses: Mapping[str, Sequence[int]], otherwise: int = 0) -> Callable[[str, int], int]:
    """Answers by SOP Instance UID: the first time, the second, ...; the last one stands."""

    def answer(uid: str, count: int) -> int:
        lines = statuses.get(uid) or (otherwise,)
        return lines[min(count, len(lines)) - 1]

    return answer


class Pacs:
    """A C-STORE SCP on loopback.

    Args:
        answer: The status for a SOP Instance UID and the how-manieth time it comes; 0 by default.
    """

    def __init__(self, answer: Callable[[str, int], int] = lambda _uid, _count: 0) -> None:
        self.answer = answer
        self._lock = threading.Lock()
        self._acceptor: Acceptor | None = None
        self.received: list[Received] = []
        self.asked: Counter[str] = Counter()
        self.port = 0

    def start(self, port: int = 0) -> int:
        """Listen; returns the port."""
        self._acceptor = Acceptor(self, Limits())
        self.port = self._acceptor.listen("127.0.0.1", port or free_port())
        return self.port

    def stop(self) -> None:
        """Stop listening."""
        if self._acceptor is not None:
            self._acceptor.close(2.0)
            self._acceptor = None

    def by_uid(self) -> dict[str, Received]:
        """What was acknowledged, the last of each SOP Instance UID."""
        with self._lock:
            return {r.sop_instance_uid: r for r in self.received}

    def admit(self, request: Request) -> Handler | Refusal:  # noqa: ARG002  (takes everybody)
        """Everybody may come."""
        return _Taker(self)

    def transfer_syntax(self, abstract_syntax: str, offered: Sequence[str]) -> str | None:  # noqa: ARG002
        """Everything is taken as it is."""
        return offered[0]

    def turns_away(self, peer_address: str, certificate_fingerprint: str | None) -> bool:  # noqa: ARG002
        """Nobody is."""
        return False

    def refuse(self, request: Request, reason: str) -> Refusal:  # noqa: ARG002
        """An offer beyond bounds is refused like anywhere."""
        return Refusal()

    def handshake_failed(self, peer_address: str, reason: str) -> None:
        """It speaks no TLS."""

    def take(self, command: Command, transfer_syntax_uid: str, dataset: bytes) -> int:
        """Remember an instance and say what is answered."""
        uid = command.sop_instance_uid
        with self._lock:
            self.asked[uid] += 1
            count = self.asked[uid]
        status = self.answer(uid, count)
        if status == 0 or status & 0xF000 == 0xB000:
            digest = sha256(transfer_syntax_uid.encode() + b"\0" + dataset).hexdigest()
            with self._lock:
                self.received.append(
                    Received(
                        sop_instance_uid=uid,
                        transfer_syntax_uid=transfer_syntax_uid,
                        digest=digest,
                        dataset=dataset,
                        at=time.monotonic(),
                    )
                )
        return status


class _Taker:
    def __init__(self, pacs: Pacs) -> None:
        self._pacs = pacs

    def store(
        self, command: Command, transfer_syntax_uid: str, dataset: memoryview
    ) -> tuple[int, str]:
        return self._pacs.take(command, transfer_syntax_uid, bytes(dataset)), ""

    def receiving(self, command: Command, transfer_syntax_uid: str, so_far: memoryview) -> None:
        pass

    def open(self, command: Command, transfer_syntax_uid: str) -> Sink:
        return _Sink(self._pacs, command, transfer_syntax_uid)

    def failed(self, exc: Exception) -> tuple[int, str]:
        return (exc.status if isinstance(exc, _AnswerError) else 0x0110), ""

    def close(self) -> None:
        pass


class _AnswerError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}")
        self.status = status


class _Sink:
    """A large dataset; it stays in memory, as everything here."""

    def __init__(self, pacs: Pacs, command: Command, transfer_syntax_uid: str) -> None:
        self._pacs, self._command, self._syntax = pacs, command, transfer_syntax_uid
        self._data = bytearray()

    def write(self, data: Buffer) -> None:
        self._data += data

    def commit(self) -> Receipt:
        status = self._pacs.take(self._command, self._syntax, bytes(self._data))
        if status:
            raise _AnswerError(status)
        header = scan_header(self._data, self._syntax)
        return Receipt(record_id="", header=header, size=len(self._data))

    def abort(self) -> None:
        self._data = bytearray()
