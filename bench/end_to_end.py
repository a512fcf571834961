"""End to end: from the first byte sent to the last instance that the PACS has acknowledged.

The PACS is storescp for everybody, and writes to memory: it stands elsewhere, and its disk is not
what is measured. RSO runs whole: it syncs, matches, writes the ledger, and
keeps an archive; what it is measured against last is storescu straight to the PACS.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from peers import Orthanc, Storescp, send
from rows import Row, alternate, speed
from sets import SETS, make_set

from rso.testing.site import Site

__all__ = ["measure"]

_PATIENCE_SECONDS = 300
_MEMORY = Path("/dev/shm")  # a file system in memory


def arrived(pacs: Path, before: int, count: int, work: Callable[[], object]) -> float:
    """Seconds until so many more files are there and the last of them is whole."""
    began = time.perf_counter()
    work()
    while len(os.listdir(pacs)) < before + count:  # noqa: PTH208  (names are all that is needed)
        time.sleep(0.005)
        if time.perf_counter() - began > _PATIENCE_SECONDS:
            raise SystemExit("not everything arrived")
    return time.perf_counter() - began


def through(port: int, pacs: Storescp, folder: Path, kind: str, count: int) -> float:
    """Send a new Study through somebody to the PACS.

    The Study stays until the end: ext4 steps over each file that was removed a moment ago when it
    makes one, which whoever keeps an archive would pay for.
    """
    files = make_set(folder / f"{kind}-{time.monotonic_ns()}", kind, count)
    before = len(os.listdir(pacs.folder))  # noqa: PTH208
    return arrived(pacs.folder, before, count, lambda: send(files, port))


def quiet(pacs: Storescp) -> None:
    """Until the PACS has been quiet for a while; then its folder is emptied."""
    seen = -1
    while seen != (seen := len(os.listdir(pacs.folder))):  # noqa: PTH208
        time.sleep(1.5)
    pacs.clean()


def measure(runs: int = 5, scale: float = 1.0) -> list[Row]:
    """Every row from end to end."""
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        memory = Path(tempfile.mkdtemp(prefix="rso-bench-", dir=_MEMORY))
        stack.callback(shutil.rmtree, memory, ignore_errors=True)
        pacs = Storescp(memory / "pacs", "--fork")
        stack.callback(pacs.stop)
        shipped = Orthanc(folder / "shipped", pacs.port, nodelay=False)
        stack.callback(shipped.stop)
        tuned = Orthanc(folder / "tuned", pacs.port)
        stack.callback(tuned.stop)
        site = Site(folder, pacs.port)
        site.start()
        stack.callback(site.stop)

        count = max(int(100 * scale), 10)
        ways = {"RSO": site.dicom, "Orthanc": shipped.port, "Orthanc, TCP_NODELAY=1": tuned.port}
        found = alternate(
            min(runs, 5),
            {
                name: lambda p=port: through(p, pacs, folder, "CT", count)
                for name, port in ways.items()
            },
            [lambda: quiet(pacs)],
        )
        what = "end to end, CT, Orthanc with Lua routing each instance"
        rows.append(speed(what, 15, found, "RSO", "Orthanc", count))
        rows.append(
            speed(f"{what}, given TCP_NODELAY=1", 1, found, "RSO", "Orthanc, TCP_NODELAY=1", count)
        )

        count = max(int(SETS["CT"][0] * scale), 20)
        found = alternate(
            runs,
            {
                "RSO": lambda: through(site.dicom, pacs, folder, "CT", count),
                "storescu": lambda: through(pacs.port, pacs, folder, "CT", count),
            },
            [lambda: quiet(pacs)],
        )
        rows.append(
            Row(
                what="end to end, CT, time against storescu straight to the PACS",
                ratio=found["RSO"] / found["storescu"],
                goal=2.2,
                at_most=True,
                detail=f"RSO {found['RSO']:.2f} s, storescu {found['storescu']:.2f} s, {count} CT",
            ).show()
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each set")
    options = parser.parse_args()
    measure(options.runs, options.scale)
