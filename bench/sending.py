"""Sending: the C-STORE SCU against DCMTK's storescu, to the same storescp, near and far."""

import argparse
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from peers import Storescp, send
from rows import Row, alternate, speed
from rso_dicom_scu.plugin import DicomScu, DicomScuConfig, DicomScuOptions
from sets import SETS, make_set

from rso.core.transport import Outcome, Outgoing, Piece
from rso.dicom.part10 import read_file_meta

__all__ = ["measure"]

_ROUND_TRIP_SECONDS = 0.05
_PROXY = """
import sys, threading
from rso.testing.chaos import Chaos, ChaosProxy
proxy = ChaosProxy(int(sys.argv[1]))
proxy.to_server = proxy.to_client = Chaos(delay_seconds=float(sys.argv[2]))
print(proxy.start(), flush=True)
threading.Event().wait()
"""


def outgoing(folder: Path) -> list[Outgoing]:
    """A folder's files as the archive hands them to a sender."""
    found = []
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            meta = read_file_meta(opened.read(1 << 17))
        size = file.stat().st_size - meta.dataset_offset
        found.append(
            Outgoing(
                sop_class_uid=meta.sop_class_uid,
                sop_instance_uid=meta.sop_instance_uid,
                transfer_syntax_uid=meta.transfer_syntax_uid,
                pieces=(Piece(path=file, offset=meta.dataset_offset, length=size),),
            )
        )
    return found


def scu(items: list[Outgoing], port: int, associations: int = 1) -> float:
    """Seconds that RSO's sender takes, over so many associations."""
    options = DicomScuOptions(
        ae_title="PACS", host="127.0.0.1", port=port, associations=associations
    )
    sender = DicomScu(DicomScuConfig(), options)
    pairs = list({(i.sop_class_uid, i.transfer_syntax_uid) for i in items})
    waiting: queue.SimpleQueue[Outgoing] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def work() -> None:
        session = sender.open(pairs)
        while not waiting.empty():
            try:
                result = session.send(waiting.get_nowait())
            except queue.Empty:
                break
            if result.outcome is not Outcome.ACKNOWLEDGED:
                raise SystemExit(f"storescp answered {result.code}")
        session.close()

    began = time.perf_counter()
    if associations == 1:
        work()
    else:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        with ThreadPoolExecutor(associations) as pool:
            for done in [pool.submit(work) for _ in range(associations)]:
                done.result()
    return time.perf_counter() - began


def measure(runs: int = 5, scale: float = 1.0) -> list[Row]:
    """Every row about sending."""
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        storescp = Storescp(folder / "storescp")
        stack.callback(storescp.stop)
        for kind in ("CT", "MR"):
            count = max(int(SETS[kind][0] * scale), 8)
            files = make_set(folder / kind, kind, count)
            items = outgoing(files)
            found = alternate(
                runs,
                {
                    "RSO": lambda i=items: scu(i, storescp.port),
                    "storescu": lambda f=files: send(f, storescp.port),
                },
                [storescp.clean],
            )
            rows.append(speed(f"send {kind}, 1 association", 1.2, found, "RSO", "storescu", count))
            shutil.rmtree(files)
        forking = Storescp(folder / "forking", "--fork")
        stack.callback(forking.stop)
        proxy = subprocess.Popen(
            [sys.executable, "-c", _PROXY, str(forking.port), str(_ROUND_TRIP_SECONDS / 2)],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(proxy.wait)
        stack.callback(proxy.kill)
        assert proxy.stdout is not None
        far = int(proxy.stdout.readline())
        count = max(int(240 * scale), 16)
        files = make_set(folder / "far", "MR", count)
        items = outgoing(files)
        found = alternate(
            min(runs, 3) if scale < 1 else runs,
            {"RSO": lambda: scu(items, far, 8), "storescu": lambda: send(files, far)},
            [forking.clean],
        )
        rows.append(
            speed("send MR over 50 ms, 8 associations against 1 of storescu", 7, found, "RSO",
                  "storescu", count)
        )  # fmt: skip
        proxy.stdout.close()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each set")
    options = parser.parse_args()
    measure(options.runs, options.scale)
