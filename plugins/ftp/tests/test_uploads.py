"""Files under way: one client's wait is nobody else's."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rso_ftp.names import Names
from rso_ftp.upload import Upload, Uploads

from rso.plugins import Batch, Kind, Provenance
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


@pytest.fixture
def spool() -> SlowSpool:
    """What uploads join."""
    return SlowSpool()


@pytest.fixture
def begin(spool: SlowSpool, tmp_path: Path) -> Iterator[Begin]:
    """Begin a file of an account in a thread of its own, as a connection does."""
    names = Names(tmp_path / "names.sqlite")
    uploads = Uploads(names, tmp_path, spool, 1 << 30)
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
