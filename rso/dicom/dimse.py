"""Command sets, read and written quickly; the tests hold them against pynetdicom's (PS3.7 9.3)."""

import struct
from typing import NamedTuple

from rso.core.printable import printable
from rso.core.transport import Buffer
from rso.dicom.wire import WireError

__all__ = [
    "C_ECHO_RQ",
    "C_STORE_RQ",
    "NO_DATASET",
    "VERIFICATION",
    "Command",
    "Response",
    "read_command",
    "read_response",
    "write_echo_request",
    "write_response",
    "write_store_request",
]

C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
NO_DATASET = 0x0101
VERIFICATION = "1.2.840.10008.1.1"  # the SOP Class
_HEAD = struct.Struct("<HHL")
_SHORT = struct.Struct("<H")
_RESPONSE = struct.Struct("<" + "HHLH" * 4)  # four elements of VR US


class Command(NamedTuple):
    """A request."""

    field: int
    message_id: int
    has_dataset: bool
    sop_class_uid: str
    sop_instance_uid: str


class Response(NamedTuple):
    """An answer; its comment holds no control characters."""

    field: int
    message_id: int
    status: int
    comment: str


def _elements(data: Buffer) -> dict[int, bytes]:
    found = {}
    pos, end = 0, len(data)
    while pos + 8 <= end:
        group, number, length = _HEAD.unpack_from(data, pos)
        pos += 8
        if group != 0 or pos + length > end:
            raise WireError("a command set is broken")
        found[number] = bytes(data[pos : pos + length])
        pos += length
    return found


def _number(found: dict[int, bytes], element: int) -> int:
    value = found.get(element, b"")
    if len(value) != 2:
        raise WireError(f"a command set has no element 0000{element:04X}")
    return int(_SHORT.unpack(value)[0])


def _uid(found: dict[int, bytes], element: int) -> str:
    return found.get(element, b"").decode("ascii", "replace").strip(" \0")


def read_command(data: Buffer) -> Command:
    """Decode a request's command set.

    Raises:
        WireError: It is broken or lacks what every request has.
    """
    found = _elements(data)
    return Command(
        _number(found, 0x0100),
        _number(found, 0x0110),
        _number(found, 0x0800) != NO_DATASET,
        _uid(found, 0x0002),
        _uid(found, 0x1000),
    )


def read_response(data: Buffer) -> Response:
    """Decode an answer's command set.

    Raises:
        WireError: It is broken or lacks what every answer has.
    """
    found = _elements(data)
    comment = printable(found.get(0x0902, b"").decode("ascii", "replace"))
    return Response(_number(found, 0x0100), _number(found, 0x0120), _number(found, 0x0900), comment)


def _element(number: int, value: bytes) -> bytes:
    return _HEAD.pack(0, number, len(value)) + value


def _padded(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)


def _command(body: bytes) -> bytes:
    return _element(0x0000, struct.pack("<L", len(body))) + body


def write_response(command: Command, status: int, comment: str = "") -> bytes:
    """The answer to a request; the comment (0000,0902) holds no patient data."""
    body = _element(0x0002, _padded(command.sop_class_uid)) if command.sop_class_uid else b""
    body += _RESPONSE.pack(
        0, 0x0100, 2, command.field | 0x8000,
        0, 0x0120, 2, command.message_id,
        0, 0x0800, 2, NO_DATASET,
        0, 0x0900, 2, status,
    )  # fmt: skip
    if comment:
        text = comment.encode("ascii", "replace")[:64]
        body += _element(0x0902, text + b" " * (len(text) % 2))
    if command.sop_instance_uid:
        body += _element(0x1000, _padded(command.sop_instance_uid))
    return _command(body)


def write_store_request(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """A C-STORE-RQ of medium priority."""
    return _command(
        _element(0x0002, _padded(sop_class_uid))
        + _element(0x0100, _SHORT.pack(C_STORE_RQ))
        + _element(0x0110, _SHORT.pack(message_id))
        + _element(0x0700, _SHORT.pack(0))
        + _element(0x0800, _SHORT.pack(1))
        + _element(0x1000, _padded(sop_instance_uid))
    )


def write_echo_request(message_id: int) -> bytes:
    """A C-ECHO-RQ."""
    return _command(
        _element(0x0002, _padded(VERIFICATION))
        + _element(0x0100, _SHORT.pack(C_ECHO_RQ))
        + _element(0x0110, _SHORT.pack(message_id))
        + _element(0x0800, _SHORT.pack(NO_DATASET))
    )
