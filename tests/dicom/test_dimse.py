"""RSO's command sets are pynetdicom's, byte for byte."""

import contextlib
import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from rso.dicom.dimse import (
    C_STORE_RQ,
    Command,
    read_command,
    read_response,
    write_response,
    write_store_request,
)
from rso.dicom.wire import WireError

UID = "1.2.840.10008.5.1.4.1.1.2"


def primitive(**more: object) -> C_STORE:
    """A C-STORE of pynetdicom's."""
    made = C_STORE()
    made.AffectedSOPClassUID, made.AffectedSOPInstanceUID = UID, "1.2.3"
    for name, value in more.items():
        setattr(made, name, value)
    return made


def command_set(message: object) -> bytes:
    """The encoded command set of a pynetdicom message."""
    return bytes(encode(message.command_set, True, True) or b"")  # type: ignore[attr-defined]


def test_store_request() -> None:
    """A C-STORE-RQ is written as pynetdicom writes it."""
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(primitive(MessageID=7, Priority=0, DataSet=BytesIO(b"x")))
    ours = write_store_request(7, UID, "1.2.3")
    assert ours == command_set(message)
    assert read_command(ours) == Command(C_STORE_RQ, 7, True, UID, "1.2.3")


def test_store_response() -> None:
    """A C-STORE-RSP is written as pynetdicom writes it."""
    message = dimse_messages.C_STORE_RSP()
    message.primitive_to_message(primitive(MessageIDBeingRespondedTo=7, Status=0xA700))
    ours = write_response(Command(C_STORE_RQ, 7, True, UID, "1.2.3"), 0xA700)
    assert ours == command_set(message)
    assert read_response(ours).status == 0xA700


@given(st.binary(max_size=200))
def test_hostile_command_sets(data: bytes) -> None:
    """Random bytes are a broken command set, and nothing worse."""
    with contextlib.suppress(WireError):
        read_command(data)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (b"out of\0 disk", "out of disk"),
        (b"\x1b[31mno\x1b[0m\r\n", "[31mno[0m"),
        (b" a b\0", "a b"),
    ],
)
def test_an_error_comment_is_what_can_be_kept(said: bytes, read: str) -> None:
    """Control characters of a PACS' Error Comment (0000,0902) go no further, wherever they are."""
    made = primitive(MessageIDBeingRespondedTo=7, Status=0xA700, ErrorComment="x")
    message = dimse_messages.C_STORE_RSP()
    message.primitive_to_message(made)
    padded = said + b"\0" * (len(said) % 2)
    comment = struct.pack("<HHL", 0, 0x0902, len(padded)) + padded
    data = command_set(message).replace(struct.pack("<HHL", 0, 0x0902, 2) + b"x ", comment)
    response = read_response(data)
    assert (response.status, response.comment) == (0xA700, read)
