"""What RSO asks of a peer ends, whatever the peer answers."""

import contextlib
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from rso.core.errors import TransientTransportError
from rso.dicom import wire
from rso.dicom.association import AcceptedAssociation
from rso.dicom.requestor import Requestor
from rso.dicom.wire import Wire, WireError
from rso.testing.pacs import Pacs
from rso.testing.study import CT_IMAGE_STORAGE, tiny_dataset

EXPLICIT = "1.2.840.10008.1.2.1"
PATIENCE = 1.0
LATER = 6.0  # when the peer gives up by itself


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    """It takes everything."""
    made = Pacs()
    made.start()
    yield made
    made.stop()


def associated(pacs: Pacs) -> Requestor:
    """With little patience."""
    return Requestor(
        "127.0.0.1", pacs.port, called_ae_title="PACS", calling_ae_title="RSO",
        contexts=[(CT_IMAGE_STORAGE, EXPLICIT)], answer_seconds=PATIENCE,
    )  # fmt: skip


def drips(link: Wire) -> None:
    """A byte of a command set at a time, none of them the last."""
    link.send(wire.data_pdus(1, b"\0", 0, is_command=True, is_last=False))
    time.sleep(0.05)


def floods(link: Wire) -> None:
    """The same, as much as the line takes."""
    link.send(wire.data_pdus(1, bytes(4000), 0, is_command=True, is_last=False))


def breaks_off(link: Wire) -> None:
    """The head of a long P-DATA, and no more than a byte of it at a time."""
    if not hasattr(link, "begun"):
        link.begun = True  # type: ignore[attr-defined]
        link.send([struct.pack(">BxL", wire.DATA, 200_000)])
        link.send([struct.pack(">LBB", 60_000, 1, 1)])
    link.send([b"\0"])
    time.sleep(0.05)


def says_else(link: Wire) -> None:
    """A dataset, where an answer has none."""
    link.send(wire.data_pdus(1, bytes(100), 0, is_command=False))
    time.sleep(0.05)


@pytest.mark.parametrize(
    ("peer", "reason"),
    [(drips, "too slow|silent"), (floods, "too long"), (breaks_off, "too slow|silent"),
     (says_else, "no command set")],
)  # fmt: skip
def test_an_answer_that_does_not_end(
    pacs: Pacs, monkeypatch: pytest.MonkeyPatch, peer: Callable[[Wire], None], reason: str
) -> None:
    """All of it comes within the patience for an answer and in 64 KiB, or the line is given up."""

    def answer(self: AcceptedAssociation, *_: object) -> None:
        until = time.monotonic() + LATER
        with contextlib.suppress(WireError, OSError):
            while time.monotonic() < until:
                peer(self._link)
        raise WireError("enough")

    monkeypatch.setattr(AcceptedAssociation, "_answer", answer)
    requestor = associated(pacs)
    began = time.monotonic()
    with pytest.raises(WireError, match=reason):
        requestor.store(CT_IMAGE_STORAGE, "1.2.3", EXPLICIT, [tiny_dataset("1.2.3")])
    assert time.monotonic() - began < LATER / 2
    requestor.close()


@pytest.mark.parametrize("most", [1, 6, 100])
def test_a_peer_with_no_room_for_data(
    pacs: Pacs, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A maximum length that no data fits into is the peer's fault, and said in words."""
    monkeypatch.setattr(wire, "MOST_RECEIVED", most)  # what the PACS answers with
    with pytest.raises(TransientTransportError, match=f"P-DATA of {most} bytes"):
        associated(pacs)
