"""Fixtures of the engine's tests."""

from pathlib import Path

import pytest

from rso.dicom.part10 import read_file_meta


@pytest.fixture
def dataset(samples: Path) -> tuple[bytes, str]:
    """A real dataset and its Transfer Syntax."""
    data = (samples / "CT_small.dcm").read_bytes()
    meta = read_file_meta(data[: 1 << 16])
    return data[meta.dataset_offset :], meta.transfer_syntax_uid
