"""Documents of exams and of drafts: what fails half-way, who may have them, what is swept."""

import asyncio
import errno
import os
import sqlite3
import time
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from rso.core.errors import NoSpaceError, RefusedError
from rso.engine import documents
from rso.engine.context import Engine
from rso.engine.disk import Volume
from rso.engine.documents import (
    MOST_DOCUMENTS,
    add_document,
    document_path,
    documents_of,
    remove_document,
    sweep_documents,
    write_document,
)
from rso.engine.draft_documents import (
    MOST_DRAFTS,
    Form,
    draft_documents,
    drop_documents,
    drop_form,
    keep_document,
    send_request,
    sweep_drafts,
)
from rso.engine.requests import read_request
from rso.ledger import Ledger, new_id
from rso.ledger.drafts import find_draft, save_draft
from rso.ledger.exams import now

ME = "tech@example.org"
PDF = b"%PDF-1.7 "
ASKED = read_request({"family": "DOE", "indication": "pain", "patient_id": "P1"})
BROKEN = (sqlite3.IntegrityError, asyncpg.ForeignKeyViolationError)


def files(engine: Engine) -> set[str]:
    """The names of all files of documents."""
    folder = engine.settings.data_dir / "documents"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def age(engine: Engine) -> None:
    """Let a day and more pass for every file that is there."""
    for path in (engine.settings.data_dir / "documents").rglob("*"):
        os.utime(path, (time.time() - 100_000,) * 2)


def names(*keys: str) -> set[str]:
    """Of the files of these documents."""
    return {key.replace("-", "") for key in keys}


async def form(ledger: Ledger, account: str = ME) -> Form:
    """A form with something typed."""
    made = Form(account=account, key=new_id())
    await save_draft(ledger, account, {"facility": "NORTH"}, made.key)
    return made


async def break_documents(ledger: Ledger, when: str) -> None:
    """From now on a new row of ``exam_document`` fails, at once or at the commit."""
    late = "DEFERRABLE INITIALLY DEFERRED" if when == "commit" else ""
    await ledger.execute("CREATE TABLE mended (id INTEGER PRIMARY KEY)")
    await ledger.execute(f"CREATE TABLE broken (mended INTEGER REFERENCES mended (id) {late})")
    if ledger.kind == "sqlite":
        await ledger.execute(
            "CREATE TRIGGER breaks AFTER INSERT ON exam_document BEGIN"
            " INSERT INTO broken VALUES (1); END"
        )
        driver = ledger._driver
        await driver._in_writer(lambda: driver._w.execute("PRAGMA foreign_keys=ON"))
    else:
        await ledger.execute(
            "CREATE FUNCTION breaks() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO broken VALUES (1); RETURN NULL; END $$"
        )
        await ledger.execute(
            "CREATE TRIGGER breaks AFTER INSERT ON exam_document"
            " FOR EACH ROW EXECUTE FUNCTION breaks()"
        )


async def mend_documents(ledger: Ledger) -> None:
    """No more."""
    await ledger.execute("INSERT INTO mended VALUES (1)")


@pytest.mark.parametrize("when", ["statement", "commit"])
async def test_what_fails_half_way_is_swept_and_nothing_else(world: Any, when: str) -> None:
    """The file of a row that was never committed goes; documents of exams and drafts stay."""
    engine, exam = world.engine, await world.exam()
    live = await add_document(engine, exam, "live.pdf", PDF, actor=ME)
    drafted, _ = await keep_document(engine, await form(world.ledger), "draft.pdf", PDF)
    gone = await add_document(engine, exam, "gone.pdf", PDF, actor=ME)
    before = files(engine)
    await break_documents(world.ledger, when)
    with pytest.raises(BROKEN):
        await add_document(engine, exam, "broken.pdf", PDF, actor=ME)
    (orphan,) = files(engine) - before
    assert {str(row["id"]) for row in await documents_of(world.ledger, exam)} == {live, gone}
    assert await sweep_documents(engine) == 0, "it may get its row in a moment"
    age(engine)
    fresh = new_id()
    await write_document(engine, fresh, PDF)
    await world.ledger.execute(
        "UPDATE exam_document SET removed_at = ?, name = '' WHERE id = ?", now(), gone
    )
    assert await sweep_documents(engine) == 2
    assert files(engine) == names(live, drafted, fresh)
    assert orphan not in files(engine)
    await mend_documents(world.ledger)
    again = await add_document(engine, exam, "again.pdf", PDF, actor=ME)
    assert files(engine) == names(live, drafted, fresh, again)


@pytest.mark.parametrize("when", ["statement", "commit"])
async def test_an_exam_and_its_documents_are_made_together(world: Any, when: str) -> None:
    """When the documents cannot be the exam's there is no exam, and the draft has them still."""
    engine, ledger = world.engine, world.ledger
    mine = await form(ledger)
    kept = [(await keep_document(engine, mine, f"{n}.pdf", PDF + bytes([n])))[0] for n in range(2)]
    stays, _ = await keep_document(engine, mine, "not listed.pdf", PDF)
    await break_documents(ledger, when)
    with pytest.raises(BROKEN):
        await send_request(engine, mine, kept, digest="d", facility="NORTH", asked=ASKED)
    assert await ledger.fetch("SELECT id FROM exam") == []
    assert [str(row["id"]) for row in await draft_documents(ledger, mine)] == [*kept, stays]
    assert await find_draft(ledger, ME, None) is not None
    await mend_documents(ledger)
    exam, new = await send_request(engine, mine, kept, digest="d", facility="NORTH", asked=ASKED)
    assert new
    rows = await documents_of(ledger, exam)
    assert [(str(row["id"]), row["name"]) for row in rows] == [
        (kept[0], "0.pdf"),
        (kept[1], "1.pdf"),
    ]
    assert document_path(engine, kept[1]).read_bytes() == PDF + b"\x01"
    assert [str(row["id"]) for row in await draft_documents(ledger, mine)] == [stays]
    assert await find_draft(ledger, ME, None) is None
    said = await ledger.fetch("SELECT facts FROM audit WHERE action = 'document added'")
    assert len(said) == 2
    assert ".pdf" not in str(said)
    assert await remove_document(engine, exam, kept[0], actor=ME)
    assert files(engine) == names(kept[1], stays)


async def test_sent_twice_at_once(world: Any) -> None:
    """The same form makes one exam; another content makes another, without the documents."""
    engine, ledger = world.engine, world.ledger
    mine = await form(ledger)
    key, _ = await keep_document(engine, mine, "a.pdf", PDF)
    both = await asyncio.gather(*(
        send_request(engine, mine, [key], digest="d", facility="NORTH", asked=ASKED)
        for _ in range(2)
    ))  # fmt: skip
    assert both[0][0].id == both[1][0].id
    assert sorted(new for _, new in both) == [False, True]
    assert len(await ledger.fetch("SELECT id FROM exam")) == 1
    with pytest.raises(RefusedError, match="not kept any more"):
        await send_request(engine, mine, [key], digest="other", facility="NORTH", asked=ASKED)
    assert len(await ledger.fetch("SELECT id FROM exam")) == 1


async def test_another_persons_form_is_not_found(world: Any) -> None:
    """Whoever knows the keys of a form and of its documents gets nothing by them."""
    engine, ledger = world.engine, world.ledger
    mine = await form(ledger)
    key, _ = await keep_document(engine, mine, "a.pdf", PDF)
    theirs = Form(account="south@example.org", key=mine.key)
    assert await draft_documents(ledger, theirs) == []
    assert await drop_documents(engine, theirs, [key]) == 0
    await drop_form(engine, theirs)
    with pytest.raises(RefusedError):
        await send_request(engine, theirs, [key], digest="d", facility="SOUTH", asked=ASKED)
    other = Form(account=ME, key=new_id())
    with pytest.raises(RefusedError):
        await send_request(engine, other, [key], digest="d", facility="NORTH", asked=ASKED)
    assert await ledger.fetch("SELECT id FROM exam") == []
    assert [str(row["id"]) for row in await draft_documents(ledger, mine)] == [key]
    assert files(engine) == names(key)


async def test_drafts_are_bounded(world: Any) -> None:
    """So many documents a form, the same one once, so many forms a person; no file is left over."""
    engine, ledger = world.engine, world.ledger
    mine = await form(ledger)
    many = await asyncio.gather(
        *(keep_document(engine, mine, f"{n}.pdf", PDF) for n in range(MOST_DOCUMENTS + 4)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, RefusedError) for one in many) == 4
    rows = await draft_documents(ledger, mine)
    assert len(files(engine)) == len(rows) == MOST_DOCUMENTS
    same, _ = await keep_document(engine, mine, rows[3]["name"], PDF)
    assert same == str(rows[3]["id"])
    assert len(files(engine)) == MOST_DOCUMENTS
    later = [await form(ledger) for _ in range(MOST_DRAFTS)]
    kept = [(await keep_document(engine, one, "a.pdf", PDF))[0] for one in later]
    assert await draft_documents(ledger, mine) == []
    assert files(engine) == names(*kept)
    for data in (b"MZ", PDF + bytes(documents.MOST_BYTES)):
        with pytest.raises(RefusedError):
            await keep_document(engine, mine, "a.pdf", data)
    assert files(engine) == names(*kept)


async def test_drafts_end_with_their_documents(world: Any) -> None:
    """Thrown away or too old: rows and files go; typing keeps the documents too."""
    engine, ledger = world.engine, world.ledger
    old, live, thrown = await form(ledger, "old@x"), await form(ledger), await form(ledger, "t@x")
    keys = [(await keep_document(engine, one, "a.pdf", PDF))[0] for one in (old, live, thrown)]
    await drop_form(engine, thrown)
    assert files(engine) == names(*keys[:2])
    before = now() - timedelta(days=8)
    await ledger.execute("UPDATE request_draft SET saved_at = ?", before)
    await ledger.execute("UPDATE draft_document SET kept_until = ?", before)
    assert await draft_documents(ledger, old) == []
    await save_draft(ledger, ME, {"facility": "NORTH"}, live.key)
    assert await sweep_drafts(engine) == 1
    assert files(engine) == names(keys[1])
    assert await ledger.fetch("SELECT account FROM request_draft") == [{"account": ME}]
    assert [str(row["id"]) for row in await draft_documents(ledger, live)] == [keys[1]]


async def test_a_full_disk(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as such, with nothing left of the file, before and after it is found full."""
    engine = world.engine
    mine = await form(world.ledger)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(documents.os, "fsync", full)
        with pytest.raises(NoSpaceError):
            await keep_document(engine, mine, "a.pdf", PDF)
    low = Volume(holds="data and archive", free=100, size=10_000, low_water=95)
    with monkeypatch.context() as patched:
        patched.setattr(documents, "volumes", lambda _: [low])
        with pytest.raises(NoSpaceError):
            await add_document(engine, await world.exam(), "a.pdf", PDF, actor=ME)
    assert files(engine) == set()
    assert await draft_documents(world.ledger, mine) == []
