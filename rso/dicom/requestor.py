"""A requestor of associations: proposes exactly what it has, and sends without waiting twice."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from rso.core.errors import PermanentTransportError, TransientTransportError
from rso.core.transport import Piece
from rso.dicom import wire
from rso.dicom.dimse import (
    VERIFICATION,
    Response,
    read_response,
    write_echo_request,
    write_store_request,
)
from rso.dicom.elements import IMPLICIT_LITTLE
from rso.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from rso.dicom.wire import Wire, WireError

__all__ = ["MOST_CONTEXTS", "Requestor"]

MOST_CONTEXTS = 128
_CHUNK = 1 << 20
_MOST_ANSWER = 64 << 10
_FEWEST_BYTES = 128  # of a P-DATA, of which 6 are its own; a dataset would never end in less
_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


class Requestor:
    """One association that RSO asked for. Used by one thread."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        called_ae_title: str,
        calling_ae_title: str,
        contexts: Sequence[tuple[str, str]],
        context: ssl.SSLContext | None = None,
        connect_seconds: float = 10.0,
        answer_seconds: float = 60.0,
    ) -> None:
        self._answer_seconds = answer_seconds
        self._message_id = 0
        self._chunk = bytearray(_CHUNK)
        try:
            sock: socket.socket = socket.create_connection((host, port), connect_seconds)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host)
        except OSError as exc:
            raise TransientTransportError(
                f"no connection to {host}:{port}: {exc.strerror or exc}"
            ) from exc
        self._link = Wire(sock)
        try:
            self._associate(called_ae_title, calling_ae_title, contexts)
        except BaseException:
            self._link.close()
            raise

    def _associate(self, called: str, calling: str, contexts: Sequence[tuple[str, str]]) -> None:
        offered = []
        for number, (abstract_syntax, transfer_syntax_uid) in enumerate(contexts):
            one = PresentationContext()
            one.context_id = 2 * number + 1
            one.abstract_syntax = abstract_syntax
            one.transfer_syntax = [transfer_syntax_uid]
            offered.append(one)
        asked = A_ASSOCIATE()
        asked.application_context_name = "1.2.840.10008.3.1.1.1"
        asked.calling_ae_title, asked.called_ae_title = calling, called
        asked.presentation_context_definition_list = offered
        maximum = MaximumLengthNotification()
        maximum.maximum_length_received = wire.MOST_RECEIVED
        implementation = ImplementationClassUIDNotification()
        implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        version = ImplementationVersionNameNotification()
        version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        asked.user_information = [maximum, implementation, version]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(asked)
        self._link.send([pdu.encode()])
        kind, length = self._link.read_head(self._answer_seconds)
        whole = bytes([kind, 0]) + length.to_bytes(4, "big") + self._link.read_body(length)
        if kind == wire.REJECT:
            raise _rejection(whole)
        if kind != wire.ACCEPT:
            raise TransientTransportError("the association was aborted")
        answer = self._decode(whole)
        self.most = int(answer.maximum_length_received or 0)
        if 0 < self.most < _FEWEST_BYTES:
            raise TransientTransportError(f"the peer takes P-DATA of {self.most} bytes only")
        granted = {
            c.context_id for c in answer.presentation_context_definition_results_list
            if c.result == 0
        }  # fmt: skip
        self.contexts: dict[tuple[str, str], int] = {
            pair: int(one.context_id or 0)
            for pair, one in zip(contexts, offered, strict=True)
            if one.context_id in granted
        }

    def _decode(self, whole: bytes) -> Any:
        pdu = A_ASSOCIATE_AC()
        try:
            pdu.decode(whole)
            return pdu.to_primitive()
        except Exception as exc:  # pynetdicom raises what it likes on malformed items
            raise TransientTransportError("the peer's A-ASSOCIATE-AC is malformed") from exc

    def echo(self) -> Response:
        """C-ECHO (PS3.4 A)."""
        self._message_id += 1
        context_id = self.contexts.get((VERIFICATION, IMPLICIT_LITTLE))
        if context_id is None:
            raise PermanentTransportError("the peer offers no verification")
        data = write_echo_request(self._message_id)
        self._link.send(wire.data_pdus(context_id, data, self.most, is_command=True))
        return self._response()

    def store(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str,
        pieces: Sequence[bytes | Piece],
    ) -> Response:  # fmt: skip
        """C-STORE of a dataset given as its pieces (PS3.4 B).

        Raises:
            KeyError: No presentation context was accepted for it.
            TransientTransportError: The connection broke.
            PermanentTransportError: A piece cannot be read; the association is aborted.
        """
        context_id = self.contexts[sop_class_uid, transfer_syntax_uid]
        self._message_id = self._message_id % 0xFFFF + 1
        command = write_store_request(self._message_id, sop_class_uid, sop_instance_uid)
        try:
            self._send_message(context_id, command, pieces)
        except PermanentTransportError:
            self._abort()  # the peer waits for the rest of a dataset, and there is none
            raise
        return self._response()

    def _send_message(
        self, context_id: int, command: bytes, pieces: Sequence[bytes | Piece]
    ) -> None:
        parts = wire.data_pdus(context_id, command, self.most, is_command=True)
        left = sum(p.length if isinstance(p, Piece) else len(p) for p in pieces)
        room = self._room()
        used = 0
        for piece in pieces:
            offset = 0
            size = piece.length if isinstance(piece, Piece) else len(piece)
            with _opened(piece) as fill:
                while offset < size:
                    count = min(size - offset, room - used)
                    fill(offset, memoryview(self._chunk)[used : used + count])
                    offset += count
                    used += count
                    left -= count
                    if used == room or not left:
                        data = memoryview(self._chunk)[:used]
                        parts += wire.data_pdus(
                            context_id, data, self.most, is_command=False, is_last=not left
                        )
                        self._link.send(parts, self._answer_seconds)
                        parts, used = [], 0

    def _room(self) -> int:
        """Bytes of the chunk that fill whole PDUs."""
        each = (self.most or wire.MOST_RECEIVED) - 6
        return max(_CHUNK // each, 1) * each if each <= _CHUNK else _CHUNK

    def _response(self) -> Response:
        """The answer to the message that was sent, all of it within the patience for one."""
        command = bytearray()
        until = time.monotonic() + self._answer_seconds
        while True:
            kind, length = self._link.read_head(until - time.monotonic(), whole=True)
            if kind != wire.DATA:
                self._link.read_body(length)
                raise WireError("the association was aborted by the peer")
            for fragment in self._link.fragments():
                start = len(command)
                if not fragment.is_command or start + fragment.length > _MOST_ANSWER:
                    raise WireError("an answer is no command set, or too long")
                command += bytes(fragment.length)
                self._link.read_into(memoryview(command)[start:])
                if fragment.is_last:
                    response = read_response(command)
                    if response.message_id != self._message_id:
                        raise WireError("an answer to another message")
                    return response

    def release(self) -> None:
        """A-RELEASE, waited for briefly; then close. Never raises."""
        try:
            self._link.send([A_RELEASE_RQ().encode()], 5.0)
            kind, length = self._link.read_head(5.0)
            if kind != wire.DATA:
                self._link.read_body(length)
        except (TransientTransportError, OSError):
            pass
        self._link.close()

    def _abort(self) -> None:
        """A-ABORT (PS3.8 9.3.8), and close."""
        pdu = A_ABORT_RQ()
        pdu.source, pdu.reason_diagnostic = 0, 0
        with contextlib.suppress(WireError, OSError):
            self._link.send([pdu.encode()], 2.0)
        self._link.close()

    def close(self) -> None:
        """Close without ceremony."""
        self._link.close()


@contextlib.contextmanager
def _opened(piece: bytes | Piece) -> Iterator[Callable[[int, memoryview], None]]:
    """Fills a buffer with a piece's bytes from an offset on; its file is opened once."""
    if isinstance(piece, bytes):

        def copy(offset: int, target: memoryview) -> None:
            target[:] = piece[offset : offset + len(target)]

        yield copy
        return
    try:
        file = piece.path.open("rb", buffering=0)
    except OSError as exc:
        raise PermanentTransportError("its archive file cannot be read") from exc

    def read(offset: int, target: memoryview) -> None:
        done = 0
        while done < len(target):
            try:
                count = os.preadv(file.fileno(), [target[done:]], piece.offset + offset + done)
            except OSError as exc:
                raise PermanentTransportError("its archive file cannot be read") from exc
            if not count:
                raise PermanentTransportError("its archive file is cut short")
            done += count

    with file:
        yield read


def _rejection(whole: bytes) -> Exception:
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(whole)
    result, source, reason = pdu.result, pdu.source, pdu.reason_diagnostic
    words = _REASONS.get((int(source or 0), int(reason or 0)), "reason unknown")
    text = f"the association was rejected ({result}/{source}/{reason}): {words}"
    return TransientTransportError(text) if result == 2 else PermanentTransportError(text)
