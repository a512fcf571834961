"""Files under way: one client's wait is nobody else's."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rso_ftp.config import FtpConfig
from rso_ftp.names import Names
from rso_ftp.upload import Upload, UploadError, Uploads

from rso.plugins import Batch, Kind, NoSpaceError, Provenance, QuotaError, ReceiverContext, Spool
from rso.testing.contracts import sample_file
from rso.testing.spool import RecordingSpool

WAIT = 10.0


class SlowSpool(RecordingSpool):
    """A spool that keeps nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.keeping, self.may_keep = threading.Event(), threading.Event()

    def batch(self) -> Batch:
        """A batch that waits."""
        spool = self
        made: Any = self.open_batch(
            Provenance(channel="ftp", facility="NORTH", source="north", kind=Kind.TECHNICIAN,
                       peer_address="127.0.0.1", opened_at=datetime.now(UTC))
        )  # fmt: skip
        append = made.append

        def slowly(*args: Any, **words: Any) -> Any:
            spool.keeping.set()
            assert spool.may_keep.wait(WAIT)
            return append(*args, **words)

        made.append = slowly
        batch: Batch = made
        return batch


Begin = Callable[[str, str], "Future[Upload]"]


def context_of(spool: Spool, folder: Path, **more: Any) -> ReceiverContext:
    """What a receiver gets; nobody signs in here."""
    return ReceiverContext(
        spool=spool, identify=lambda _: None, sources=list, data_dir=folder, **more
    )


@pytest.fixture
def spool() -> SlowSpool:
    """What uploads join."""
    return SlowSpool()


@pytest.fixture
def begin(spool: SlowSpool, tmp_path: Path) -> Iterator[Begin]:
    """Begin a file of an account in a thread of its own, as a connection does."""
    names = Names(tmp_path / "names.sqlite")
    uploads = Uploads(names, tmp_path, context_of(spool, tmp_path), FtpConfig())
    with ThreadPoolExecutor(8) as pool:
        yield lambda account, path: pool.submit(uploads.begin, account, path, spool.batch, offset=0)
        spool.may_keep.set()
    names.close()


def test_a_retry_waits_for_its_own_file_only(begin: Begin, spool: SlowSpool) -> None:
    """While a file is kept its client comes again: every other file begins at once."""
    first = begin("north", "/a.dcm").result(WAIT)
    first.write(sample_file().read_bytes())
    reply: Future[str] = Future()
    keeper = threading.Thread(target=lambda: reply.set_result(first.finish()))
    keeper.start()
    assert spool.keeping.wait(WAIT)
    retry = begin("north", "/a.dcm")
    others = [begin("north", "/b.dcm"), begin("south", "/a.dcm")]
    for other in others:
        assert not other.result(WAIT / 4).closed
    assert not retry.done()
    spool.may_keep.set()
    assert reply.result(WAIT) == "226 Kept."
    assert not retry.result(WAIT).closed
    assert len(spool.kept) == 1
    keeper.join()


def test_the_newest_connection_has_the_file(begin: Begin, spool: SlowSpool) -> None:
    """Retries that wait for the same file begin one after the other: one of them has it."""
    first = begin("north", "/a.dcm").result(WAIT)
    first.write(sample_file().read_bytes())
    keeper = threading.Thread(target=first.finish)
    keeper.start()
    assert spool.keeping.wait(WAIT)
    retries = [begin("north", "/a.dcm") for _ in range(4)]
    spool.may_keep.set()
    keeper.join(WAIT)
    begun = [retry.result(WAIT) for retry in retries]
    assert sorted(one.closed for one in begun) == [False, True, True, True]


PIECE = b"\0" * 128 + b"DICM" + b"\2\0" * (3 << 19)  # three megabytes: more than memory keeps


class Account:
    """An account's uploads, each cut off."""

    def __init__(self, folder: Path, spool: RecordingSpool, **caps: int) -> None:
        self.folder, self.spool = folder, spool
        self.left = 1 << 40  # bytes of today's quota
        self.names = Names(folder / "names.sqlite")
        context = context_of(spool, folder, require_quota=self.require)
        self.uploads = Uploads(self.names, folder, context, FtpConfig(**caps))

    def require(self, provenance: Provenance, instances: int, size: int) -> None:
        """A quota of bytes."""
        assert (provenance.source, instances > 0) == ("north", True)
        if size > self.left:
            raise QuotaError("more than is left")

    def batch(self) -> Batch:
        """A session's."""
        return self.spool.open_batch(
            Provenance(channel="ftp", facility="NORTH", source="north", kind=Kind.TECHNICIAN,
                       peer_address="127.0.0.1", opened_at=datetime.now(UTC))
        )  # fmt: skip

    def cut(self, path: str, data: bytes = PIECE, offset: int = 0) -> None:
        """A connection that breaks."""
        upload = self.uploads.begin("north", path, self.batch, offset=offset)
        try:
            upload.write(data)
        finally:
            upload.close()

    @property
    def parts(self) -> int:
        """Files on the disk."""
        return len(list(self.folder.glob("*.part")))


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Callable[..., Account]]:
    """An account with these caps."""
    made: list[Account] = []

    def make(**caps: int) -> Account:
        made.append(Account(tmp_path, RecordingSpool(), **caps))
        return made[-1]

    yield make
    for one in made:
        one.names.close()


def test_an_account_leaves_so_many_files_incomplete(account: Callable[..., Account]) -> None:
    """The next is refused for now and leaves nothing; whole files and resumes go on."""
    north = account(open_files=2)
    north.cut("/a")
    north.cut("/b")
    with pytest.raises(UploadError, match="452 this account has too many incomplete files"):
        north.cut("/c")
    north.cut("/small", PIECE[:1000])  # too small for a refusal: it is not parked
    assert north.names.waiting("north").keys() == {"/a", "/b"}
    assert north.parts == 2
    north.cut("/a", b"more", offset=len(PIECE))
    assert north.names.waiting("north")["/a"] == len(PIECE) + 4
    whole = north.uploads.begin("north", "/d.dcm", north.batch, offset=0)
    whole.write(sample_file().read_bytes())
    assert whole.finish() == "226 Kept."


def test_an_account_leaves_so_many_bytes_incomplete(account: Callable[..., Account]) -> None:
    """Parked files and those of other connections count together."""
    north = account(open_bytes=3 * len(PIECE) - 1)
    north.cut("/a")
    active = north.uploads.begin("north", "/b", north.batch, offset=0)
    active.write(PIECE)
    with pytest.raises(UploadError, match="452"):
        north.cut("/c")
    active.close()
    assert north.parts == 2


def test_a_quota_counts_what_is_incomplete(
    account: Callable[..., Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Today's quota bounds it, at once or on the way; what it refuses is not kept on the disk."""
    monkeypatch.setattr("rso_ftp.upload._SPACE_STEP", 1 << 20)
    north = account()
    north.cut("/a")
    north.left = 2 * len(PIECE) - 1
    with pytest.raises(UploadError, match="452 more than is left"):
        north.cut("/b")
    north.left = 2 * len(PIECE)
    upload = north.uploads.begin("north", "/c", north.batch, offset=0)
    upload.write(PIECE)
    assert north.parts == 2
    with pytest.raises(UploadError, match="452 more than is left"):
        upload.write(PIECE)
    upload.close()
    assert north.names.waiting("north").keys() == {"/a"}
    assert north.parts == 1


def test_an_account_leaves_half_of_the_room(account: Callable[..., Account]) -> None:
    """What is incomplete needs as much room again: its copy in the spool, or other senders."""
    north = account()
    asked: list[int] = []
    north.spool.require_space = asked.append  # type: ignore[method-assign]
    north.cut("/a")
    north.cut("/b")
    assert max(asked) == 2 * len(PIECE)


def test_a_file_that_todays_quota_refuses_is_not_parked(account: Callable[..., Account]) -> None:
    """The spool refuses it whole: 452, and nothing waits."""
    north = account()
    for fault, waits in ((QuotaError("used up"), False), (NoSpaceError("full"), True)):
        north.spool.fault = None
        upload = north.uploads.begin("north", "/a.dcm", north.batch, offset=0)
        upload.write(sample_file().read_bytes())
        north.spool.fault = fault
        assert upload.finish().startswith("452")
        north.spool.fault = None
        assert bool(north.names.waiting("north")) == waits
