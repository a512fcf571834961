"""The spool keeps what it acknowledged, and shows nothing else."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rso.core.errors import ConfigError, IdentifierError, NotDicomError, VolumeError
from rso.core.transport import Kind, Provenance
from rso.engine.spool import LogSpool
from rso.engine.spool_reader import Alert, BatchClosed, BatchOpened, InstanceRecord, SpoolReader

PROVENANCE = Provenance(
    channel="dicom_scp",
    facility="NORTH",
    source="CT",
    kind=Kind.TECHNICIAN,
    peer_address="127.0.0.1",
    opened_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def drain(reader: SpoolReader) -> list[object]:
    """Everything there is to read."""
    records: list[object] = []
    while found := reader.read(64, 1 << 24):
        records += found
    return records


def test_what_goes_in_comes_out(tmp_path: Path, dataset: tuple[bytes, str]) -> None:
    """Instances, their batch, alerts, and a large one in a file of its own, in order."""
    data, syntax = dataset
    spool = LogSpool(tmp_path / "spool" / "a", large=1 << 20)
    batch = spool.open_batch(PROVENANCE)
    first = batch.append([data[:1000], data[1000:]], transfer_syntax_uid=syntax)
    sink = batch.open(transfer_syntax_uid=syntax)
    sink.write(data)
    for _ in range(40):
        sink.write(bytes(100_000))
    sink.commit()
    spool.alert("test", {"a": "b"})
    batch.close()
    batch.close()
    reader = SpoolReader(tmp_path / "spool" / "a")
    opened, small, large, alert, closed = drain(reader)
    assert isinstance(opened, BatchOpened)
    assert opened.provenance == PROVENANCE
    assert isinstance(small, InstanceRecord)
    assert small.record_id == first.record_id
    assert small.part10 is not None
    assert bytes(small.part10[small.dataset_offset :]) == data
    assert isinstance(large, InstanceRecord)
    assert large.path is not None
    assert large.path.read_bytes()[large.dataset_offset :] == data + bytes(4_000_000)
    assert isinstance(alert, Alert)
    assert isinstance(closed, BatchClosed)
    spool.close()


def test_refusals_leave_evidence_and_no_record(tmp_path: Path, dataset: tuple[bytes, str]) -> None:
    """What is not kept is in quarantine with its reason, and not in the log."""
    data, syntax = dataset
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    with pytest.raises(NotDicomError):
        batch.append([b"MZ" + bytes(500)], transfer_syntax_uid=syntax)
    with pytest.raises(IdentifierError):
        batch.append([data], transfer_syntax_uid=syntax, sop_instance_uid="1.2.3")
    assert len(list((tmp_path / "quarantine").glob("*.bin"))) == 2
    assert not drain(SpoolReader(tmp_path / "spool" / "a"))
    spool.close()


@pytest.mark.parametrize("odd", ["", "1." + "2" * 63, "1.2.840.\ufffd", "1.2\0.3", "1.2.840 "])
def test_what_could_not_be_proposed_to_a_destination_is_refused(
    tmp_path: Path, dataset: tuple[bytes, str], odd: str
) -> None:
    """A Transfer Syntax or SOP Class that is no UID, small or large, said or contained."""
    data, syntax = dataset
    nameless = data.replace(b"\x08\0\x16\0UI", b"\x08\0\x17\0UI", 1)
    assert nameless != data
    spool = LogSpool(tmp_path / "spool" / "a", large=1 << 20)
    batch = spool.open_batch(PROVENANCE)
    with pytest.raises(NotDicomError, match="Transfer Syntax"):
        batch.append([data], transfer_syntax_uid=odd)
    with pytest.raises(NotDicomError, match="00080016"):
        batch.append([nameless], transfer_syntax_uid=syntax, sop_class_uid=odd)
    ahead = batch.ahead(transfer_syntax_uid=odd)
    ahead.write(data)
    with pytest.raises(NotDicomError, match="Transfer Syntax"):
        batch.append([data], transfer_syntax_uid=odd, ahead=ahead)
    sink = batch.open(transfer_syntax_uid=odd)
    with pytest.raises(NotDicomError, match="Transfer Syntax"):
        sink.write(data + bytes(2 << 20))
    sink.abort()
    assert len(list((tmp_path / "quarantine").glob("*.bin"))) == 4
    assert not drain(SpoolReader(tmp_path / "spool" / "a"))
    batch.append([nameless], transfer_syntax_uid=syntax, sop_class_uid="1.2.3")
    spool.close()


def test_evidence_takes_no_room_from_what_is_received(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near the low-water mark refusals leave no copy."""
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    monkeypatch.setattr(spool.log.space, "free", lambda: 2 * spool.log.space.low_water)
    with pytest.raises(NotDicomError):
        batch.append([b"MZ" + bytes(500)], transfer_syntax_uid=dataset[1])
    assert not list((tmp_path / "quarantine").glob("*.bin"))
    spool.close()


def test_segments_are_used_again_and_old_records_do_not_come_back(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """Many segments' worth goes through a few files, each record once."""
    data, syntax = dataset
    folder = tmp_path / "spool" / "a"
    spool = LogSpool(folder)
    spool.log.files.size = 8 << 20
    big = data + b"\xfc\xff\xfc\xffOB\0\0" + (2_000_000).to_bytes(4, "little") + bytes(2_000_000)
    batch = spool.open_batch(PROVENANCE)
    reader = SpoolReader(folder)
    wanted, seen = [], []
    for _ in range(60):
        wanted.append(batch.append([big], transfer_syntax_uid=syntax).record_id)
        seen += [r.record_id for r in drain(reader) if isinstance(r, InstanceRecord)]
        reader.release(reader.position)
    assert seen == wanted
    assert len(list(folder.glob("*.seg"))) <= 6
    spool.close()
    again = LogSpool(folder)
    kept = again.open_batch(PROVENANCE).append([data], transfer_syntax_uid=syntax)
    found = [r for r in drain(SpoolReader(folder)) if isinstance(r, InstanceRecord)]
    assert [r.record_id for r in found] == [kept.record_id]
    again.close()


def test_one_writer_a_folder(tmp_path: Path) -> None:
    """A second process is told so."""
    spool = LogSpool(tmp_path / "spool" / "a")
    with pytest.raises(ConfigError, match="another process"):
        LogSpool(tmp_path / "spool" / "a")
    spool.close()


def test_a_failed_sync_is_never_trusted_again(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After EIO from fdatasync nothing is acknowledged until a restart."""
    data, syntax = dataset
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)

    def broken(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(VolumeError):
            batch.append([data], transfer_syntax_uid=syntax)
    with pytest.raises(VolumeError):
        batch.append([data], transfer_syntax_uid=syntax)
    spool.close()


WRITER = """
import sys
from pathlib import Path
from rso.engine.spool import LogSpool
sys.path.insert(0, {here!r})
from test_spool import PROVENANCE
data = Path({data!r}).read_bytes()
spool = LogSpool(Path({folder!r}))
batch = spool.open_batch(PROVENANCE)
print("go", flush=True)
while True:
    receipt = batch.append([data], transfer_syntax_uid={syntax!r})
    print(receipt.record_id, flush=True)
"""


def test_killed_at_any_moment_every_acknowledged_record_is_whole(
    tmp_path: Path, dataset: tuple[bytes, str]
) -> None:
    """Kill -9 while appending, again and again: nothing acknowledged is lost, nothing is torn."""
    data, syntax = dataset
    (tmp_path / "data").write_bytes(data)
    folder = tmp_path / "spool" / "a"
    script = WRITER.format(
        here=str(Path(__file__).parent), data=str(tmp_path / "data"), folder=str(folder),
        syntax=syntax,
    )  # fmt: skip
    acknowledged: set[str] = set()
    for turn in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(20 + 17 * turn):
            line = process.stdout.readline().strip()
            if line != "go":
                acknowledged.add(line)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        acknowledged.update(line for line in rest if len(line) == 36)
        process.wait()
        process.stdout.close()
    LogSpool(folder).close()
    found = [r for r in drain(SpoolReader(folder)) if isinstance(r, InstanceRecord)]
    assert acknowledged <= {r.record_id for r in found}
    assert len(acknowledged) > 150
    for record in found:
        assert record.part10 is not None
        assert bytes(record.part10[record.dataset_offset :]) == data


@pytest.mark.peers
def test_the_acknowledgement_follows_the_sync(
    tmp_path: Path, dataset: tuple[bytes, str], peer: object
) -> None:
    """The order of calls, seen by strace: write, fdatasync, then the answer; and without a sync
    the same check fails.
    """
    strace = peer("strace")  # type: ignore[operator]
    data, syntax = dataset
    (tmp_path / "data").write_bytes(data)
    for disable in (False, True):
        log = tmp_path / f"trace-{disable}"
        script = WRITER.format(
            here=str(Path(__file__).parent), data=str(tmp_path / "data"),
            folder=str(tmp_path / "spool" / str(disable)), syntax=syntax,
        )  # fmt: skip
        script = script.replace("while True", "for _ in range(20)")
        if disable:
            script = "import os; os.fdatasync = lambda fd: None\n" + script
        subprocess.run(
            [strace, "-f", "-e", "trace=pwritev,pwritev2,fdatasync,write", "-o", str(log),
             sys.executable, "-c", script],
            check=True, capture_output=True,
        )  # fmt: skip
        assert _ordered(log.read_text()) is not disable


def _ordered(trace: str) -> bool:
    """Whether each printed receipt stands after a sync that follows its record's write."""
    synced, receipts = True, 0
    for line in trace.splitlines():
        if "pwritev" in line and "RSOL" in line:
            synced = False
        elif "fdatasync(" in line or "fdatasync resumed" in line:
            synced = True
        elif "write(1, " in line and line.count("-") >= 4:
            receipts += 1
            if not synced:
                return False
    return receipts == 20


@pytest.mark.parametrize("size", [1, 7, 100, 4000, 17_000])
def test_pieces_of_any_size_are_one_dataset(
    tmp_path: Path, dataset: tuple[bytes, str], size: int
) -> None:
    """Thousands of small ones too: the header is found across them, the bytes stay in order."""
    data, syntax = dataset
    spool = LogSpool(tmp_path / "spool" / "a")
    batch = spool.open_batch(PROVENANCE)
    whole = batch.append([data], transfer_syntax_uid=syntax)
    sink = batch.open(transfer_syntax_uid=syntax)
    for start in range(0, len(data), size):
        sink.write(data[start : start + size])
    assert sink.commit().header == whole.header
    with pytest.raises(NotDicomError):
        batch.append([], transfer_syntax_uid=syntax)
    with pytest.raises(IdentifierError):
        batch.append(
            [data[:20_000], data[20_000:]], transfer_syntax_uid=syntax, sop_instance_uid="1.2.3"
        )
    reader = SpoolReader(tmp_path / "spool" / "a")
    _, first, second = drain(reader)
    assert isinstance(first, InstanceRecord)
    assert isinstance(second, InstanceRecord)
    assert first.part10 is not None
    assert second.part10 is not None
    assert bytes(second.part10[second.dataset_offset :]) == data
    spool.close()
