"""The log when a step between two others fails, or a crash comes between them."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from rso.core.errors import ConfigError, NoSpaceError, VolumeError
from rso.core.transport import Kind, Provenance, Sink
from rso.engine import spool_files, spool_sink
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.intake import take_records
from rso.engine.spool import LogSpool
from rso.engine.spool_reader import InstanceRecord, SpoolReader
from rso.engine.spool_segment import _FIELDS, HEAD, RecordType, _claimed_size
from rso.ledger import Ledger
from rso.ledger.exams import now
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings

PROVENANCE = Provenance(
    channel="dicom_scp", facility="NORTH", source="CT", kind=Kind.INTEGRATION,
    peer_address="127.0.0.1", opened_at=now(),
)  # fmt: skip


def pixels(dataset: tuple[bytes, str], size: int) -> bytes:
    """The dataset with an element of so many bytes behind it."""
    return dataset[0] + b"\xfc\xff\xfc\xffOB\0\0" + size.to_bytes(4, "little") + bytes(size)


def read_ids(folder: Path) -> list[str]:
    """The record ids of all instances in a log."""
    reader, found = SpoolReader(folder), []
    while records := reader.read(64, 1 << 26):
        found += [r.record_id for r in records if isinstance(r, InstanceRecord)]
    return found


@pytest.mark.parametrize("call", ["open", "rename", "sync"])
def test_nothing_is_kept_behind_the_end_of_a_segment(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """When the next segment cannot be opened, what is acknowledged later is read all the same."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder)
    batch = spool.open_batch(PROVENANCE)
    room = spool.log._size
    while spool.log._pos + (3 << 20) < room:
        batch.append([pixels(dataset, 2 << 20)], transfer_syntax_uid=dataset[1])
    kept = read_ids(folder)
    spool.log.files._next_ready.wait()

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO if call == "sync" else errno.EMFILE, "as said")

    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr(os, "open", fails)
        elif call == "rename":
            patch.setattr(Path, "rename", fails)
        else:
            patch.setattr(spool_files, "sync_folder", fails)
        with pytest.raises((NoSpaceError, VolumeError)):
            batch.append([pixels(dataset, 5 << 20)], transfer_syntax_uid=dataset[1])
    try:
        kept.append(batch.append([dataset[0]], transfer_syntax_uid=dataset[1]).record_id)
    except VolumeError:
        assert call == "sync"  # the volume is not trusted any more
    spool.close()
    assert read_ids(folder) == kept


def test_large_files_without_a_record_go_and_others_stay(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """A crash between a large file and its record leaves nothing behind after the next start."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder, large=1 << 20)
    batch = spool.open_batch(PROVENANCE)
    kept = batch.append([pixels(dataset, 2 << 20)], transfer_syntax_uid=dataset[1])
    spool.close()
    orphan = folder / "large-0.dcm"
    orphan.write_bytes(bytes(100))
    LogSpool(folder).close()
    assert not orphan.exists()
    assert [p.stem for p in folder.glob("large-*")] == [f"large-{kept.record_id}"]


@pytest.mark.parametrize("call", ["write", "fsync", "folder"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_a_volume_that_failed_with_a_large_file_is_not_asked_again(
    tmp_path: Path,
    dataset: tuple[bytes, str],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
) -> None:
    """As where the log itself failed; to be out of descriptors says nothing of the volume."""
    spool = LogSpool(tmp_path / "spool" / "a", large=1 << 20)
    batch = spool.open_batch(PROVENANCE)

    def fails(*_: Any) -> Any:
        raise OSError(number, "as said")

    def take(sink: Sink, data: bytes) -> None:
        sink.write(data)
        sink.commit()

    sink = batch.open(transfer_syntax_uid=dataset[1])
    with monkeypatch.context() as patch:
        if call == "folder":
            patch.setattr(spool_sink, "sync_folder", fails)
        else:
            patch.setattr(os, call, fails)
        with pytest.raises(VolumeError):
            take(sink, pixels(dataset, 2 << 20))
    sink.abort()
    if number == errno.EMFILE:
        batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    else:
        with pytest.raises(VolumeError, match="not trusted any more"):
            batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    spool.close()


def test_a_large_file_whose_record_found_no_room_goes_at_once(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused means that nothing stays under a final name."""
    spool = LogSpool(tmp_path / "spool" / "a", large=1 << 20)
    batch = spool.open_batch(PROVENANCE)
    sink = batch.open(transfer_syntax_uid=dataset[1])
    sink.write(pixels(dataset, 2 << 20))

    def full(*_: Any) -> None:
        raise NoSpaceError("full")

    monkeypatch.setattr(spool.log, "append", full)
    with pytest.raises(NoSpaceError):
        sink.commit()
    sink.abort()
    assert not list(spool.log.folder.glob("large-*"))
    spool.close()


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """An engine on either database with an empty archive."""
    (tmp_path / "rso.toml").write_text("")
    loaded = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, {"facility": [{"code": "NORTH"}]})
    archive = LocalArchive(tmp_path / "archive")
    archive.prepare()
    return Engine(ledger=ledger, plugins=load_plugins(loaded), settings=loaded, archive=archive)


async def count(engine: Engine, table: str) -> int:
    """Rows of a table."""
    rows = await engine.ledger.fetch(f"SELECT count(*) AS n FROM {table}")
    return int(rows[0]["n"])


async def test_large_instances_are_taken_again_after_a_crash(
    engine: Engine, tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """Their files have moved, or were discarded as kept: intake neither stops nor keeps twice."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder, large=1 << 20)
    batch = spool.open_batch(PROVENANCE)
    for _ in range(2):
        batch.append([pixels(dataset, 2 << 20)], transfer_syntax_uid=dataset[1])
    reader = SpoolReader(folder)
    records = reader.read(64, 1 << 26)
    first = next(r for r in records if isinstance(r, InstanceRecord))
    # Killed after the move and before the commit.
    assert first.path is not None
    engine.archive.link(first.record_id, first.path)
    assert await take_records(engine, records) == 1
    # Killed after the commit and before the release.
    await take_records(engine, records)
    assert await count(engine, "instance") == 1
    assert engine.archive.path(first.record_id).stat().st_size == first.dataset_offset + first.size
    assert not list(folder.glob("large-*"))
    # A file that nobody kept is not passed over in silence.
    audits = await count(engine, "audit")
    header = structs.replace(first.header, sop_instance_uid="1.2.3.4")
    lost = structs.replace(first, header=header, record_id=batch.id)
    await take_records(engine, [lost])
    assert await count(engine, "audit") == audits + 1
    spool.close()


def test_a_reader_passes_records_that_a_power_loss_took(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """What it had read and the disk had not: it goes on with the next segment."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder)
    batch = spool.open_batch(PROVENANCE)
    batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    before = spool.log._pos
    batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    reader = SpoolReader(folder)
    reader.read(64, 1 << 26)
    with (folder / f"{spool.log.segment.number:012d}.seg").open("r+b") as file:
        file.seek(before)
        file.write(bytes(spool.log._pos - before))
    spool.close()
    again = LogSpool(folder)
    kept = again.open_batch(PROVENANCE).append([dataset[0]], transfer_syntax_uid=dataset[1])
    assert reader.poll()
    found = [r.record_id for r in reader.read(64, 1 << 26) if isinstance(r, InstanceRecord)]
    assert found == [kept.record_id]
    again.close()


def test_a_damaged_batch_record_does_not_take_its_instances_along(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """Later instances of the batch are read, and know where they came from."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder, large=1 << 20)
    batch = spool.open_batch(PROVENANCE)
    batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    after = spool.log._pos
    kept = [batch.append([dataset[0]], transfer_syntax_uid=dataset[1]).record_id,
            batch.append([pixels(dataset, 2 << 20)], transfer_syntax_uid=dataset[1]).record_id]  # fmt: skip
    while spool.log.segment.number == 1:
        batch.append([pixels(dataset, 900_000)], transfer_syntax_uid=dataset[1])
    with (folder / f"{1:012d}.seg").open("r+b") as file:
        file.seek(after // 2)
        file.write(bytes(100))
        file.seek(60)
        file.write(bytes(40))
    reader = SpoolReader(folder)
    found = [r for r in reader.read(2, 1 << 26) if isinstance(r, InstanceRecord)]
    assert [r.record_id for r in found] == kept
    assert {r.provenance for r in found} == {PROVENANCE}
    spool.close()


def test_damage_hides_nothing_behind_it_at_a_start(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """The end that a start puts to the last segment stands behind its last whole record."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder)
    batch = spool.open_batch(PROVENANCE)
    first = batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    damaged = spool.log._pos
    batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    last = batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    number = spool.log.segment.number
    spool.close()
    with (folder / f"{number:012d}.seg").open("r+b") as file:
        file.seek(damaged + 200)
        file.write(b"\xff" * 100)
    again = LogSpool(folder)
    found = SpoolReader(folder).read(64, 1 << 26)
    kept = [r.record_id for r in found if isinstance(r, InstanceRecord)]
    assert kept == [first.record_id, last.record_id]
    again.close()


def test_a_dataset_full_of_false_heads_does_not_delay_a_start(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """Each would be summed up to the end of the segment; the search has a bound."""
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder)
    segment, lead = spool.log.segment, spool.log._pos
    nothing, claimed = bytes(16), spool.log._size - (9 << 20)
    head = _FIELDS.pack(b"RSOL", RecordType.INSTANCE, segment.number, nothing, nothing, 0, claimed)
    head += bytes(HEAD - len(head))
    assert _claimed_size(memoryview(head + bytes(claimed)), 0, segment) == HEAD + claimed
    os.pwrite(spool.log._fd, head * ((8 << 20) // len(head)), lead)
    spool.close()
    began = time.monotonic()
    LogSpool(folder).close()
    assert time.monotonic() - began < 10


def test_records_of_an_earlier_form_are_not_passed_over(tmp_path: Path) -> None:
    """An upgrade over a spool that is not empty is refused, and leaves it as it was."""
    folder = tmp_path / "spool" / "a"
    folder.mkdir(parents=True)
    segment = folder / "000000000007.seg"
    segment.write_bytes(b"RSOL" + bytes(8 << 20))
    with pytest.raises(ConfigError, match="earlier version"):
        LogSpool(folder)
    assert segment.read_bytes()[:4] == b"RSOL"
    (folder / "checkpoint").write_text("8 0\n")
    LogSpool(folder).close()
