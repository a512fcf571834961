"""An archive file that was lost: the same image, sent again, is the copy that is kept."""

import asyncio
import contextvars
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from rso.engine.holds import reject_hold
from rso.engine.intake import take_records
from rso.engine.reconcile import reconcile_all
from rso.ledger import audit, new_id
from rso.ledger.deliveries import Answer, claim_items, complete_items, deliveries_of, stop_items
from rso.ledger.exams import lock_exams


async def files(clinic: Any) -> list[Path]:
    """Of the instances that the ledger has, in their order."""
    rows = await clinic.ledger.fetch("SELECT id FROM instance ORDER BY sop_instance_uid")
    return [clinic.engine.archive.path(row["id"]) for row in rows]


def damage(path: Path, how: str) -> None:
    """As a fault of the disk does."""
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("how", ["gone", "cut"])
async def test_the_same_image_again_is_kept(clinic: Any, how: str) -> None:
    """Its file was lost: what stopped for want of it goes on, and nothing is sent twice."""
    await clinic.arrive(1, 2)
    whole = [path.read_bytes() for path in await files(clinic)]
    (leased, other) = await claim_items(clinic.ledger, "R-PACS", "w", limit=9, seconds=60)
    await complete_items(clinic.ledger, "w", [
        Answer(item=row["item"], delivery=row["delivery"], instance=row["instance"],
               state="stopped", code="local", reason="no file", attempts=1)
        for row in (leased, other)
    ])  # fmt: skip
    damage((await files(clinic))[0], how)
    assert await reconcile_all(clinic.engine) == 1
    await clinic.arrive(1, 2)
    assert [path.read_bytes() for path in await files(clinic)] == whole
    assert await clinic.way() == ("pending", 0, 2)  # one waits, the other stopped for another fault
    assert await clinic.send() == 1
    assert await clinic.way() == ("stopped", 1, 2)
    rows = await clinic.ledger.fetch("SELECT id FROM audit WHERE action = 'archive file replaced'")
    assert len(rows) == 1
    assert await audit.verify(clinic.ledger) is None
    assert len(list(clinic.engine.archive.root.rglob("*.dcm"))) == 2
    # Once more it is a duplicate as ever.
    await clinic.arrive(1, 2)
    assert len(list(clinic.engine.archive.root.rglob("*.dcm"))) == 2
    assert await clinic.send() == 0


@pytest.mark.parametrize("how", ["gone", "cut"])
async def test_a_large_image_again_is_kept(clinic: Any, how: str, tmp_path: Path) -> None:
    """The spool's own file of the copy becomes the archive's, whichever of two copies it was."""
    await clinic.arrive(1)
    (path,) = await files(clinic)
    whole = path.read_bytes()
    damage(path, how)
    rows = await clinic.ledger.fetch("SELECT * FROM instance")
    records = []
    for name in "ab":
        (tmp_path / name).write_bytes(whole)
        records.append(structs.replace(
            clinic.record(1), record_id=new_id(), part10=None, path=tmp_path / name
        ))  # fmt: skip
    assert await take_records(clinic.engine, records) == 0
    (path,) = await files(clinic)
    assert path.read_bytes() == whole
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    after = await clinic.ledger.fetch("SELECT * FROM instance")
    assert [row["digest"] for row in after] == [row["digest"] for row in rows]


async def test_of_a_cancelled_exam_nothing_goes_on(clinic: Any) -> None:
    """The copy is kept, and stays where it is."""
    await clinic.arrive(1)
    (row,) = await claim_items(clinic.ledger, "R-PACS", "w", limit=9, seconds=60)
    await complete_items(clinic.ledger, "w", [
        Answer(item=row["item"], delivery=row["delivery"], instance=row["instance"],
               state="stopped", code="local", reason="no file", attempts=1)
    ])  # fmt: skip
    await clinic.ledger.execute("UPDATE exam SET status = 'cancelled'")
    damage((await files(clinic))[0], "gone")
    await clinic.arrive(1)
    assert (await files(clinic))[0].exists()
    assert await clinic.way() == ("stopped", 0, 1)


async def test_other_content_that_was_purged_and_comes_again_is_not_sent(clinic: Any) -> None:
    """It is held on its own, as when it came first."""
    await clinic.arrive(1)
    await clinic.arrive(1, text="other")
    await clinic.ledger.execute("UPDATE instance SET purged_at = received_at WHERE conflict")
    await clinic.arrive(1, text="other")
    rows = await clinic.ledger.fetch("SELECT id FROM instance WHERE purged_at IS NULL")
    assert len(rows) == 2
    assert await clinic.way() == ("pending", 0, 1)


async def test_a_lost_file_of_a_study_in_question(clinic: Any) -> None:
    """It is there again before the answer is: with the answer it goes on."""
    await clinic.arrive(1)
    (row,) = await claim_items(clinic.ledger, "R-PACS", "w", limit=9, seconds=60)
    await complete_items(clinic.ledger, "w", [
        Answer(item=row["item"], delivery=row["delivery"], instance=row["instance"],
               state="stopped", code="local", reason="no file", attempts=1)
    ])  # fmt: skip
    marys = await clinic.arrive(2, patient=structs.replace(clinic.jane, name="ROE^MARY"))
    damage((await files(clinic))[0], "gone")
    await clinic.arrive(1)
    assert await clinic.send() == 0
    await reject_hold(clinic.engine, await clinic.hold(marys), reason="r", actor="a")
    assert await clinic.send() == 1


async def test_a_lost_file_waits_for_its_exam_before_its_items(clinic: Any) -> None:
    """A person has the exam and goes on to what is queued of it: no ring."""
    await clinic.arrive(1)
    damage((await files(clinic))[0], "gone")
    (way,) = await deliveries_of(clinic.ledger, clinic.exam.id)
    copy = take_records(clinic.engine, [clinic.record(1)])
    async with clinic.ledger.transaction():
        await lock_exams(clinic.ledger, [clinic.exam.id])
        task = asyncio.create_task(copy, context=contextvars.Context())
        await asyncio.wait({task}, timeout=0.5)
        await stop_items(clinic.ledger, delivery=way["id"], reason="stopped by boss")
    await task
    assert await clinic.way() == ("stopped", 0, 1)
