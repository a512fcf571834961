"""The SCU keeps the senders' contract."""

import pytest
from rso_dicom_scu.plugin import DicomScu, DicomScuConfig, DicomScuOptions

from rso.plugins import Outcome, PermanentTransportError, Sender
from rso.testing.contracts import SenderContract
from rso.testing.pacs import Pacs


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


def test_link_local_addresses_are_refused() -> None:
    """A destination on a metadata address is never connected to."""
    options = DicomScuOptions(ae_title="X", host="169.254.169.254", port=80)
    with pytest.raises(PermanentTransportError, match="link-local"):
        DicomScu(DicomScuConfig(), options).open([])
