"""Everything that is measured, in one run on one machine; writes RESULTS.md beside this file."""

import argparse
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import channels
import end_to_end
import header_scan
import idle
import ledger_size
import receive
import sending
import web
from rows import Row

_HERE = Path(__file__).parent


def machine() -> str:
    """The machine and the peers, in a line each."""
    processor = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    peers = []
    for command in (["storescp", "--version"], ["Orthanc", "--version"]):
        said = subprocess.run(
            command, capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"},
        )  # fmt: skip
        peers.append((said.stdout or said.stderr).strip().splitlines()[0].strip("$ "))
    return (
        f"{os.cpu_count()} cores of {processor}, {memory} GiB, {platform.system()}"
        f" {platform.machine()}, Python {platform.python_version()}; {'; '.join(peers)}."
    )


def main() -> None:
    """Run all parts, or those named, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each set of images")
    parser.add_argument("--ledger", type=float, default=1.0, help="a part of 5,000,000 instances")
    parser.add_argument("--only", nargs="*", default=[], help="parts, as the files are called")
    asked = parser.parse_args()
    parts = {
        "header_scan": lambda: header_scan.measure(asked.runs),
        "receive": lambda: receive.measure(asked.runs, asked.scale),
        "idle": idle.measure,
        "sending": lambda: sending.measure(asked.runs, asked.scale),
        "end_to_end": lambda: end_to_end.measure(asked.runs, asked.scale),
        "channels": lambda: channels.measure(asked.runs, asked.scale),
        "ledger_size": lambda: ledger_size.measure(asked.runs, asked.ledger),
        "web": lambda: web.measure(asked.ledger),
    }
    began = time.monotonic()
    load = os.getloadavg()[0]
    rows: list[Row] = []
    for name, part in parts.items():
        if not asked.only or name in asked.only:
            rows += part()
    if asked.only:
        return
    minutes = (time.monotonic() - began) / 60
    text = (
        f"# A run\n\n{machine()}\n\n{datetime.now(UTC):%Y-%m-%d}, {minutes:.0f} minutes,"
        f" medians of {asked.runs} runs; load of the machine before it began: {load:.1f}.\n\n"
        "| what | ratio | goal | met | made of |\n|---|---|---|---|---|\n"
    )
    (_HERE / "RESULTS.md").write_text(text + "".join(row.line() + "\n" for row in rows))


if __name__ == "__main__":
    main()
