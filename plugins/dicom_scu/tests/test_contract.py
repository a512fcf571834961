"""The SCU keeps the senders' contract."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs
from rso_dicom_scu.plugin import DicomScu, DicomScuConfig, DicomScuOptions

from rso.engine.sessions import SessionThreads
from rso.plugins import Outcome, Outgoing, PermanentTransportError, Piece, Sender
from rso.testing.contracts import SenderContract
from rso.testing.pacs import Pacs
from rso.testing.site import wait_for
from rso.testing.study import CT_IMAGE_STORAGE, tiny_dataset


class TestDicomScu(SenderContract):
    """Contract."""

    def make(self, port: int) -> Sender:
        """To loopback."""
        options = DicomScuOptions(ae_title="PACS", host="127.0.0.1", port=port)
        return DicomScu(DicomScuConfig(), options)

    def destination(self) -> Pacs:
        """A PACS that takes everything."""
        return Pacs()

    @pytest.mark.parametrize(
        ("status", "outcome"),
        [(0xB000, Outcome.ACKNOWLEDGED), (0xA700, Outcome.RETRY), (0xC000, Outcome.STOPPED)],
    )
    def test_statuses(self, status: int, outcome: Outcome) -> None:
        """The PACS' answer is classified, and its code kept."""
        pacs = Pacs(lambda _uid, _count: status)
        one = self.outgoing()
        session = self.make(pacs.start()).open([(one.sop_class_uid, one.transfer_syntax_uid)])
        result = session.send(one)
        session.close()
        pacs.stop()
        assert (result.outcome, result.code) == (outcome, f"{status:04X}")

    @pytest.mark.parametrize("odd", ["", "1." + "2" * 70, "1.2.840.\ufffd", "1.2\0.3"])
    def test_what_cannot_be_proposed_stops_alone(self, peer_: Pacs, odd: str) -> None:
        """One such pair in the queue: its own instance is stopped, the others are sent."""
        one = self.outgoing()
        unnamed = structs.replace(one, transfer_syntax_uid=odd)
        classless = structs.replace(one, sop_class_uid=odd)
        pairs = [(o.sop_class_uid, o.transfer_syntax_uid) for o in (unnamed, classless, one)]
        session = self.make(peer_.port).open(pairs)
        results = [session.send(o) for o in (unnamed, classless, one)]
        session.close()
        assert [r.outcome for r in results] == ["stopped", "stopped", "acknowledged"]
        assert [r.code for r in results] == ["context", "context", "0000"]
        alone = self.make(peer_.port).open(pairs[:1])
        assert alone.send(unnamed).code == "context"
        alone.close()

    def test_as_many_pairs_as_an_association_has_room_for(self, peer_: Pacs) -> None:
        """The 128th is taken; the sender says that there is no 129th."""
        sender = self.make(peer_.port)
        pairs = [(f"1.2.{i}", "1.2.840.10008.1.2") for i in range(sender.most_pairs)]
        one = structs.replace(self.outgoing(), sop_class_uid="1.2.127",
                              transfer_syntax_uid="1.2.840.10008.1.2")  # fmt: skip
        session = sender.open(pairs)
        assert session.send(one).outcome is Outcome.ACKNOWLEDGED
        session.close()
        assert len(pairs) == 128


class Ready:
    """Has what it is asked for."""

    def outgoing(self, parcel: Any) -> Outgoing:
        """The parcel's."""
        made: Outgoing = parcel.outgoing
        return made


def test_a_file_that_ends_while_it_is_sent_stops_alone(tmp_path: Path) -> None:
    """Its message is broken off; what comes after it is whole, and no part of it."""
    pacs = Pacs()
    options = DicomScuOptions(ae_title="PACS", host="127.0.0.1", port=pacs.start())
    (tmp_path / "cut").write_bytes(bytes(2 << 20))
    sound = tiny_dataset("1.2.3")
    sent: list[tuple[bytes | Piece, ...]] = [
        (Piece(path=tmp_path / "cut", offset=0, length=3 << 20),),
        (b"\0" * (2 << 20), Piece(path=tmp_path / "gone", offset=0, length=1)),
        (sound,),
    ]
    parcels: Any = []
    for number, pieces in enumerate(sent, 1):
        one = Outgoing(
            sop_class_uid=CT_IMAGE_STORAGE,
            sop_instance_uid=f"1.2.{number}",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            pieces=pieces,
        )
        pair = one.sop_class_uid, one.transfer_syntax_uid
        parcels.append(SimpleNamespace(priority=0, pair=pair, instance="", outgoing=one))
    answers: list[Any] = []
    preparer: Any = Ready()
    sessions = SessionThreads(
        DicomScu(DicomScuConfig(), options), preparer, lambda _, result: answers.append(result)
    )
    sessions.put(parcels)
    wait_for(lambda: len(answers) == 3, 20)
    sessions.close()
    pacs.stop()
    assert [(a.outcome, a.reason) for a in answers] == [
        (Outcome.STOPPED, "its archive file is cut short"),
        (Outcome.STOPPED, "its archive file cannot be read"),
        (Outcome.ACKNOWLEDGED, ""),
    ]
    assert {uid: r.dataset for uid, r in pacs.by_uid().items()} == {"1.2.3": sound}


def test_link_local_addresses_are_refused() -> None:
    """A destination on a metadata address is never connected to."""
    options = DicomScuOptions(ae_title="X", host="169.254.169.254", port=80)
    with pytest.raises(PermanentTransportError, match="link-local"):
        DicomScu(DicomScuConfig(), options).open([("1.2", "1.2.840.10008.1.2")])
