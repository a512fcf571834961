"""Receiving: RSO, which syncs each instance before it answers, against those who do not."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from peers import Orthanc, PlainPynetdicom, RawSink, Storescp, send
from rows import Row, alternate, speed
from sets import SETS, make_set, split

from rso.engine.spool_reader import SpoolReader
from rso.testing.site import Site

__all__ = ["Receiving", "measure", "receiving"]

_NO_SYNC = "import os\nos.fsync = os.fdatasync = lambda fd: None\n"


class Receiving:
    """RSO's receiving roles. Nothing takes the logs in: ``clean`` does what intake would."""

    def __init__(self, folder: Path, *, roles: str = "receive", sync: bool = True) -> None:
        folder.mkdir()
        self.site = Site(folder, 1)
        before = os.environ.get("PYTHONPATH", "")
        if not sync:
            (folder / "sitecustomize.py").write_text(_NO_SYNC)
            os.environ["PYTHONPATH"] = str(folder)
        try:
            self.site.start(roles)
        finally:
            os.environ["PYTHONPATH"] = before
        self.port = self.site.dicom
        logs = SpoolReader.discover(folder / "site" / "data" / "spool")
        self._readers = [SpoolReader(log) for log in logs]

    def clean(self) -> None:
        """Release the logs: their segments are used again, as they are in a running RSO."""
        for reader in self._readers:
            while reader.read(256, 64 << 20):
                pass
            reader.release(reader.position)

    def stop(self) -> None:
        """End it."""
        self.site.stop()


@contextmanager
def receiving(*, roles: str = "receive", sync: bool = True) -> Iterator[Receiving]:
    """RSO's receiving roles in a folder that goes away."""
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    one = Receiving(folder / "rso", roles=roles, sync=sync)
    try:
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder)


def measure(runs: int = 5, scale: float = 1.0) -> list[Row]:
    """Every row about receiving."""
    rows: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        rso = stack.enter_context(receiving())
        unsynced = stack.enter_context(receiving(sync=False))
        storescp = Storescp(folder / "storescp")
        stack.callback(storescp.stop)
        plain = PlainPynetdicom(folder / "pynetdicom")
        stack.callback(plain.stop)
        orthanc = Orthanc(folder / "orthanc")
        stack.callback(orthanc.stop)
        raw = RawSink(folder / "raw")
        stack.callback(raw.stop)
        clean = [rso.clean, unsynced.clean, storescp.set_aside, plain.set_aside, raw.set_aside]
        goals = {"CT": 1.3, "MR": 1.2, "CR": 1.2, "tiny": 0.8}
        for kind, goal in goals.items():
            count = max(int(SETS[kind][0] * scale), 8)
            files = make_set(folder / kind, kind, count)
            work = {
                "RSO": lambda f=files: send(f, rso.port),
                "storescp": lambda f=files: send(f, storescp.port),
            }
            if kind in {"CT", "MR"}:
                work["RSO unsynced"] = lambda f=files: send(f, unsynced.port)
            if kind == "CT":
                work["raw"] = lambda f=files: raw.send(f)
            found = alternate(runs, work, clean)
            rows.append(
                speed(f"{kind}, 1 association, storescp", goal, found, "RSO", "storescp", count)
            )
            if "RSO unsynced" in found:
                rows.append(
                    speed(f"{kind}, 1 association, fsync off, storescp", 1.5, found,
                          "RSO unsynced", "storescp", count)
                )  # fmt: skip
            if "raw" in found:
                rows.append(
                    speed("CT, against raw bytes into synced files", 0.6, found, "RSO", "raw",
                          count)
                )  # fmt: skip
            rows += _four(runs, kind, files, rso, orthanc, clean)
            if kind != "CR":
                found = alternate(
                    runs,
                    {
                        "RSO": lambda f=files: send(f, rso.port),
                        "pynetdicom": lambda f=files: send(f, plain.port),
                    },
                    clean,
                )
                rows.append(
                    speed(f"{kind}, 1 association, plain pynetdicom SCP", 4, found, "RSO",
                          "pynetdicom", count)
                )  # fmt: skip
        nagle = make_set(folder / "nagle", "tiny", max(int(200 * scale), 20))
        found = alternate(
            runs,
            {
                "RSO": lambda: send(nagle, rso.port, nodelay=False),
                "storescp": lambda: send(nagle, storescp.port, nodelay=False),
            },
            clean,
        )
        count = len(list(nagle.iterdir()))
        rows.append(
            speed("tiny, sender with Nagle on, storescp", 40, found, "RSO", "storescp", count)
        )
    return rows


def _four(
    runs: int, kind: str, files: Path, rso: Receiving, orthanc: Orthanc, clean: list[object]
) -> list[Row]:
    parts = split(files, 4)
    count = len(list(files.iterdir()))
    found = alternate(
        runs,
        {"RSO": lambda: send(parts, rso.port), "Orthanc": lambda: send(parts, orthanc.port)},
        clean,  # type: ignore[arg-type]
    )
    for part in parts:
        shutil.rmtree(part)
    goal = 2.0 if kind == "CR" else 2.5
    return [speed(f"{kind}, 4 associations, Orthanc", goal, found, "RSO", "Orthanc", count)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each set")
    options = parser.parse_args()
    measure(options.runs, options.scale)
