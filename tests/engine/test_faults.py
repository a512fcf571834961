"""What a process does not trust any more is seen by the others, and goes with the process."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rso.core.errors import VolumeError
from rso.core.transport import Kind, Provenance
from rso.engine.context import Engine
from rso.engine.faults import Fault, StandingFault, standing_faults
from rso.engine.site import renew_sources
from rso.engine.snapshot import SnapshotLoop, write_snapshot
from rso.engine.spool import LogSpool
from rso.ledger.exams import now

PROVENANCE = Provenance(
    channel="dicom_scp", facility="NORTH", source="CT", kind=Kind.INTEGRATION,
    peer_address="127.0.0.1", opened_at=now(),
)  # fmt: skip


def test_a_fault_stands_until_it_is_cleared_or_the_process_ends(tmp_path: Path) -> None:
    """Another process sees it with its reason; killed with it, it is gone."""
    assert standing_faults(tmp_path) == []
    program = (
        "import sys, time; from pathlib import Path; from rso.engine.faults import Fault\n"
        "fault = Fault(Path(sys.argv[1])); fault.say('it failed'); print('said', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "faults" / "archive")],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert standing_faults(tmp_path) == [StandingFault(where="archive", reason="it failed")]
        process.kill()
    assert standing_faults(tmp_path) == []
    fault = Fault(tmp_path / "faults" / "intake")
    fault.say("first")
    fault.say("second")
    assert [str(f) for f in standing_faults(tmp_path)] == ["intake: second"]
    fault.clear()
    assert standing_faults(tmp_path) == []
    fault.close()


def test_a_fault_needs_no_write(tmp_path: Path) -> None:
    """A volume that takes no byte any more hides only the reason, not the fault."""
    path = tmp_path / "faults" / "spool receive-0"
    fault = Fault(path)
    with path.open("rb") as readable:
        os.dup2(readable.fileno(), fault._file.fileno())  # every write to it fails now
    fault.say("sync failed")
    assert [f.where for f in standing_faults(tmp_path)] == ["spool receive-0"]
    assert "the log says which" in str(standing_faults(tmp_path)[0])
    fault.close()
    assert standing_faults(tmp_path) == []


@pytest.mark.parametrize("call", ["fdatasync", "pwritev"])
def test_a_spool_that_failed_is_seen(
    tmp_path: Path, dataset: tuple[bytes, str], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A failed write or sync stands as a fault of this spool until it is opened again."""
    spool = LogSpool(tmp_path / "spool" / "receive-0")
    batch = spool.open_batch(PROVENANCE)
    batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    assert standing_faults(tmp_path) == []

    def fails(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(VolumeError):
            batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    word = {"fdatasync": "sync", "pwritev": "write"}[call]
    expected = StandingFault(where="spool receive-0", reason=f"{word} failed: Input/output error")
    assert standing_faults(tmp_path) == [expected]
    with pytest.raises(VolumeError):  # it works again, and is not trusted
        batch.append([dataset[0]], transfer_syntax_uid=dataset[1])
    spool.close()
    assert standing_faults(tmp_path) == []
    LogSpool(tmp_path / "spool" / "receive-0").close()


async def test_sources_that_cannot_be_written_end_nothing(engine: Engine) -> None:
    """No room, or another account's folder: said while it lasts, and written when it is mended."""
    data_dir = engine.settings.data_dir
    loop = SnapshotLoop(engine)
    folder = data_dir / "snapshot"
    folder.write_text("no folder")
    await loop.write()
    (fault,) = standing_faults(data_dir)
    assert str(fault) == "sources: cannot be written: File exists"
    assert (await renew_sources(engine))[0].startswith("receivers do not know yet")
    folder.unlink()
    await loop.write()
    assert standing_faults(data_dir) == []
    assert (folder / "sources.json").is_file()
    loop.close()


async def test_sources_that_cannot_be_read_are_written_anew(engine: Engine) -> None:
    """What lies where the file should be counts as changed."""
    path = engine.settings.data_dir / "snapshot" / "sources.json"
    await write_snapshot(engine.ledger, path)
    path.unlink()
    path.symlink_to(path)  # whoever reads it gets an OSError, root too
    await write_snapshot(engine.ledger, path)
    assert path.is_file()
    assert not path.is_symlink()
