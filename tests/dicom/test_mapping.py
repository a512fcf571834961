"""Files as views: what goes wrong inside the block is what is raised."""

from pathlib import Path

import pytest

from rso.core.errors import NotDicomError
from rso.dicom.mapping import mapped
from rso.dicom.part10 import read_file_meta, walk
from rso.dicom.stamp import stamp_file


def test_the_bytes_and_no_longer(tmp_path: Path) -> None:
    """The view ends with its block."""
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with mapped(file) as view:
        assert bytes(view) == b"abc"
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_an_empty_file_is_an_empty_view(tmp_path: Path) -> None:
    """Which the system would not map."""
    file = tmp_path / "file"
    file.touch()
    with mapped(file) as view:
        assert not len(view)
    assert not walk(file).complete


def test_what_was_the_matter_is_told(tmp_path: Path) -> None:
    """Slices that the traceback keeps do not turn it into BufferError."""
    file = tmp_path / "file"
    file.write_bytes(bytes(128) + b"DICM" + b"\xff" * 500)
    with pytest.raises(NotDicomError), mapped(file) as view, view[:400] as part:
        read_file_meta(part)
    with pytest.raises(NotDicomError):
        stamp_file(file, tmp_path / "copy", "12345678")
    assert not (tmp_path / "copy").exists()
