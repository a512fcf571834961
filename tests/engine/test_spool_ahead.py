"""Writing ahead saves time and changes nothing; a sender's bytes never pass for a record."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rso.core.errors import IdentifierError
from rso.core.transport import Kind, Provenance
from rso.engine.spool import LogSpool
from rso.engine.spool_reader import InstanceRecord, SpoolReader
from rso.engine.spool_segment import Body, RecordType, Segment, encode_record

PROVENANCE = Provenance(
    channel="dicom_scp",
    facility="NORTH",
    source="CT",
    kind=Kind.TECHNICIAN,
    peer_address="127.0.0.1",
    opened_at=datetime(2026, 1, 1, tzinfo=UTC),
)
PIXELS = b"\xe0\x7f\x10\x00OW\0\0"


def with_pixels(data: bytes, count: int) -> bytes:
    """The dataset's header with so many bytes of pixel data."""
    start = data.index(b"\xe0\x7f\x10\x00")
    return data[:start] + PIXELS + count.to_bytes(4, "little") + os.urandom(count)


def drain(folder: Path) -> list[object]:
    """Every record in a spool folder."""
    reader, records = SpoolReader(folder), list[object]()
    while found := reader.read(64, 1 << 24):
        records += found
    return records


def kept(folder: Path) -> list[bytes]:
    """The datasets in a spool folder, in order."""
    found = [r for r in drain(folder) if isinstance(r, InstanceRecord)]
    assert all(r.part10 is not None and r.size == len(r.part10) - r.dataset_offset for r in found)
    return [bytes(r.part10[r.dataset_offset :]) for r in found if r.part10 is not None]


def test_what_is_written_ahead_is_not_written_again(
    tmp_path: Path,
    dataset: tuple[bytes, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit writes the record's head and the rest alone, and the bytes are those sent."""
    data = with_pixels(dataset[0], 600_000)
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    gathered: list[int] = []
    real = os.pwritev

    def pwritev(fd: int, buffers: list[bytes], offset: int) -> int:
        gathered.append(real(fd, buffers, offset))
        return gathered[-1]

    monkeypatch.setattr(os, "pwritev", pwritev)
    for _ in range(3):
        ahead = batch.ahead(transfer_syntax_uid=dataset[1])
        for end in (200_000, 400_000):
            ahead.write(memoryview(data)[:end])
        batch.append([memoryview(data)], transfer_syntax_uid=dataset[1], ahead=ahead)
    assert sum(gathered) < 3 * (len(data) - 400_000 + 4_000)
    assert kept(tmp_path / "spool" / "a") == [data] * 3
    spool.close()


def test_a_dataset_that_never_ends_leaves_nothing(
    tmp_path: Path,
    dataset: tuple[bytes, str],
) -> None:
    """Cut off in the middle, or refused at its end: the next record stands in its place."""
    data = with_pixels(dataset[0], 600_000)
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    cut = batch.ahead(transfer_syntax_uid=dataset[1])
    cut.write(data[:300_000])
    cut.forget()
    other = batch.ahead(transfer_syntax_uid=dataset[1], sop_instance_uid="1.2.3")
    other.write(data[:300_000])
    with pytest.raises(IdentifierError):
        batch.append([data], transfer_syntax_uid=dataset[1], sop_instance_uid="1.2.3", ahead=other)
    assert kept(tmp_path / "spool" / "a") == []
    batch.append([data], transfer_syntax_uid=dataset[1])
    assert kept(tmp_path / "spool" / "a") == [data]
    spool.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["write", "append", "forget", "close"])),
        max_size=40,
    )
)
def test_writers_that_take_turns_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    dataset: tuple[bytes, str],
    steps: list[tuple[int, str]],
) -> None:
    """Whoever takes the place at the end of the log, each dataset comes out as it went in."""
    folder = tmp_path_factory.mktemp("spool") / "spool" / "a"
    data = with_pixels(dataset[0], 300_000)
    spool = LogSpool(folder)
    spool.log._no_draft_for = 0
    batches = [spool.open_batch(PROVENANCE) for _ in range(3)]
    begun: dict[int, tuple[object, int]] = {}
    expected = []
    for who, what in steps:
        ahead, size = begun.get(who) or (batches[who].ahead(transfer_syntax_uid=dataset[1]), 0)
        spool.log._no_draft_for = 0
        if what == "write":
            size = min(size + 90_000, len(data) - 1)  # the last byte differs, and comes with append
            ahead.write(memoryview(data)[:size])  # type: ignore[attr-defined]
            begun[who] = ahead, size
        elif what == "append":
            mine = data[:-1] + bytes([len(expected) % 256])
            batches[who].append([mine], transfer_syntax_uid=dataset[1], ahead=ahead)  # type: ignore[arg-type]
            expected.append(mine)
            begun.pop(who, None)
        elif what == "forget":
            ahead.forget()  # type: ignore[attr-defined]
            begun.pop(who, None)
        else:
            spool.alert("test", {})
    assert kept(folder) == expected
    spool.close()


def test_a_record_made_by_a_sender_is_none(
    tmp_path: Path,
    dataset: tuple[bytes, str],
) -> None:
    """Bytes behind the log's end with the right number and lengths: without the seed no record."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder)
    batch = spool.open_batch(PROVENANCE)
    batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    forged = Segment(spool.log.segment.number, 0)
    for seed, seen in ((forged, 0), (spool.log.segment, 1)):
        body = Body(seed, b'["forged",{}]')
        os.pwritev(spool.log._fd, encode_record(RecordType.ALERT, seed, body), spool.log._pos)
        assert len(drain(folder)) == 2 + seen
    spool.close()
