"""RSO against DCMTK and Orthanc on this machine, in one run: receiving, and end to end.

Prints ratios of medians. Every peer gets the same files from the same sender (``storescu`` with
TCP_NODELAY=1); RSO syncs each instance to disk before it answers, storescp never does.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid

from rso.testing.pacs import Pacs
from rso.testing.site import Site, free_port

SETS = {"CT": (200, 512 * 1024), "MR": (400, 128 * 1024), "tiny": (600, 1024)}


def make_set(folder: Path, count: int, size: int, sample: Path) -> Path:
    """Files of one Study, with so many bytes of pixel data each."""
    folder.mkdir()
    dataset = pydicom.dcmread(sample)
    side = max(int((size / 2) ** 0.5), 16)
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = os.urandom(side * side * 2)
    for i in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = i
        dataset.save_as(folder / f"{i:05d}.dcm")
    return folder


def storescu(folder: Path, port: int) -> float:
    """Seconds that storescu takes to send a folder."""
    began = time.perf_counter()
    subprocess.run(
        [
            "storescu",
            "-aet",
            "NORTHPACS",
            "-aec",
            "RSO",
            "+sd",
            "127.0.0.1",
            str(port),
            str(folder),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    return time.perf_counter() - began


def wait_port(port: int) -> None:
    """Until somebody answers a C-ECHO there."""
    for _ in range(100):
        done = subprocess.run(
            ["echoscu", "-aet", "NORTHPACS", "-aec", "RSO", "127.0.0.1", str(port)],
            check=False,
            capture_output=True,
        )
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit("a peer did not start")


class Storescp:
    """DCMTK's storescp, writing to a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self.process = subprocess.Popen(
            ["storescp", "+xa", "-od", str(folder), str(self.port)],
            env={**os.environ, "TCP_NODELAY": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_port(self.port)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


class Orthanc:
    """Orthanc, with or without per-instance routing to a PACS."""

    def __init__(self, folder: Path, pacs: int = 0, *, nodelay: bool = True) -> None:
        folder.mkdir()
        self.port = free_port()
        script = folder / "route.lua"
        script.write_text(
            "function OnStoredInstance(id, tags, metadata, origin)\n"
            "  Delete(SendToModality(id, 'pacs'))\nend\n"
        )
        config = {
            "Name": "bench",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "DicomPort": self.port,
            "DicomAet": "RSO",
            "HttpServerEnabled": False,
            "DicomModalities": {"pacs": ["PACS", "127.0.0.1", pacs]} if pacs else {},
            "LuaScripts": [str(script)] if pacs else [],
            "OverwriteInstances": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin") or "Orthanc",
             str(folder / "orthanc.json")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **({"TCP_NODELAY": "1"} if nodelay else {})},
        )  # fmt: skip
        wait_port(self.port)

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def end_to_end(folder: Path, port: int, pacs: Pacs, count: int) -> float:
    """Seconds from the first byte to the last acknowledgement by the PACS."""
    before = len(pacs.received)
    began = time.perf_counter()
    storescu(folder, port)
    while len(pacs.received) < before + count:
        time.sleep(0.005)
        if time.perf_counter() - began > 300:
            raise SystemExit("not everything arrived")
    return time.perf_counter() - began


def quiet(pacs: Pacs) -> None:
    """Until nothing has arrived at the PACS for five seconds."""
    time.sleep(5)
    while pacs.received:
        pacs.received.clear()
        time.sleep(5)


def medians(runs: int, work: list[Callable[[], float]]) -> list[float]:
    """The median of each, taken in turn so that a noisy moment meets all."""
    taken: list[list[float]] = [[] for _ in work]
    for _ in range(runs):
        for times, one in zip(taken, work, strict=True):
            times.append(one())
    return [statistics.median(times) for times in taken]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=["receive", "end-to-end"], default="")
    options = parser.parse_args()
    runs = options.runs
    sample = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    pacs = Pacs()
    pacs.start()
    site = Site(folder, pacs.port)
    # Receiving is measured alone, as storescp does nothing else either.
    site.start("receive")
    peers = [Storescp(folder / "storescp"), Orthanc(folder / "orthanc")]
    print("receive, 1 association: instances a second, and RSO's rate as a multiple")
    try:
        for name, (count, size) in SETS.items():
            if options.only == "end-to-end":
                break

            # A new set for each run, so that nobody answers from what it has.
            def fresh(port: int, name: str = name, count: int = count, size: int = size) -> float:
                files = make_set(folder / f"{name}-{time.time_ns()}", count, size, sample)
                try:
                    return storescu(files, port)
                finally:
                    shutil.rmtree(files)

            ours, scp, orthanc = medians(
                runs, [lambda p=p: fresh(p) for p in (site.dicom, peers[0].port, peers[1].port)]
            )
            print(
                f"  {name:5} RSO {count / ours:7.0f}/s   x{scp / ours:.2f} of storescp"
                f" ({count / scp:.0f}/s)   x{orthanc / ours:.2f} of Orthanc"
                f" ({count / orthanc:.0f}/s)"
            )
        if options.only == "receive":
            return
        site.stop()
        site.start()
        quiet(pacs)
        shipped = Orthanc(folder / "shipped", pacs.port, nodelay=False)
        tuned = Orthanc(folder / "tuned", pacs.port)
        peers += [shipped, tuned]
        count, size = 100, SETS["CT"][1]

        def through(port: int) -> float:
            files = make_set(folder / f"e2e-{time.time_ns()}", count, size, sample)
            try:
                return end_to_end(files, port, pacs, count)
            finally:
                shutil.rmtree(files)

        ours, theirs, best = medians(
            min(runs, 3), [lambda p=p: through(p) for p in (site.dicom, shipped.port, tuned.port)]
        )
        print(
            f"end to end, {count} CT: RSO {count / ours:.0f}/s, x{theirs / ours:.1f} of Orthanc"
            f" with Lua routing each instance, as shipped ({count / theirs:.0f}/s);"
            f" x{best / ours:.1f}"
            f" with TCP_NODELAY=1 ({count / best:.0f}/s)"
        )
    finally:
        for peer in peers:
            peer.stop()
        site.stop()
        pacs.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
