"""What every transport must do, as test classes: subclass one, say how to drive yours, run pytest.

class TestMine(ReceiverContract):
    def make(self, context): return MyReceiver(MyConfig(port=0), context)
    def deposit(self, receiver, file, *, known=True): …  # True when the channel says "kept"
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from rso.core.errors import NoSpaceError, TransientTransportError, VolumeError
from rso.core.notifier import Notifier
from rso.core.transport import (
    Connection,
    Kind,
    Outcome,
    Outgoing,
    Piece,
    Receiver,
    ReceiverContext,
    Sender,
    Source,
)
from rso.dicom.part10 import read_file_meta
from rso.testing.spool import RecordingSpool

__all__ = ["NotifierContract", "ReceiverContract", "SenderContract", "sample_file"]


def sample_file() -> Path:
    """A real CT instance, from pydicom's package."""
    return Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


class ReceiverContract(ABC):
    """A receiver keeps, refuses and closes as promised. Its one source is called ``KNOWN``."""

    @abstractmethod
    def make(self, context: ReceiverContext) -> Receiver:
        """Your receiver, on a free port of loopback."""

    @abstractmethod
    def deposit(self, receiver: Receiver, file: Path, *, known: bool = True) -> bool:
        """Send a file as ``KNOWN`` or ``STRANGER``; True: the client was told it is kept."""

    @pytest.fixture
    def spool(self) -> RecordingSpool:
        """What the receiver deposits into."""
        return RecordingSpool()

    @pytest.fixture
    async def receiver(self, spool: RecordingSpool, tmp_path: Path) -> AsyncIterator[Receiver]:
        """Your receiver, started."""
        source = self.source()

        def identify(connection: Connection) -> Source | None:
            return source if connection.identity == "KNOWN" else None

        context = ReceiverContext(
            spool=spool, identify=identify, sources=lambda: [source], data_dir=tmp_path
        )
        made = self.make(context)
        self.addresses = await made.start()
        yield made
        await made.close()

    def channel(self) -> str:
        """The receiver's name."""
        return "dicom_scp"

    def source(self) -> Source:
        """The one declared source; give it a ``password_hash`` if your channel asks for one."""
        return Source(
            facility="NORTH", channel=self.channel(), identity="KNOWN", kind=Kind.TECHNICIAN,
            networks=("127.0.0.0/8",),
        )  # fmt: skip

    async def test_keeps_once_and_says_so(self, receiver: Receiver, spool: RecordingSpool) -> None:
        """A file that is acknowledged is in the spool, once, with its provenance."""
        assert await _in_thread(self.deposit, receiver, sample_file())
        assert len(spool.kept) == 1
        assert spool.batches[0].facility == "NORTH"
        data = sample_file().read_bytes()
        assert data.endswith(spool.kept[0][1])

    async def test_refuses_strangers(self, receiver: Receiver, spool: RecordingSpool) -> None:
        """Nothing of an unknown peer is kept."""
        assert not await _in_thread(self.deposit, receiver, sample_file(), known=False)
        assert not spool.kept
        assert not spool.batches

    @pytest.mark.parametrize("fault", [NoSpaceError("full"), VolumeError("broken")])
    async def test_never_acknowledges_what_was_not_kept(
        self, receiver: Receiver, spool: RecordingSpool, fault: Any
    ) -> None:
        """A spool that refuses means a client that is refused; afterwards it goes on."""
        spool.fault = fault
        assert not await _in_thread(self.deposit, receiver, sample_file())
        spool.fault = None
        assert await _in_thread(self.deposit, receiver, sample_file())

    async def test_is_healthy_and_closes_twice(self, receiver: Receiver) -> None:
        """Health says ok while it listens; close may be called again."""
        assert (await receiver.health()).ok
        await receiver.close()
        await receiver.close()


async def _in_thread(function: Any, *arguments: Any, **more: Any) -> Any:
    import asyncio  # noqa: PLC0415

    return await asyncio.to_thread(function, *arguments, **more)


class SenderContract(ABC):
    """A sender delivers, classifies and fails as promised."""

    @abstractmethod
    def make(self, port: int) -> Sender:
        """Your sender, for a destination on loopback at this port."""

    @abstractmethod
    def destination(self) -> Any:
        """A peer with ``start() -> port``, ``stop()`` and ``by_uid()`` (``rso.testing.pacs``)."""

    @pytest.fixture
    def peer_(self) -> Iterator[Any]:
        """The destination, started."""
        made = self.destination()
        made.start()
        yield made
        made.stop()

    def outgoing(self) -> Outgoing:
        """One instance: some of its bytes in memory, the rest in a file."""
        path = sample_file()
        data = path.read_bytes()
        meta = read_file_meta(data)
        middle = meta.dataset_offset + 300
        return Outgoing(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            pieces=(
                data[meta.dataset_offset : middle],
                Piece(path=path, offset=middle, length=len(data) - middle),
            ),
        )

    def test_delivers_every_byte(self, peer_: Any) -> None:
        """What arrives is the concatenation of the pieces."""
        one = self.outgoing()
        sender = self.make(peer_.port)
        session = sender.open([(one.sop_class_uid, one.transfer_syntax_uid)])
        result = session.send(one)
        session.close()
        assert result.outcome is Outcome.ACKNOWLEDGED
        data = sample_file().read_bytes()
        assert data.endswith(peer_.by_uid()[one.sop_instance_uid].dataset)

    def test_a_destination_that_is_down_is_a_passing_fault(self, peer_: Any) -> None:
        """Nobody listening raises TransientTransportError, and check says so in words."""
        port = peer_.port
        peer_.stop()
        sender = self.make(port)
        one = self.outgoing()
        with pytest.raises(TransientTransportError):
            sender.open([(one.sop_class_uid, one.transfer_syntax_uid)])
        health = sender.check()
        assert not health.ok
        assert health.detail

    def test_check_finds_a_destination_that_is_there(self, peer_: Any) -> None:
        """A listening peer is healthy."""
        assert self.make(peer_.port).check().ok


class NotifierContract(ABC):
    """A notifier hands messages over, or says why not."""

    @abstractmethod
    def make(self) -> Notifier:
        """Your notifier, at a provider that works."""

    @abstractmethod
    def make_broken(self) -> Notifier:
        """Your notifier, at a provider that does not answer."""

    @abstractmethod
    def message(self) -> Any:
        """A message it can carry."""

    async def test_hands_over(self) -> None:
        """The provider's word comes back."""
        notifier = self.make()
        assert await notifier.send(self.message())
        assert (await notifier.health()).ok
        await notifier.close()

    async def test_a_silent_provider_is_a_passing_fault(self) -> None:
        """It raises TransientTransportError, and health says so."""
        notifier = self.make_broken()
        with pytest.raises(TransientTransportError):
            await notifier.send(self.message())
        assert not (await notifier.health()).ok
        await notifier.close()
