"""What 500 idle associations cost the receiving process: processor and memory."""

import argparse
import os
import resource
import subprocess
import time
from pathlib import Path

from receive import receiving
from rows import Row

from rso.dicom.dimse import VERIFICATION
from rso.dicom.elements import IMPLICIT_LITTLE
from rso.dicom.requestor import Requestor

__all__ = ["measure"]

_ASSOCIATIONS = 500
_TICKS = os.sysconf("SC_CLK_TCK")


def _process(config: Path) -> Path:
    found = subprocess.run(
        ["pgrep", "-f", f"rso.roles receive 0 {config}"], capture_output=True, text=True, check=True
    )
    return Path("/proc") / found.stdout.split()[0]


def _seconds(process: Path) -> float:
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident(process: Path) -> int:
    line = next(t for t in (process / "status").read_text().splitlines() if t.startswith("VmRSS"))
    return int(line.split()[1]) << 10


def measure(seconds: float = 20.0) -> list[Row]:
    """Both rows."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with receiving() as rso:
        process = _process(rso.site.config)
        before = _resident(process)
        peers = [
            Requestor("127.0.0.1", rso.port, called_ae_title="RSO", calling_ae_title="NORTHPACS",
                      contexts=[(VERIFICATION, IMPLICIT_LITTLE)])
            for _ in range(_ASSOCIATIONS)
        ]  # fmt: skip
        for peer in peers:
            peer.echo()
        time.sleep(2)
        used, began = _seconds(process), time.perf_counter()
        time.sleep(seconds)
        share = (_seconds(process) - used) / (time.perf_counter() - began) * 100
        grown = (_resident(process) - before) / (1 << 20)
        for peer in peers:
            peer.release()
    return [
        Row(what=f"{_ASSOCIATIONS} idle associations, % of a core", ratio=share, goal=5,
            at_most=True, detail="the whole process").show(),
        Row(what=f"{_ASSOCIATIONS} idle associations, MB of memory", ratio=grown, goal=100,
            at_most=True, detail="growth of the process").show(),
    ]  # fmt: skip


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure()
