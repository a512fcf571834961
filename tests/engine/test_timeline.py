"""What an exam went through, on both engines: attempts kept, counted and told."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rso.core.errors import ExamError, RoutingError
from rso.core.exam import Exam, Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exam_deliveries import act_on_delivery
from rso.engine.exams import cancel_exam, create_exam
from rso.engine.timeline import timeline_of
from rso.ledger import Ledger, audit, new_id, tables
from rso.ledger.arrivals import batches_beside
from rso.ledger.attempts import attempts_of_instances, keep_attempts
from rso.ledger.deliveries import (
    Answer,
    add_items,
    claim_items,
    complete_items,
    deliveries_of,
    ensure_delivery,
)
from rso.ledger.exams import exam_by_id, now
from rso.ledger.images import instances_page, series_of, ways_of, with_middles
from rso.ledger.site import load_site
from rso.ledger.studies import upsert_studies
from rso.plugins import load_plugins
from rso.settings import load_settings


@pytest.fixture
async def clinic(ledger: Ledger, tmp_path: Path) -> Engine:
    """One facility, on either engine."""
    (tmp_path / "rso.toml").write_text("")
    settings = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, {"facility": [{"code": "NORTH"}]})
    return Engine(
        ledger=ledger, plugins=load_plugins(settings), settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )  # fmt: skip


@pytest.fixture
async def exam(clinic: Engine) -> Exam:
    """An exam of NORTH with six instances in two Series, on their way to PACS."""
    ledger = clinic.ledger
    made = await create_exam(clinic, facility="NORTH", patient=Patient(name="DOE"), actor="me")
    study = IncomingStudy(study_instance_uid="1.2", patient=Patient(name="DOE"),
                          kind=Kind.TECHNICIAN)  # fmt: skip
    rows = await upsert_studies(ledger, "NORTH", [(study, "Head")])
    key = next(iter(rows.values()))["id"]
    await ledger.execute("UPDATE study SET exam = ?, state = 'matched' WHERE id = ?", made.id, key)
    batch = new_id()
    await ledger.insert_rows(tables.Batch, [{
        "id": batch, "channel": "ftp", "facility": "NORTH", "source": "north",
        "kind": "technician", "peer_address": "127.0.0.1", "opened_at": now(),
    }])  # fmt: skip
    ids = [new_id() for _ in range(6)]
    await ledger.insert_rows(tables.Instance, [
        {"id": i, "facility": "NORTH", "study": key, "sop_instance_uid": f"1.{n}",
         "sop_class_uid": "1", "series_instance_uid": "1.9" if n else "1.8",
         "transfer_syntax_uid": "1.2.840.10008.1.2", "digest": str(n), "size": 1000,
         "series_number": "2" if n else "11", "instance_number": str(8 + n), "batch": batch,
         "received_at": now(), "conflict": False}
        for n, i in enumerate(ids)
    ])  # fmt: skip
    delivery = await ensure_delivery(ledger, made.id, "PACS", 2)
    await add_items(ledger, delivery, "PACS", ids, 2)
    return made


async def answer(ledger: Ledger, *endings: tuple[str, str]) -> None:
    """Claim what is due and answer in order."""
    rows = await claim_items(ledger, "PACS", "w", limit=99, seconds=60)
    rows.sort(key=lambda row: row["instance"])
    await complete_items(ledger, "w", [
        Answer(item=r["item"], delivery=r["delivery"], instance=r["instance"], state=state,
               code=code, reason="no room", attempts=1, next_at=now())
        for r, (state, code) in zip(rows, endings, strict=False)
    ])  # fmt: skip


async def test_every_attempt_is_kept_and_counted(clinic: Engine, exam: Exam) -> None:
    """Answers that ended alike are one row with a count; a resend keeps what was acknowledged."""
    ledger = clinic.ledger
    await answer(ledger, ("pending", "A700"), *[("acknowledged", "0000")] * 5)
    await answer(ledger, ("pending", "A700"))
    await answer(ledger, ("stopped", "C001"))
    first = (await instances_page(ledger, exam.id, undelivered=True))[0]
    assert [row["sop_instance_uid"] for row in first] == ["1.0"]
    key = str(first[0]["id"])
    found = await attempts_of_instances(ledger, exam.id, [key])
    assert [(a["state"], a["code"], a["times"]) for a in found] == [
        ("pending", "A700", 2), ("stopped", "C001", 1),
    ]  # fmt: skip
    delivery = (await deliveries_of(ledger, exam.id))[0]["id"]
    for _ in range(2):
        await keep_attempts(ledger, [(delivery, delivery, "pending", "fault", "refused", now())])
    await act_on_delivery(clinic, exam, "PACS", "resend", actor="me")
    told = [(m.kind, m.what, m.more) for m in (await timeline_of(ledger, exam)).moments]
    assert ("fault", "1 image not taken", "A700 no room (2 attempts, will be tried again)") in told
    assert ("fault", "could not be reached", "refused (2 times)") in told
    assert any(what == "5 images had been acknowledged" for _, what, _ in told)
    assert any(what == "6 images received" for _, what, _ in told)
    assert ("person", "delivery sent again", "destination: PACS") in told
    assert {w["state"] for w in await ways_of(ledger, exam.id, [key])} == {"pending"}


async def test_what_was_taken_out_stays_out(clinic: Engine, exam: Exam) -> None:
    """Neither retry nor resend sends a recalled Study, or one whose identity is in question."""
    ledger = clinic.ledger
    await answer(ledger, *[("acknowledged", "0000")] * 5, ("stopped", "C001"))
    await ledger.execute("UPDATE study SET state = 'stopped'")
    for action in ("retry", "resend"):
        await act_on_delivery(clinic, exam, "PACS", action, actor="me")
        assert not await claim_items(ledger, "PACS", "w", limit=99, seconds=60)
    await ledger.execute("UPDATE delivery_item SET state = 'cancelled'")
    await ledger.execute("UPDATE study SET state = 'matched', exam = ?", new_id())
    await act_on_delivery(clinic, exam, "PACS", "resend", actor="me")
    assert not await claim_items(ledger, "PACS", "w", limit=99, seconds=60)
    with pytest.raises(ExamError):
        await act_on_delivery(clinic, exam, "OTHER", "retry", actor="me")
    await cancel_exam(clinic, exam, actor="me", reason="x")
    gone = await exam_by_id(ledger, exam.id)
    assert gone is not None
    with pytest.raises(RoutingError):
        await act_on_delivery(clinic, gone, "PACS", "resend", actor="me")


async def test_series_in_their_order(clinic: Engine, exam: Exam) -> None:
    """By number, not by text; the middle instance is the one shown; pages are bounded."""
    series = await series_of(clinic.ledger, exam=exam.id)
    assert [(s["series_number"], s["instances"]) for s in series] == [("2", 5), ("11", 1)]
    rows, total = await instances_page(clinic.ledger, exam.id, limit=2, offset=2)
    assert total == 6
    assert [row["instance_number"] for row in rows] == ["11", "12"]
    middles = [row["middle"] for row in await with_middles(clinic.ledger, series)]
    (lone,) = (await instances_page(clinic.ledger, exam.id, series="1.8"))[0]
    assert middles == [str(rows[0]["id"]), str(lone["id"])]
    assert await with_middles(clinic.ledger, []) == []
    only: list[dict[str, Any]] = (await instances_page(clinic.ledger, exam.id, series="1.8"))[0]
    assert [row["sop_instance_uid"] for row in only] == ["1.0"]


async def test_what_a_timeline_leaves_out_is_counted(clinic: Engine, exam: Exam) -> None:
    """What people did beyond the newest, and what machines did before it; all of it, or none."""
    for number in range(5):
        await audit.append(
            clinic.ledger, actor="me", action=f"act {number}", facility="NORTH", exam=exam.number
        )
    whole = await timeline_of(clinic.ledger, exam)
    assert (len(whole.moments), whole.older) == (7, 0)  # with its beginning, and its images
    cut = await timeline_of(clinic.ledger, exam, most=3)
    assert [moment.what for moment in cut.moments] == ["act 4", "act 3", "act 2"]
    assert cut.older == 4


async def came(ledger: Ledger, exam: Exam, images: int, at: datetime, account: str = "") -> None:
    """Images of an exam by the browser, a second apart, each in a batch of its own."""
    (study,) = await ledger.fetch("SELECT id FROM study WHERE exam = ?", exam.id)
    batches = [new_id() for _ in range(images)]
    await ledger.insert_rows(tables.Batch, [
        {"id": batch, "channel": "http_upload", "facility": "NORTH", "source": "web",
         "kind": "technician", "peer_address": "127.0.0.1", "opened_at": at, "account": account}
        for batch in batches
    ])  # fmt: skip
    await ledger.insert_rows(tables.Instance, [
        {"id": new_id(), "facility": "NORTH", "study": study["id"], "sop_instance_uid": f"2.{batch}",
         "sop_class_uid": "1", "series_instance_uid": f"1.{n % 2}",
         "transfer_syntax_uid": "1.2.840.10008.1.2", "digest": batch, "size": 1000,
         "series_number": "1", "instance_number": str(n), "batch": batch,
         "received_at": at + timedelta(seconds=n), "conflict": False}
        for n, batch in enumerate(batches)
    ])  # fmt: skip


async def test_batches_that_follow_each_other_are_one_line(clinic: Engine, exam: Exam) -> None:
    """A CT by the browser is one, and what came an hour later, or by somebody else, is not of it."""
    ledger, begun = clinic.ledger, now() - timedelta(days=1)
    await came(ledger, exam, 150, begun)
    await came(ledger, exam, 3, begun + timedelta(seconds=20), account="ann@example.org")
    await came(ledger, exam, 2, begun + timedelta(hours=1))
    line = await timeline_of(ledger, exam)
    (late, ct, ann) = [m for m in line.moments if m.kind == "images" and m.who == "web"]
    assert [m.what for m in (late, ct, ann)] == [f"{n} images received" for n in (2, 150, 3)]
    assert ct.more == "2 Series, 0.1 MB, by http_upload from 127.0.0.1, in 150 batches"
    assert ann.more.endswith("by ann@example.org, in 3 batches")
    assert ct.until is not None
    assert (ct.until - ct.at).total_seconds() == 149
    assert line.older == 0
    beside = await batches_beside(ledger, exam.id, ct.batch)
    assert (await instances_page(ledger, exam.id, batches=beside))[1] == 150
    assert await batches_beside(ledger, exam.id, beside[7]) == beside
    assert await batches_beside(ledger, exam.id, str(exam.id)) == [exam.id]


async def test_batches_and_causes_that_are_not_read_are_counted(
    clinic: Engine, exam: Exam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images there are and however a destination refuses them, nothing goes missing."""
    ledger = clinic.ledger
    (delivery,) = await deliveries_of(ledger, exam.id)
    await keep_attempts(ledger, [
        (delivery["id"], delivery["id"], "pending", "fault", f"refused {n}", now())
        for n in range(150)
    ])  # fmt: skip
    line = await timeline_of(ledger, exam)
    assert sum(moment.kind == "fault" for moment in line.moments) == 150
    assert line.older == 0
    cut = await timeline_of(ledger, exam, most=100)
    assert len(cut.moments) + cut.older == len(line.moments)
    await came(ledger, exam, 9, now() + timedelta(hours=1))
    monkeypatch.setattr("rso.ledger.arrivals._MOST", 4)
    cut = await timeline_of(ledger, exam)
    assert next(m.what for m in cut.moments if m.kind == "images") == "4 images received"
    assert cut.older == 6  # five of the nine, and the one of FTP
