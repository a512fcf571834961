"""The archive takes files over, from its own volume and from another."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rso.engine.archive import LocalArchive
from rso.ledger import new_id


@pytest.fixture(params=["same", "other"])
def large(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A large file of the spool, on the archive's volume or on another."""
    place = str(tmp_path) if request.param == "same" else "/dev/shm"  # memory: another volume
    with tempfile.TemporaryDirectory(dir=place) as folder:
        file = Path(folder) / "large.dcm"
        file.write_bytes(b"pixels" * 500_000)
        same = file.stat().st_dev == tmp_path.stat().st_dev
        assert same == (request.param == "same")
        yield file


@pytest.mark.parametrize("before", ["nothing", "cut", "whole"])
def test_a_large_file_is_taken_over(tmp_path: Path, large: Path, before: str) -> None:
    """Also where a crash left a copy, whole or cut; the spool's file is gone afterwards."""
    archive = LocalArchive(tmp_path / "archive")
    archive.prepare()
    record_id, data = new_id(), large.read_bytes()
    path = archive.path(record_id)
    if before != "nothing":
        path.parent.mkdir(parents=True)
        path.write_bytes(data if before == "whole" else data[:1000])
    archive.link(record_id, large)
    assert path.read_bytes() == data
    assert not large.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    archive.link(record_id, large)  # the same record again, after a crash
    assert path.read_bytes() == data
