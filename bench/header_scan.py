"""The bounded header scan against pydicom on pydicom's own sample files: a ratio of times."""

import io
import statistics
import time
import warnings
from pathlib import Path

import pydicom
from rows import Row

from rso.core.errors import IntakeError
from rso.dicom.header import _WANTED, scan_header
from rso.dicom.part10 import read_file_meta


def measure(runs: int = 5) -> list[Row]:
    """The one row."""
    found = []
    for path in (Path(pydicom.__file__).parent / "data").rglob("*.dcm"):
        data = path.read_bytes()
        try:
            meta = read_file_meta(data[: 1 << 17])
            dataset = memoryview(data)[meta.dataset_offset :]
            scan_header(dataset, meta.transfer_syntax_uid)
        except IntakeError:
            continue
        if len(data) < 2_000_000:
            found.append((data, dataset, meta.transfer_syntax_uid))
    tags = sorted(_WANTED)
    ours, theirs = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(runs):
            began = time.perf_counter()
            for _, dataset, syntax in found:
                scan_header(dataset, syntax)
            between = time.perf_counter()
            for data, _, _ in found:
                pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=tags)
            ours.append((between - began) / len(found))
            theirs.append((time.perf_counter() - between) / len(found))
    mine, other = statistics.median(ours), statistics.median(theirs)
    return [
        Row(what="header scan, pydicom.dcmread(specific_tags)", ratio=other / mine, goal=10,
            detail=f"{mine * 1e6:.0f} µs, {other * 1e6:.0f} µs, {len(found)} files").show()
    ]  # fmt: skip


if __name__ == "__main__":
    measure()
