"""The purge: only what is proven delivered and kept long enough leaves, and nothing else moves."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from rso.core.exam import Exam, ExamStatus, Patient
from rso.core.retention import Standing, kept_because
from rso.core.transport import Kind, Provenance
from rso.dicom.header import scan_header
from rso.dicom.part10 import build_file_meta, read_file_meta
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.delivery_control import resend_delivery
from rso.engine.documents import add_document, document_path, documents_of
from rso.engine.exams import cancel_exam, create_exam
from rso.engine.intake import take_records
from rso.engine.purge import plan_purge, purge
from rso.engine.reconcile import reconcile
from rso.engine.reindex import reindex
from rso.engine.spool_reader import InstanceRecord
from rso.engine.spool_segment import StoredProvenance
from rso.ledger import Ledger, audit, new_id
from rso.ledger.deliveries import deliveries_of, recount
from rso.ledger.exams import exam_by_id, now
from rso.ledger.holds import open_hold
from rso.ledger.site import load_site
from rso.plugins import load_plugins
from rso.settings import load_settings

SITE: dict[str, Any] = {
    "facility": [
        {"code": "KEEP", "radiologists": [{"code": "R"}]},
        {"code": "DAYS", "radiologists": [{"code": "R"}], "retention_days": 30},
    ],
    "radiologist": [
        {"code": "R", "destinations": [{"code": "R-PACS", "sender": "dicom_scu", "options": {}}]},
    ],
}


def record(samples: Path, facility: str, exam: Exam, index: int) -> InstanceRecord:
    """One CT slice with an identity of its own, as the spool hands it over."""
    import msgspec  # noqa: PLC0415
    import pydicom  # noqa: PLC0415
    from pydicom.filebase import DicomBytesIO  # noqa: PLC0415

    dataset = pydicom.dcmread(samples / "CT_small.dcm")
    dataset.StudyInstanceUID = f"1.2.{int(exam.id[:8], 16)}{int(exam.id[-8:], 16)}"
    dataset.SOPInstanceUID = f"{dataset.StudyInstanceUID}.{index}"
    dataset.PatientID, dataset.PatientName = exam.number, "DOE^JANE"
    dataset.PatientBirthDate = "19700131"
    made = DicomBytesIO()
    dataset.save_as(made)
    whole = made.getvalue()
    old = read_file_meta(whole[: 1 << 16])
    body = whole[old.dataset_offset :]
    provenance = Provenance(
        channel="http_upload", facility=facility, source="x", kind=Kind.TECHNICIAN,
        peer_address="127.0.0.1", opened_at=now(), exam_number=exam.number,
    )  # fmt: skip
    batch = new_id()
    meta = build_file_meta(
        sop_class_uid=old.sop_class_uid, sop_instance_uid=dataset.SOPInstanceUID,
        transfer_syntax_uid=old.transfer_syntax_uid,
        private_information=msgspec.json.encode(
            StoredProvenance(batch=batch, provenance=provenance)
        ),
    )  # fmt: skip
    return InstanceRecord(
        record_id=new_id(), batch_id=batch, provenance=provenance,
        header=scan_header(body, old.transfer_syntax_uid), part10=memoryview(meta + body),
        path=None, dataset_offset=len(meta), size=len(body), received_at=now(),
    )  # fmt: skip


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """An engine on either database with an empty archive."""
    (tmp_path / "rso.toml").write_text("")
    loaded = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, SITE)
    archive = LocalArchive(tmp_path / "archive")
    archive.prepare()
    return Engine(ledger=ledger, plugins=load_plugins(loaded), settings=loaded, archive=archive)


async def exam_with_images(
    engine: Engine, samples: Path, facility: str = "DAYS", count: int = 2
) -> tuple[Exam, list[InstanceRecord]]:
    """An exam whose images are in the archive and queued."""
    patient = Patient(name="DOE^JANE", birth_date="19700131")
    exam = await create_exam(engine, facility=facility, patient=patient, actor="t")
    records = [record(samples, facility, exam, i) for i in range(count)]
    assert await take_records(engine, records) == count
    found = await exam_by_id(engine.ledger, exam.id)
    assert found is not None
    return found, records


async def deliver(engine: Engine, exam: Exam, *, days_ago: float, but: int = 0) -> None:
    """Have the destination acknowledge all but some, so long ago."""
    at = now() - timedelta(days=days_ago)
    ledger = engine.ledger
    for delivery in await deliveries_of(ledger, exam.id):
        items = await ledger.fetch(
            "SELECT id FROM delivery_item WHERE delivery = ? ORDER BY id", delivery["id"]
        )
        await ledger.execute_many(
            "UPDATE delivery_item SET state = 'acknowledged', acknowledged_at = ? WHERE id = ?",
            [(at, item["id"]) for item in items[but:]],
        )
        await recount(ledger, [delivery["id"]])
    await ledger.execute(
        "UPDATE exam SET status = 'delivered', delivered_at = ?, last_instance_at = ?"
        " WHERE id = ?",
        at, at, exam.id,
    )  # fmt: skip


def files(engine: Engine) -> dict[Path, bytes]:
    """Everything in the archive's folder."""
    return {path: path.read_bytes() for path in engine.archive.root.rglob("*") if path.is_file()}


async def test_only_what_may_go_goes(engine: Engine, samples: Path) -> None:
    """Old and delivered goes; young, undelivered, held or of a facility without a period stays."""
    old, gone = await exam_with_images(engine, samples)
    await deliver(engine, old, days_ago=31)
    young, _ = await exam_with_images(engine, samples)
    await deliver(engine, young, days_ago=29)
    partly, _ = await exam_with_images(engine, samples)
    await deliver(engine, partly, days_ago=99, but=1)
    kept, _ = await exam_with_images(engine, samples, "KEEP")
    await deliver(engine, kept, days_ago=999)
    held, _ = await exam_with_images(engine, samples)
    await deliver(engine, held, days_ago=99)
    study = (await engine.ledger.fetch("SELECT id FROM study WHERE exam = ?", held.id))[0]["id"]
    await open_hold(engine.ledger, kind="study", facility="DAYS", study=study, reason="late")
    before = files(engine)

    plan = await plan_purge(engine)
    assert [(e.exam_number, e.instances) for e in plan.exams] == [(old.number, 2)]
    assert files(engine) == before
    done = await purge(engine, actor="boss")
    assert (done.exams, done.files_removed) == (plan.exams, 2)
    left = {engine.archive.path(r.record_id) for r in gone}
    assert files(engine) == {p: b for p, b in before.items() if p not in left}
    rows = await engine.ledger.fetch("SELECT * FROM instance WHERE purged_at IS NOT NULL")
    assert {row["id"] for row in rows} == {r.record_id for r in gone}
    assert all(row["removed_at"] for row in rows)
    entries = await engine.ledger.fetch("SELECT * FROM audit WHERE action = 'images purged'")
    assert [(e["exam"], e["actor"]) for e in entries] == [(old.number, "boss")]
    assert await audit.verify(engine.ledger) is None
    again = await purge(engine, actor="boss")
    assert (again.exams, again.files_removed) == ([], 0)


async def test_a_cancelled_exam_goes_after_its_period(engine: Engine, samples: Path) -> None:
    """Cancelled by a person, and the period counts from there; a bare status is not believed."""
    exam, records = await exam_with_images(engine, samples)
    await cancel_exam(engine, exam, actor="t", reason="wrong patient")
    long_ago = now() - timedelta(days=31)
    await engine.ledger.execute("UPDATE exam SET last_instance_at = ?", long_ago)
    assert not (await plan_purge(engine)).exams
    await engine.ledger.execute("UPDATE audit SET at = ?", long_ago)
    assert len((await plan_purge(engine)).exams) == 1
    await engine.ledger.execute("UPDATE audit SET action = 'other'")
    assert not (await purge(engine, actor="t")).exams
    assert len(files(engine)) == len(records)


@pytest.mark.parametrize("moment", ["before", "within", "after"])
async def test_killed_in_the_middle_it_goes_on(
    engine: Engine, samples: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it dies before, within or after the removal, one entry is written, all files go."""
    exam, records = await exam_with_images(engine, samples)
    await deliver(engine, exam, days_ago=31)
    removed = 0

    def remove(self: LocalArchive, record_id: str) -> None:
        nonlocal removed
        if moment == "before" or (moment == "within" and removed):
            raise KeyboardInterrupt
        removed += 1
        self.path(record_id).unlink(missing_ok=True)

    async def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalArchive, "remove", remove)
        if moment == "after":
            patch.setattr("rso.engine.purge.mark_removed", dies)
        task = asyncio.ensure_future(_caught(purge(engine, actor="boss")))
        assert await task
    assert len(files(engine)) == len(records) - {"before": 0, "within": 1, "after": 2}[moment]
    await purge(engine, actor="boss")
    assert not files(engine)
    entries = await engine.ledger.fetch("SELECT * FROM audit WHERE action = 'images purged'")
    assert len(entries) == 1


async def _caught(work: Any) -> bool:
    try:
        await work
    except KeyboardInterrupt:
        return True
    return False


async def test_documents_go_with_the_images(engine: Engine, samples: Path) -> None:
    """Those of a kept exam stay; files without a row go when they are old; removed ones at once."""
    going, _ = await exam_with_images(engine, samples)
    staying, _ = await exam_with_images(engine, samples, "KEEP")
    for exam in (going, staying):
        await deliver(engine, exam, days_ago=40)
    gone = await add_document(engine, going, "a.pdf", b"%PDF-1", actor="t")
    kept = await add_document(engine, staying, "b.pdf", b"%PDF-2", actor="t")
    fresh, old = document_path(engine, new_id()), document_path(engine, new_id())
    for orphan in (fresh, old):
        orphan.parent.mkdir(parents=True, exist_ok=True)
        orphan.write_bytes(b"%PDF-3")
    os.utime(old, (0, 0))
    await purge(engine, actor="t")
    found = {name: document_path(engine, key).exists() for name, key in
             (("gone", gone), ("kept", kept))}  # fmt: skip
    assert found == {"gone": False, "kept": True}
    assert (fresh.exists(), old.exists()) == (True, False)
    assert not await documents_of(engine.ledger, going)
    assert len(await documents_of(engine.ledger, staying)) == 1


async def test_two_at_once_purge_once(engine: Engine, samples: Path) -> None:
    """Run side by side, each exam has one entry and one report."""
    for _ in range(3):
        exam, _ = await exam_with_images(engine, samples, count=1)
        await deliver(engine, exam, days_ago=31)
    one, two = await asyncio.gather(purge(engine, actor="a"), purge(engine, actor="b"))
    assert len(one.exams) + len(two.exams) == 3
    entries = await engine.ledger.fetch("SELECT * FROM audit WHERE action = 'images purged'")
    assert len(entries) == 3
    assert not files(engine)


async def test_what_comes_again_is_kept_again(engine: Engine, samples: Path) -> None:
    """A purged instance that is sent again is acknowledged, so it is on disk, and not sent twice."""
    exam, records = await exam_with_images(engine, samples)
    await deliver(engine, exam, days_ago=31)
    await purge(engine, actor="t")
    again = structs.replace(records[0], record_id=new_id())
    for _ in range(2):  # and once more, as after a crash
        await take_records(engine, [again])
        path = engine.archive.path(again.record_id)
        assert path.read_bytes() == bytes(again.part10 or b"")
        path.unlink()
    await take_records(engine, [again])
    rows = await engine.ledger.fetch("SELECT id FROM instance WHERE purged_at IS NULL")
    assert [row["id"] for row in rows] == [again.record_id]
    pending = await engine.ledger.fetch("SELECT id FROM delivery_item WHERE state = 'pending'")
    assert not pending
    # A copy of it is a duplicate as ever.
    await take_records(engine, [structs.replace(again, record_id=new_id())])
    assert list(files(engine)) == [path]


async def test_reindex_and_reconcile_agree(engine: Engine, samples: Path) -> None:
    """Purged images stay purged; files that an older backup brings back leave again."""
    exam, records = await exam_with_images(engine, samples)
    await deliver(engine, exam, days_ago=31)
    await exam_with_images(engine, samples)
    await purge(engine, actor="t")
    kept = files(engine)
    assert await reconcile(engine) == 0
    for r in records:
        engine.archive.put(r.record_id, r.part10 or b"")
    assert (await reindex(engine)).files == 4
    found = await exam_by_id(engine.ledger, exam.id)
    assert found is not None
    assert found.status is ExamStatus.DELIVERED
    assert not (await plan_purge(engine)).exams
    assert (await purge(engine, actor="t")).files_removed == 2
    assert files(engine) == kept
    # Nothing that has left is queued again.
    for delivery in await deliveries_of(engine.ledger, exam.id):
        assert await resend_delivery(engine, delivery["id"]) == 0


STANDINGS = st.builds(
    Standing,
    status=st.sampled_from(ExamStatus),
    retention_days=st.sampled_from([None, 1, 30]),
    cancelled_at=st.sampled_from([None, 0.5, 2, 40]),
    deliveries=st.lists(
        st.tuples(
            st.sampled_from(["pending", "sending", "waiting", "delivered", "stopped"]),
            st.integers(0, 3), st.integers(1, 3),
        ), max_size=3,
    ).map(tuple),
    instances=st.integers(0, 3),
    unproven=st.integers(0, 2),
    unmatched=st.integers(0, 1),
    holds=st.integers(0, 1),
    missing=st.integers(-1, 1),
    last_at=st.sampled_from([None, 0.5, 2, 40]),
)  # fmt: skip


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(standing=STANDINGS)
def test_nothing_goes_unless_everything_allows_it(standing: Standing) -> None:
    """In every state: going implies proof, no hold, and a period that is over."""
    at = now()

    def ago(days: Any) -> Any:
        return None if days is None else at - timedelta(days=days)

    last, cancelled = standing.last_at, standing.cancelled_at
    real = structs.replace(standing, last_at=ago(last), cancelled_at=ago(cancelled))
    if kept_because(real, at):
        return
    days = real.retention_days
    assert days is not None
    assert real.instances
    assert not real.holds
    assert not real.unmatched
    ends: list[Any] = [last]
    if real.status is ExamStatus.CANCELLED:
        assert cancelled is not None
        ends.append(cancelled)
        assert not any(s in {"pending", "sending", "waiting"} for s, _, _ in real.deliveries)
    else:
        assert real.status in {ExamStatus.DELIVERED, ExamStatus.CLOSED}
        assert real.deliveries
        assert all(s == "delivered" and a == t for s, a, t in real.deliveries)
        assert not real.unproven
        assert last is not None
    assert min(end for end in ends if end is not None) >= days


@settings(
    max_examples=10, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    plan=st.lists(
        st.tuples(
            st.sampled_from(["DAYS", "KEEP"]), st.sampled_from([1, 29, 31, 400]),
            st.integers(0, 2), st.booleans(), st.sampled_from(["", "stopped", "held"]),
        ), min_size=1, max_size=4,
    )
)  # fmt: skip
async def test_random_archives(
    tmp_path_factory: pytest.TempPathFactory, samples: Path, plan: list[Any]
) -> None:
    """Whatever mixture lies there: exactly the old, whole and undisputed exams' files go."""
    folder = tmp_path_factory.mktemp("purge")
    (folder / "rso.toml").write_text("")
    loaded = load_settings(folder / "rso.toml")
    ledger = await Ledger.open(f"sqlite:{folder / 'ledger.sqlite'}")
    try:
        await ledger.migrate()
        await load_site(ledger, SITE)
        archive = LocalArchive(folder / "archive")
        archive.prepare()
        engine = Engine(
            ledger=ledger, plugins=load_plugins(loaded), settings=loaded, archive=archive
        )
        goes = set()
        for facility, days, missing, held, state in plan:
            exam, records = await exam_with_images(engine, samples, facility)
            await deliver(engine, exam, days_ago=days, but=missing)
            study = await ledger.fetch("SELECT id FROM study WHERE exam = ?", exam.id)
            if held:
                await open_hold(ledger, kind="instance", facility=facility, reason="x",
                                study=study[0]["id"], instance=records[0].record_id)  # fmt: skip
            if state:
                await ledger.execute("UPDATE study SET state = ? WHERE exam = ?", state, exam.id)
            if facility == "DAYS" and days > 30 and not (missing or held or state):
                goes |= {archive.path(r.record_id) for r in records}
        before = files(engine)
        await purge(engine, actor="t")
        assert files(engine) == {p: b for p, b in before.items() if p not in goes}
    finally:
        await ledger.close()
