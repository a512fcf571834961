"""The bounded header scan against pydicom on pydicom's own sample files: a ratio of times."""

import io
import time
import warnings
from pathlib import Path

import pydicom

from rso.core.errors import IntakeError
from rso.dicom.header import _WANTED, scan_header
from rso.dicom.part10 import read_file_meta


def main() -> None:
    """Run and print."""
    warnings.simplefilter("ignore")
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
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _, dataset, syntax in found:
            scan_header(dataset, syntax)
        ours = time.perf_counter() - began
        began = time.perf_counter()
        for data, _, _ in found:
            pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=tags)
        times.append((ours, time.perf_counter() - began))
    ratio = sorted(theirs / ours for ours, theirs in times)[2]
    ours = sorted(ours for ours, _ in times)[2] / len(found)
    print(f"{len(found)} files: {ours * 1e6:.0f} µs a header, x{ratio:.1f} of pydicom")


if __name__ == "__main__":
    main()
