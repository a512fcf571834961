"""An association that RSO accepted: its messages, one after the other, until it ends."""

import mmap
import threading
from typing import Protocol

from msgspec import Struct
from pynetdicom.pdu import A_RELEASE_RP

from rso.core.transport import Sink
from rso.dicom import wire
from rso.dicom.dimse import C_ECHO_RQ, C_STORE_RQ, Command, read_command, write_response
from rso.dicom.wire import Wire, WireError

__all__ = ["AcceptedAssociation", "Handler", "Limits"]

_IN_MEMORY = 12 << 20
_MOST_COMMAND = 64 << 10
_TELL_STEP = 128 << 10  # bytes of a dataset after which its handler is told of them, at least


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds on what peers may take."""

    associations: int = 600
    waiting: int = 200
    per_address: int = 600
    artim_seconds: float = 10.0
    idle_seconds: float = 300.0
    handshake_seconds: float = 5.0
    message_bytes: int = 16 << 30


class Handler(Protocol):
    """What is done with one association's instances; used by its thread."""

    def store(
        self, command: Command, transfer_syntax_uid: str, dataset: memoryview
    ) -> tuple[int, str]:
        """Keep a dataset; status and comment. The view is gone when this returns."""

    def receiving(self, command: Command, transfer_syntax_uid: str, so_far: memoryview) -> None:
        """More of a dataset is there that will be stored, or not; it is all given each time."""

    def open(self, command: Command, transfer_syntax_uid: str) -> Sink:
        """Begin a dataset that is too large for memory."""

    def failed(self, exc: Exception) -> tuple[int, str]:
        """Status and comment of an error that a sink raised."""

    def close(self) -> None:
        """The association ended, however."""


class AcceptedAssociation:
    """An accepted association, until it is released or fails."""

    def __init__(
        self,
        link: Wire,
        handler: Handler,
        contexts: dict[int, str],
        most: int,
        limits: Limits,
        closing: threading.Event,
    ) -> None:
        self._link, self._handler = link, handler
        self._contexts, self._most, self._limits = contexts, most, limits
        self._closing = closing
        self._buffer: mmap.mmap | None = None
        self._used = 0
        self._told = 0
        self._total = 0
        self._command = bytearray()
        self._request: Command | None = None
        self._sink: Sink | None = None
        self._fault: tuple[int, str] | None = None

    def run(self) -> None:
        """Serve messages."""
        self._link.when_idle = self._forget_buffer
        try:
            while True:
                seconds = self._limits.idle_seconds
                kind, length = self._link.read_head(seconds)
                if kind == wire.DATA:
                    self._link.in_message = True
                    for fragment in self._link.fragments():
                        self._take(fragment)
                    if self._request is None and not self._command:
                        self._link.in_message = False
                        if self._closing.is_set():
                            raise WireError("RSO is shutting down")
                    continue
                self._link.read_body(length)
                if kind == wire.RELEASE_REQUEST:
                    self._link.send([A_RELEASE_RP().encode()])
                    return
                if kind == wire.ABORT:
                    return
                raise WireError("an unexpected PDU")
        finally:
            if self._sink is not None:
                self._sink.abort()

    def _take(self, fragment: wire.Fragment) -> None:
        if fragment.context_id not in self._contexts:
            raise WireError("a presentation context that was not accepted")
        if fragment.is_command:
            if self._request is not None or len(self._command) + fragment.length > _MOST_COMMAND:
                raise WireError("a command set is out of place or too long")
            start = len(self._command)
            self._command += bytes(fragment.length)
            self._link.read_into(memoryview(self._command)[start:])
            if fragment.is_last:
                self._begin(read_command(self._command), fragment.context_id)
            return
        if self._request is None:
            raise WireError("a dataset without a command")
        self._take_data(fragment)
        if fragment.is_last:
            self._finish(fragment.context_id)

    def _begin(self, command: Command, context_id: int) -> None:
        self._command = bytearray()
        if command.field == C_STORE_RQ and command.has_dataset:
            self._request, self._fault = command, None
            self._used = self._told = self._total = 0
            return
        status = 0x0000 if command.field == C_ECHO_RQ else 0x0211  # unrecognised operation
        if command.has_dataset or command.field & 0x8000:
            raise WireError("an operation that is not offered")
        self._answer(command, context_id, status, "")

    def _take_data(self, fragment: wire.Fragment) -> None:
        self._total += fragment.length
        if self._total > self._limits.message_bytes:
            raise WireError("a message is larger than is allowed")
        if self._buffer is None:
            # Mapped: pages that no dataset reaches cost nothing.
            self._buffer = mmap.mmap(-1, _IN_MEMORY)
        end = self._used + fragment.length
        if end > _IN_MEMORY:
            self._spill(fragment.context_id)
            end = fragment.length
        self._link.read_into(memoryview(self._buffer)[self._used : end])
        self._used = end
        if (
            end - self._told >= max(_TELL_STEP, self._told >> 3)
            and self._sink is None
            and not fragment.is_last
        ):
            assert self._request is not None
            syntax = self._contexts[fragment.context_id]
            self._handler.receiving(self._request, syntax, self._dataset())
            self._told = end

    def _dataset(self) -> memoryview:
        return memoryview(self._buffer or b"")[: self._used]

    def _forget_buffer(self) -> None:
        self._buffer = None

    def _spill(self, context_id: int) -> None:
        """Hand what is in memory to the sink; after a fault the rest is read and dropped."""
        assert self._request is not None
        if self._fault is None:
            try:
                if self._sink is None:
                    self._sink = self._handler.open(self._request, self._contexts[context_id])
                self._sink.write(self._dataset())
            except Exception as exc:
                self._fault = self._handler.failed(exc)
                if self._sink is not None:
                    self._sink.abort()
                    self._sink = None
        self._used = 0

    def _finish(self, context_id: int) -> None:
        command, self._request = self._request, None
        assert command is not None
        sink, fault = self._sink, self._fault
        if fault is not None:
            status, comment = fault
        elif sink is not None:
            try:
                sink.write(self._dataset())
                sink.commit()
                status, comment = 0x0000, ""
            except Exception as exc:
                sink.abort()
                status, comment = self._handler.failed(exc)
        else:
            view = self._dataset()
            status, comment = self._handler.store(command, self._contexts[context_id], view)
            view.release()
        self._sink = None
        self._answer(command, context_id, status, comment)

    def _answer(self, command: Command, context_id: int, status: int, comment: str) -> None:
        data = write_response(command, status, comment)
        self._link.send(wire.data_pdus(context_id, data, self._most, is_command=True))
