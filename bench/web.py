"""The web application at scale, as ratios in one run.

The active list and its search with a large ledger against a small one, on both engines; and pages
while images stream in against idle. Both ledgers are served at the same time and asked in turns,
so that what else the machine does falls on both. ``--scale 0.1`` makes a tenth of 100,000 exams
and 5,000,000 instances.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests
from peers import Storescp, send
from rows import Row
from sets import make_set

from rso.core.names import search_key
from rso.core.number import make_number
from rso.ledger import Ledger, new_id, tables
from rso.ledger.exams import now
from rso.settings import load_settings
from rso.testing.postgres import find_postgres, running_postgres
from rso.testing.site import Site

EXAMS, PER_EXAM, SMALL = 100_000, 50, 100
_REST_SECONDS = 4
_BURSTS = 5  # one has too few pages for their 95th percentile
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
FAMILIES = ("SMITH", "MUELLER", "GARCIA", "NGUYEN", "OKAFOR", "KOWALSKI", "ROSSI", "LEE", "DOE")
_COLUMNS = (
    "id, facility, study, sop_instance_uid, sop_class_uid, series_instance_uid,"
    " transfer_syntax_uid, digest, size, batch, received_at"
)
# One statement makes the instances of all exams; the exam's own key stands for its Study's.
_INSTANCES = {
    "sqlite": f"""
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)
        INSERT INTO instance ({_COLUMNS})
        SELECT printf('%08x-0000-7000-8000-000000000000', e.rank * 1000 + n.i), e.facility, e.id,
               e.number || n.i, '1.2', '1.2.3', '1.2.840', e.number, 524288, e.id, e.created_at
        FROM (SELECT *, row_number() OVER () AS rank FROM exam) e CROSS JOIN n""",
    "postgres": f"""
        INSERT INTO instance ({_COLUMNS})
        SELECT (lpad(to_hex(e.rank * 1000 + n.i), 8, '0') || '-0000-7000-8000-000000000000')::uuid,
               e.facility, e.id, e.number || n.i, '1.2', '1.2.3', '1.2.840', e.number, 524288,
               e.id, e.created_at
        FROM (SELECT *, row_number() OVER () AS rank FROM exam) e,
             generate_series(0, ? - 1) AS n(i)""",
}
_INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index'"
    " AND tbl_name = 'instance' AND sql IS NOT NULL",
    "postgres": "SELECT indexname AS name, indexdef AS sql FROM pg_indexes"
    " WHERE tablename = 'instance' AND indexname NOT LIKE '%_pkey'",
}


async def make_instances(ledger: Ledger) -> None:
    """Every exam's instances; the indexes are built when they are there, which is quicker."""
    indexes = await ledger.fetch(_INDEXES[ledger.kind])
    for index in indexes:
        await ledger.execute(f"DROP INDEX {index['name']}")
    await ledger.execute(_INSTANCES[ledger.kind], PER_EXAM)
    for index in indexes:
        await ledger.execute(index["sql"])


async def fill(url: str, exams: int) -> dict[str, str]:
    """Make a ledger of so many active exams; returns what to search for."""
    ledger = await Ledger.open(url)
    await ledger.migrate()
    chance, at = random.Random(7), now()
    numbers: set[str] = set()
    while len(numbers) < exams:
        numbers.add(make_number())
    rows, deliveries = [], []
    for number in numbers:
        made = at - timedelta(minutes=chance.randrange(3000))
        rank = chance.choices((0, 1, 2), (1, 2, 7))[0]
        family = f"{chance.choice(FAMILIES)}{chance.randrange(exams // 20 + 1)}"
        row = {
            "id": new_id(), "number": number,
            # One facility in twenty is as small in the large ledger as in the small one.
            "facility": "SOUTH" if len(rows) % (exams // 20) == 0 else "NORTH",
            "origin": "request",
            "status": chance.choice(("requested", "receiving", "settled", "delivered")),
            "priority": rank, "patient_name": f"{family}^JANE",
            "name_key": search_key(f"{family}^JANE"),
            "patient_id": f"P{chance.randrange(10**7):07d}", "birth_date": "19700131", "sex": "F",
            "modality": chance.choice(("CT", "MR", "CR", "US")), "instances": PER_EXAM,
            "created_at": made, "updated_at": made, "last_instance_at": made,
            "due_at": made + timedelta(minutes=(60, 240, 1440)[rank]),
        }  # fmt: skip
        rows.append(row)
        deliveries.append(
            {"id": new_id(), "exam": row["id"], "destination": "READER-PACS", "priority": rank,
             "state": "sending", "acknowledged": 10, "total": PER_EXAM, "created_at": made,
             "updated_at": made}
        )  # fmt: skip
    if ledger.kind == "sqlite":
        await ledger._driver._in_writer(
            lambda: ledger._driver._w.execute("PRAGMA synchronous=OFF").fetchall()
        )
    async with ledger.transaction():
        await ledger.insert_rows(tables.Exam, rows)
        await ledger.insert_rows(tables.Delivery, deliveries)
        await make_instances(ledger)
    if ledger.kind == "postgres":  # its autovacuum would; SQLite has none, and is measured without
        await ledger.execute("ANALYZE")
    found = await ledger.fetch("SELECT count(*) AS n FROM instance")
    assert found[0]["n"] == exams * PER_EXAM
    await ledger.close()
    some = rows[exams // 2]
    return {"number": some["number"], "name": some["patient_name"].split("^")[0],
            "patient_id": some["patient_id"]}  # fmt: skip


class Person:
    """A signed-in browser."""

    def __init__(self, site: Site, email: str, password: str = "a good password") -> None:
        self.base = f"http://127.0.0.1:{site.web}"
        self.session = requests.Session()
        page = self.session.post(
            f"{self.base}/sign-in", data={"email": email, "password": password}, timeout=60
        )
        self.csrf = re.findall(r'name="_csrf" value="([^"]+)"', page.text)[0]

    def seconds(self, **form: str) -> float:
        """How long the list's rows take; ``XA`` is what nobody in the set has."""
        began = time.perf_counter()
        answer = self.session.post(
            f"{self.base}/exams/rows", data={"_csrf": self.csrf, **form}, timeout=60
        )
        spent = time.perf_counter() - began
        assert answer.status_code == 200
        assert ('data-number="' in answer.text) == (form.get("modality") != "XA"), form
        return spent

    def page(self, path: str = "/") -> float:
        """How long a whole page takes."""
        began = time.perf_counter()
        assert self.session.get(self.base + path, timeout=60).status_code == 200
        return time.perf_counter() - began


@contextlib.contextmanager
def serving(folder: Path, exams: int, database: str) -> Iterator[tuple[Site, dict[str, str]]]:
    """A web process over a ledger of so many exams."""
    folder.mkdir()
    settings = [f"database.url={database}"] if database else []
    site = Site(folder, 1, *settings)
    began = time.perf_counter()
    words = asyncio.run(fill(load_settings(site.config).database.url, exams))
    print(f"  {exams:,} exams, {exams * PER_EXAM:,} instances made in"
          f" {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    site.start("web")
    try:
        yield site, words
    finally:
        site.stop()


def compare(name: str, urls: tuple[str, str], scale: float, rounds: int) -> list[dict[str, Any]]:
    """The same questions to both ledgers, in turns; medians and their ratio."""
    results = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sizes = (SMALL, max(int(EXAMS * scale), SMALL))
        sites = [
            stack.enter_context(serving(Path(folder) / str(i), size, url))
            for i, (size, url) in enumerate(zip(sizes, urls, strict=True))
        ]
        people = {
            "coordinator": [Person(site, "first@example.org") for site, _ in sites],
            "small facility": [Person(site, "south@example.org", "another good password")
                               for site, _ in sites],
        }  # fmt: skip
        questions: list[tuple[str, str, Callable[[dict[str, str]], dict[str, str]]]] = [
            ("list", "coordinator", lambda _: {}),
            ("list of a small facility", "small facility", lambda _: {}),
            ("newest first", "coordinator", lambda _: {"sort": "newest"}),
            ("nobody's", "coordinator", lambda _: {"owner": "nobody"}),
            ("search by number", "coordinator", lambda w: {"search": w["number"]}),
            ("search by the beginning of it", "coordinator", lambda w: {"search": w["number"][:4]}),
            ("search by name", "coordinator", lambda w: {"search": w["name"]}),
            ("search by Patient ID", "coordinator", lambda w: {"search": w["patient_id"]}),
            ("a filter that nobody fits", "coordinator", lambda _: {"modality": "XA"}),
            ("a search within it", "coordinator", lambda _: {"search": "P", "modality": "XA"}),
            ("newest, that nobody fits", "small facility",
             lambda _: {"sort": "newest", "modality": "XA"}),
        ]  # fmt: skip
        for title, who, form in questions:
            times: list[list[float]] = [[], []]
            for turn in range(rounds + 5):
                for i, (_, words) in enumerate(sites):
                    spent = people[who][i].seconds(**form(words))
                    if turn >= 5:
                        times[i].append(spent)
            small, large = (statistics.median(t) for t in times)
            results.append({"engine": name, "what": title, "of": len(questions),
                            "small_ms": small * 1000, "large_ms": large * 1000,
                            "ratio": large / small})  # fmt: skip
            print(f"  {name:8} {title:32} {small * 1000:6.1f} ms {large * 1000:6.1f} ms"
                  f"  ratio {large / small:.2f}  (goal 2)", flush=True)  # fmt: skip
    return results


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[18]


def while_images_stream(count: int) -> dict[str, Any]:
    """p95 of the list's page, idle and while bursts of CT slices come in by C-STORE and go out.

    The PACS is a process of its own: one in this process would keep the measuring browser waiting
    for the interpreter, and be measured instead of the page.
    """
    with tempfile.TemporaryDirectory(dir=_MEMORY) as kept, tempfile.TemporaryDirectory() as folder:
        pacs = Storescp(Path(kept) / "pacs", "--fork")
        bursts = [make_set(Path(folder) / f"ct-{i}", "CT", count) for i in range(_BURSTS)]
        os.sync()  # the bench's own files are not written while it measures
        site = Site(Path(folder), pacs.port)
        site.start()
        try:
            person = Person(site, "first@example.org")
            for _ in range(20):
                person.page()
            idle = [_paced(person) for _ in range(150)]
            busy = []
            for files in bursts:
                sent = threading.Thread(target=send, args=(files, site.dicom))
                sent.start()
                while sent.is_alive():
                    busy.append(_paced(person))
                time.sleep(_REST_SECONDS)
        finally:
            site.stop()
            pacs.stop()
    ratio = p95(busy) / p95(idle)
    print(
        f"  page p95 idle {p95(idle) * 1000:.1f} ms, while {count} CT slices stream in"
        f" {p95(busy) * 1000:.1f} ms ({len(busy)} pages)  ratio {ratio:.2f}  (goal 3)"
    )
    return {"idle_ms": p95(idle) * 1000, "busy_ms": p95(busy) * 1000, "ratio": ratio}


def _paced(person: Person) -> float:
    """A page, and the moment that somebody looks at it."""
    spent = person.page()
    time.sleep(0.02)
    return spent


def measure(scale: float = 1.0, rounds: int = 40, slices: int = 600, only: str = "") -> list[Row]:
    """The slowest question on each engine, and pages while images come in."""
    rows = []
    binaries = find_postgres()
    with contextlib.ExitStack() as stack:
        urls = {"SQLite": ("", "")}
        if binaries and only in {"", "postgres"}:
            one, other = (stack.enter_context(running_postgres(binaries)) for _ in range(2))
            urls["Postgres"] = one, other
        for engine, pair in urls.items():
            if only not in {"", engine.lower()}:
                continue
            worst = max(compare(engine, pair, scale, rounds), key=lambda r: r["ratio"])
            exams = int(EXAMS * scale)
            rows.append(
                Row(what=f"active list and search, {exams:,} exams against {SMALL}, {engine}",
                    ratio=worst["ratio"], goal=2, at_most=True,
                    detail=f"the slowest of {worst['of']} questions, {worst['what']}:"
                    f" {worst['large_ms']:.0f} ms, {worst['small_ms']:.0f} ms").show()
            )  # fmt: skip
    if only in {"", "stream"}:
        found = while_images_stream(slices)
        rows.append(
            Row(what=f"page p95 while {slices} CT stream in, against idle", ratio=found["ratio"],
                goal=3, at_most=True,
                detail=f"{found['busy_ms']:.0f} ms, {found['idle_ms']:.0f} ms").show()
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--only", choices=("sqlite", "postgres", "stream"), default="")
    asked = parser.parse_args()
    measure(asked.scale, asked.rounds, asked.slices, asked.only)
