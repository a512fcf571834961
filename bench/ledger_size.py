"""Whether a large ledger slows intake: the same Study into 5,000,000 instances and into none."""

import argparse
import asyncio
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from peers import send
from rows import Row, alternate
from sets import make_set
from web import EXAMS, PER_EXAM, fill

from rso.ledger import Ledger
from rso.settings import load_settings
from rso.testing.postgres import find_postgres, running_postgres
from rso.testing.site import Site

__all__ = ["measure"]


class Whole:
    """All of RSO but the senders, over a ledger of so many exams."""

    def __init__(self, folder: Path, exams: int, database: str) -> None:
        folder.mkdir()
        self.site = Site(folder, 1, *([f"database.url={database}"] if database else []))
        self.url = load_settings(self.site.config).database.url
        if exams:
            asyncio.run(fill(self.url, exams))
        self.site.start("receive,work")

    def take(self, files: Path, count: int) -> float:
        """Seconds until the ledger has all of a Study."""
        return asyncio.run(self._take(files, count))

    async def _take(self, files: Path, count: int) -> float:
        ledger = await Ledger.open(self.url)
        try:
            before = await self._count(ledger)
            began = time.perf_counter()
            sending = asyncio.create_task(asyncio.to_thread(send, files, self.site.dicom))
            while await self._count(ledger) < before + count:
                await asyncio.sleep(0.01)
            spent = time.perf_counter() - began
            await sending
        finally:
            await ledger.close()
        return spent

    async def _count(self, ledger: Ledger) -> int:
        rows = await ledger.fetch(
            "SELECT count(*) AS n FROM instance i JOIN batch b ON b.id = i.batch"
            " WHERE b.channel = 'dicom_scp'"
        )
        return int(rows[0]["n"])


def measure(runs: int = 5, scale: float = 1.0) -> list[Row]:
    """One row for each engine."""
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    count = max(int(400 * min(scale * 2, 1)), 40)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        urls = {"SQLite": ("", "")}
        if binaries := find_postgres():
            one, other = (stack.enter_context(running_postgres(binaries)) for _ in range(2))
            urls["PostgreSQL"] = one, other
        for engine, (small, large) in urls.items():
            sites = {
                "empty": Whole(folder / f"{engine}-empty", 0, small),
                "full": Whole(folder / f"{engine}-full", int(EXAMS * scale), large),
            }
            number = 0

            def take(name: str, sites: dict[str, Whole] = sites) -> float:
                nonlocal number
                number += 1
                files = make_set(folder / f"{engine}-{number}", "MR", count)  # noqa: B023
                try:
                    return sites[name].take(files, count)
                finally:
                    shutil.rmtree(files)

            found = alternate(runs, {name: lambda n=name: take(n) for name in sites})
            for whole in sites.values():
                whole.site.stop()
            instances = int(EXAMS * scale) * PER_EXAM
            rows.append(
                Row(
                    what=f"receive and take in MR, {instances:,} instances in {engine}, to none",
                    ratio=found["empty"] / found["full"],
                    goal=0.85,
                    detail=f"{count / found['full']:.0f}/s, {count / found['empty']:.0f}/s",
                ).show()
            )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of 5,000,000 instances")
    options = parser.parse_args()
    measure(options.runs, options.scale)
