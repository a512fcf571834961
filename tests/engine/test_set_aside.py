"""What the database refuses is set aside, and nothing waits behind it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rso.core.transport import Kind, Provenance
from rso.engine.archive import LocalArchive
from rso.engine.check import run_checks
from rso.engine.context import Engine
from rso.engine.intake_loop import IntakeLoop
from rso.engine.reindex import reindex
from rso.engine.set_aside import note_names, take_in
from rso.engine.spool import LogSpool
from rso.engine.spool_reader import Alert
from rso.ledger import Ledger, LedgerValueError, tables
from rso.ledger.exams import now
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings
from rso.testing.study import tiny_dataset

EXPLICIT = "1.2.840.10008.1.2.1"
UID = "1.2.826.0.1.3680043.8.498.7"
LONG = UID + ".9" * 15  # of its kind, no longer than a UID may be
PROVENANCE = Provenance(
    channel="dicom_scp", facility="NORTH", source="CT", kind=Kind.INTEGRATION,
    peer_address="127.0.0.1", opened_at=now(),
)  # fmt: skip


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """An engine on either database with an empty archive."""
    (tmp_path / "rso.toml").write_text("")
    loaded = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, {"facility": [{"code": "NORTH"}]})
    archive = LocalArchive(loaded.archive_dir)
    archive.prepare()
    return Engine(ledger=ledger, plugins=load_plugins(loaded), settings=loaded, archive=archive)


class Refusing:
    """A database that takes no long UID for an instance; SQLite has to be played."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.patch = ledger, monkeypatch

    async def begin(self) -> None:
        """From now on."""
        if self.ledger.kind == "postgres":
            await self._narrow(40)
            return
        insert = self.ledger.insert_rows

        async def refuses(table: Any, rows: Any, **more: Any) -> int:
            if table is tables.Instance and any(len(r["sop_instance_uid"]) > 40 for r in rows):
                raise LedgerValueError("as PostgreSQL says")
            return await insert(table, rows, **more)

        self.patch.setattr(self.ledger, "insert_rows", refuses)

    async def end(self) -> None:
        """An upgrade mended it."""
        if self.ledger.kind == "postgres":
            await self._narrow(64)
        self.patch.undo()

    async def _narrow(self, width: int) -> None:
        await self.ledger.execute(
            f"ALTER TABLE instance ALTER COLUMN sop_instance_uid TYPE varchar({width})"
        )


@pytest.fixture
def refusing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Refusing:
    """The database of the engine."""
    return Refusing(ledger, monkeypatch)


def receive(folder: Path, uids: list[str], *, large: int = 1 << 20) -> dict[str, str]:
    """Acknowledge these instances; their records' ids by UID."""
    spool = LogSpool(folder, large=large)
    batch = spool.open_batch(PROVENANCE)
    kept = {}
    for uid in uids:
        sink = batch.open(transfer_syntax_uid=EXPLICIT)
        sink.write(tiny_dataset(uid))
        kept[uid] = sink.commit().record_id
    batch.close()
    spool.close()
    return kept


async def turn(loop: IntakeLoop) -> None:
    """Take in everything there is, and release it."""
    while await loop.step():
        pass
    await loop.checkpoint()


async def uids(ledger: Ledger) -> set[str]:
    """Of the instances that the ledger knows."""
    return {r["sop_instance_uid"] for r in await ledger.fetch("SELECT * FROM instance")}


async def checked(engine: Engine) -> list[str]:
    """What ``rso check`` says of it."""
    return [c.detail for c in await run_checks(engine) if c.name == "set aside" and not c.ok]


@pytest.mark.parametrize("large", [1 << 20, 100], ids=["in the log", "in a file"])
async def test_what_the_database_refuses_holds_nothing_up(
    engine: Engine, refusing: Refusing, tmp_path: Path, large: int
) -> None:
    """Everything else of its group and of other logs is taken in; it is in the archive whole, with
    where it came from, people are told, and `rso reindex` brings it back when that is mended.
    """
    await refusing.begin()
    good = [f"{UID}.{i}" for i in range(9)]
    kept = receive(tmp_path / "data" / "spool" / "a", [*good[:3], LONG, *good[3:6]], large=large)
    receive(tmp_path / "data" / "spool" / "b", good[6:])
    loop = IntakeLoop(engine, tmp_path / "data" / "spool")
    await turn(loop)
    assert await uids(engine.ledger) == set(good)
    assert not await loop.step()
    assert all(loop._readers[f].released == loop._taken[f] for f in loop._taken)
    name = kept[LONG]
    assert note_names(tmp_path / "data") == [name]
    assert engine.archive.path(name).read_bytes().endswith(tiny_dataset(LONG))
    note = msgspec.json.decode((tmp_path / "data" / "set-aside" / f"{name}.json").read_bytes())
    assert note["provenance"]["source"] == "CT"
    (told,) = await checked(engine)
    assert told.startswith("1 that the database refuses")
    entries = await engine.ledger.fetch("SELECT * FROM audit WHERE action = 'set aside'")
    assert [(e["facility"], name in e["facts"]) for e in entries] == [("NORTH", True)]
    found = await reindex(engine)
    assert (found.brought_back, found.set_aside, len(note_names(tmp_path / "data"))) == (0, 1, 1)
    await refusing.end()
    found = await reindex(engine)
    assert (found.brought_back, found.set_aside) == (1, 0)
    assert await uids(engine.ledger) == {*good, LONG}
    assert not note_names(tmp_path / "data")
    assert not await checked(engine)


async def test_read_again_after_a_crash_it_is_told_once(
    engine: Engine, refusing: Refusing, tmp_path: Path
) -> None:
    """The log was not released: the same note, the same file, one entry in the audit."""
    await refusing.begin()
    receive(tmp_path / "data" / "spool" / "a", [LONG], large=100)
    for _ in range(2):
        loop = IntakeLoop(engine, tmp_path / "data" / "spool")
        while await loop.step():
            pass
    assert len(note_names(tmp_path / "data")) == 1
    assert len(list(engine.archive.walk())) == 1
    rows = await engine.ledger.fetch("SELECT id FROM audit WHERE action = 'set aside'")
    assert len(rows) == 1


async def test_nothing_is_released_before_its_note_is_durable(
    engine: Engine, refusing: Refusing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that takes no note makes intake wait; when it does, intake goes on."""
    await refusing.begin()
    receive(tmp_path / "data" / "spool" / "a", [LONG])

    def fails(_: Path) -> None:
        raise OSError(5, "Input/output error")

    loop = IntakeLoop(engine, tmp_path / "data" / "spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rso.engine.set_aside.sync_folder", fails)
        with pytest.raises(OSError, match="Input/output"):
            await turn(loop)
        await loop.checkpoint()
        assert loop._readers[tmp_path / "data" / "spool" / "a"].released == (0, 0)
    await turn(loop)
    assert len(note_names(tmp_path / "data")) == 1
    assert loop._readers[tmp_path / "data" / "spool" / "a"].released > (0, 0)


async def test_an_alert_that_is_refused_is_noted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the note whole, and once however often it comes."""
    alert = Alert(kind="refused", facts={"name": "x" * 9})

    async def refuses(*_: Any, **__: Any) -> None:
        raise LedgerValueError("as PostgreSQL says")

    monkeypatch.setattr("rso.ledger.audit.append", refuses)
    for _ in range(2):
        await take_in(engine, [alert])
    (name,) = note_names(tmp_path / "data")
    said = msgspec.json.decode((tmp_path / "data" / "set-aside" / f"{name}.json").read_bytes())
    assert said["alert"] == {"kind": "refused", "facts": {"name": "x" * 9}}
