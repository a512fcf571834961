"""Instances in pieces: what an account begins and never ends is bounded."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from rso_http_upload.pieces import CrowdedError, OffsetError, Pieces
from rso_http_upload.plugin import HttpUpload, HttpUploadConfig, rso_register_routes

from rso.dicom.part10 import read_file_meta
from rso.plugins import Kind, NoSpaceError, Provenance, QuotaError, ReceiverContext
from rso.testing.contracts import sample_file
from rso.testing.spool import RecordingSpool
from rso.web.errors import answer_error


def sender(source: str = "gateway", user: str = "") -> Provenance:
    """Who sends to the exam."""
    return Provenance(
        channel="http_upload", facility="NORTH", source=user or source, kind=Kind.INTEGRATION,
        peer_address="127.0.0.1", opened_at=datetime.now(UTC), exam_number="7Q2KM4TX9C", user=user,
    )  # fmt: skip


class Quota:
    """What may still come today."""

    def __init__(self) -> None:
        self.left = 1 << 40

    def require(self, provenance: Provenance, instances: int, size: int) -> None:
        """As the engine's."""
        assert provenance.facility == "NORTH"
        assert instances
        if size > self.left:
            raise QuotaError("more than is left")


@pytest.fixture
def spool() -> RecordingSpool:
    """What instances join."""
    return RecordingSpool()


@pytest.fixture
def quota() -> Quota:
    """Plenty, until a test says otherwise."""
    return Quota()


Make = Callable[..., HttpUpload]


@pytest.fixture
def make(spool: RecordingSpool, quota: Quota, tmp_path: Path) -> Make:
    """A receiver with these caps."""

    def made(**caps: Any) -> HttpUpload:
        context = ReceiverContext(
            spool=spool, identify=lambda _: None, sources=list, data_dir=tmp_path,
            require_quota=quota.require,
        )  # fmt: skip
        return HttpUpload(HttpUploadConfig(**caps), context)

    return made


async def begin(pieces: Pieces, uid: str, who: Provenance | None = None, length: int = 1000) -> int:
    """The first piece of an instance that is never ended."""
    size, receipt = await pieces.add(who or sender(), uid, b"x" * 10, offset=0, length=length)
    assert receipt is None
    return size


async def test_an_account_begins_so_many(make: Make, tmp_path: Path) -> None:
    """The next has to wait, also after a restart; others, and those that are begun, go on."""
    await begin(make(open_instances=2).pieces, "1.1")
    pieces = make(open_instances=2).pieces
    assert pieces.offset(sender(), "1.1", 1000) == 10
    await begin(pieces, "1.2")
    with pytest.raises(CrowdedError):
        await begin(pieces, "1.3")
    await begin(pieces, "1.3", sender("scanner"))
    await begin(pieces, "1.4", sender(user="tech@example.org"))
    assert (await pieces.add(sender(), "1.2", b"y", offset=10, length=1000))[0] == 11
    assert len(list(tmp_path.glob("*.part"))) == 4
    for path in tmp_path.glob("*.part"):
        os.utime(path, (0, 0))
    await begin(pieces, "1.5")
    assert len(list(tmp_path.glob("*.part"))) == 1


async def test_an_account_announces_so_many_bytes(
    make: Make, spool: RecordingSpool, tmp_path: Path
) -> None:
    """Of all that it has begun; what is ended counts no more."""
    data = sample_file().read_bytes()
    uid = read_file_meta(data).sop_instance_uid
    pieces = make(open_bytes=len(data) + 999).pieces
    await pieces.add(sender(), uid, data[:100], offset=0, length=len(data))
    with pytest.raises(QuotaError):
        await begin(pieces, "1.1")
    await begin(pieces, "1.1", length=999)
    await pieces.add(sender(), uid, data[100:], offset=100, length=len(data))
    assert len(spool.kept) == 1
    await begin(pieces, "1.2")
    assert len(list(tmp_path.glob("*.part"))) == 2


async def test_a_quota_counts_what_is_begun(make: Make, quota: Quota, tmp_path: Path) -> None:
    """Today's quota bounds what is announced; what it refuses leaves nothing."""
    pieces = make().pieces
    await begin(pieces, "1.1")
    quota.left = 1999
    with pytest.raises(QuotaError):
        await begin(pieces, "1.2")
    assert len(list(tmp_path.glob("*.part"))) == 1
    quota.left = 2000
    await begin(pieces, "1.2")


@pytest.mark.parametrize(
    ("fault", "waits"), [(QuotaError("used up"), False), (NoSpaceError("full"), True)]
)
async def test_a_whole_instance_that_is_refused(
    make: Make, spool: RecordingSpool, tmp_path: Path, fault: NoSpaceError, waits: bool
) -> None:
    """It waits where the disk is at fault; a used up quota would have it wait for a day."""
    data = sample_file().read_bytes()
    uid = read_file_meta(data).sop_instance_uid
    pieces = make().pieces
    await pieces.add(sender(), uid, data[:100], offset=0, length=len(data))
    spool.require_space = lambda size: None  # type: ignore[method-assign]
    spool.fault = fault
    with pytest.raises(type(fault)):
        await pieces.add(sender(), uid, data[100:], offset=100, length=len(data))
    assert bool(list(tmp_path.glob("*.part"))) == waits
    assert bool(pieces.offset(sender(), uid, len(data))) == waits


async def test_what_does_not_begin_leaves_nothing(make: Make, tmp_path: Path) -> None:
    """Neither a piece from the middle nor one that is too long makes a file."""
    pieces = make().pieces
    for offset, length in ((500, 1000), (0, 5)):
        with pytest.raises(OffsetError):
            await pieces.add(sender(), "1.1", b"x" * 10, offset=offset, length=length)
    assert not list(tmp_path.glob("*.part"))
    await begin(pieces, "1.1")


@pytest.fixture
def versions() -> tuple[str, bytes, bytes]:
    """Two instances of one UID and length, of different patients; where they begin to differ."""
    data = sample_file().read_bytes()
    at = data.index(b"CompressedSamples^CT1")
    other = data[:at] + b"Somebody^Else        " + data[at + 21 :]
    assert len(data) == len(other)
    return read_file_meta(data).sop_instance_uid, data, other


async def test_pieces_of_two_versions_never_join(
    make: Make, spool: RecordingSpool, versions: tuple[str, bytes, bytes], tmp_path: Path
) -> None:
    """One is interrupted, the other sent, also after a restart: each is kept as it is."""
    uid, one, other = versions
    cut, length = len(one) - 100, len(one)
    await make().pieces.add(sender(), uid, one[:cut], offset=0, length=length, identity="1")
    pieces = make().pieces
    assert pieces.offset(sender(), uid, length, "2") == 0
    with pytest.raises(OffsetError) as refused:
        await pieces.add(sender(), uid, other[cut:], offset=cut, length=length, identity="2")
    assert refused.value.offset == 0
    for data, offset, identity in ((other, 0, "2"), (one[cut:], cut, "1")):
        _, receipt = await pieces.add(
            sender(), uid, data, offset=offset, length=length, identity=identity
        )
        assert receipt is not None
    kept = [bytes(dataset) for _, dataset in spool.kept]
    assert [data[-len(dataset) :] for data, dataset in zip((other, one), kept, strict=True)] == kept
    assert not list(tmp_path.glob("*.part"))


async def test_who_says_no_identity_begins_again_with_other_bytes(
    make: Make, spool: RecordingSpool, versions: tuple[str, bytes, bytes]
) -> None:
    """A first piece that comes again goes on where it was; another's takes its place."""
    uid, one, other = versions
    pieces, cut, length = make().pieces, len(one) - 100, len(one)
    await pieces.add(sender(), uid, one[:cut], offset=0, length=length)
    for again in (one[:cut], one[:200], one):
        with pytest.raises(OffsetError) as refused:
            await pieces.add(sender(), uid, again, offset=0, length=length)
        assert refused.value.offset == cut
    assert (await pieces.add(sender(), uid, other[:cut], offset=0, length=length))[0] == cut
    await pieces.add(sender(), uid, other[cut:], offset=cut, length=length)
    ((_, dataset),) = spool.kept
    assert other.endswith(bytes(dataset))


async def test_nobody_goes_on_with_another_accounts(make: Make) -> None:
    """Whatever it says of its file."""
    pieces = make().pieces
    for identity in ("", "1"):
        await pieces.add(sender(), "1.1", b"x" * 10, offset=0, length=1000, identity=identity)
        assert pieces.offset(sender(), "1.1", 1000, identity) == 10
        assert pieces.offset(sender("scanner"), "1.1", 1000, identity) == 0


async def test_half_of_the_room_is_left(make: Make, spool: RecordingSpool) -> None:
    """What is begun needs as much room again: its copy in the spool, or other senders."""
    asked: list[int] = []
    spool.require_space = asked.append  # type: ignore[method-assign]
    pieces = make().pieces
    await begin(pieces, "1.1")
    await begin(pieces, "1.2")
    assert max(asked) == 4000


@pytest.fixture
def serve(make: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AsyncTestClient[Litestar]]:
    """A client of an application with one exam, which the sender may see."""

    async def exam_of(*_: object) -> tuple[object, Provenance]:
        return SimpleNamespace(number=sender().exam_number), sender()

    monkeypatch.setattr("rso_http_upload.uploads.exam_of", exam_of)

    def made(**caps: int) -> AsyncTestClient[Litestar]:
        app = Litestar(rso_register_routes(), exception_handlers={Exception: answer_error})
        app.state.receivers = {"http_upload": make(**caps)}
        return AsyncTestClient(app)

    return made


async def send(client: AsyncTestClient[Litestar], uid: str, **headers: str) -> Any:
    """What is answered to a first piece."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.patch(
        f"/api/exams/7Q2KM4TX9C/uploads/{uid}", content=b"x" * 10,
        headers={"Upload-Offset": "0", "Upload-Length": "1000", **more},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("caps", "status"), [({"open_instances": 1}, 429), ({"open_bytes": 1999}, 507)]
)
async def test_the_refusal_in_http(
    serve: Callable[..., AsyncTestClient[Litestar]], caps: dict[str, int], status: int
) -> None:
    """Too many: 429; too much: 507."""
    async with serve(**caps) as client:
        answers = [await send(client, uid) for uid in ("1.1", "1.2")]
    assert answers[0].json() == {"offset": 10, "stored": False}
    assert answers[1].status_code == status
    assert "end" in answers[1].json()["detail"]


async def test_the_identity_in_http(serve: Callable[..., AsyncTestClient[Litestar]]) -> None:
    """One header tells two files apart; it is not as long as anybody likes."""
    async with serve() as client:
        for identity, status in (("one", 200), ("two", 200), ("one", 409), ("x" * 129, 400)):
            answer = await send(client, "1.1", Upload_Identity=identity)
            assert answer.status_code == status
            assert answer.json().get("offset") == (None if status == 400 else 10)
