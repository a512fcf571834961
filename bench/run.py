"""Everything that is measured, or parts of it; writes RESULTS.md beside this file."""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
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


def result(
    name: str, asked: argparse.Namespace, work: Callable[[], list[Row]]
) -> dict[str, object]:
    """Run one part, and note what it was run with."""
    began, load = time.monotonic(), os.getloadavg()[0]
    rows = work()
    share = asked.ledger if name in {"ledger_size", "web"} else asked.scale
    return {
        "machine": machine(),
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "minutes": round((time.monotonic() - began) / 60),
        "runs": asked.runs,
        "share": share,
        "load": round(load, 1),
        "rows": [row.line() for row in rows],
    }


def page(results: dict[str, dict[str, object]], names: Iterable[str]) -> str:
    """RESULTS.md: a table for each part that was ever run, with what it was run with."""
    text = ["# Results\n"]
    for name in (n for n in names if n in results):
        found = results[name]
        whole = "whole sets" if found["share"] == 1 else f"{found['share']:g} of each set"
        text.append(
            f"## {name}\n\n{found['day']}, {found['minutes']} minutes, medians of {found['runs']}"
            f" runs, {whole}; load of the machine before it began: {found['load']}.\n\n"
            f"{found['machine']}\n\n"
            "| what | ratio | goal | met | made of |\n|---|---|---|---|---|\n"
            + "\n".join(found["rows"])  # type: ignore[arg-type]
            + "\n"
        )
    return "\n".join(text)


def main() -> None:
    """Run all parts, or those named, and write what was found beside what others found before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each set of images")
    parser.add_argument("--ledger", type=float, default=1.0, help="a part of 5,000,000 instances")
    parser.add_argument("--only", nargs="*", default=[], help="parts, as the files are called")
    asked = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "header_scan": lambda: header_scan.measure(asked.runs),
        "receive": lambda: receive.measure(asked.runs, asked.scale),
        "idle": idle.measure,
        "sending": lambda: sending.measure(asked.runs, asked.scale),
        "end_to_end": lambda: end_to_end.measure(asked.runs, asked.scale),
        "channels": lambda: channels.measure(asked.runs, asked.scale),
        "ledger_size": lambda: ledger_size.measure(asked.runs, asked.ledger),
        "web": lambda: web.measure(asked.ledger),
    }
    if unknown := set(asked.only) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    kept = _HERE / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for name in asked.only or parts:
        results[name] = result(name, asked, parts[name])
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        (_HERE / "RESULTS.md").write_text(page(results, parts))


if __name__ == "__main__":
    main()
