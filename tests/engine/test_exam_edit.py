"""An edited exam: its Studies are compared with what it says now, and none stays by another."""

import asyncio
import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from rso.core.errors import StaleError, StateError
from rso.core.exam import Exam, ExamStatus, Patient
from rso.core.matching import IncomingStudy
from rso.core.transport import Kind
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam
from rso.engine.holds import release_hold
from rso.engine.matcher import match_study
from rso.ledger import Ledger, new_id
from rso.ledger.exams import exam_by_id, insert_exam, now, set_status
from rso.ledger.site import load_site
from rso.ledger.studies import upsert_studies
from rso.plugins import load_plugins
from rso.settings import load_settings

_spec = importlib.util.spec_from_file_location(
    "adversary", Path(__file__).parent.parent / "core" / "adversary.py"
)
assert _spec is not None
assert _spec.loader is not None
adversary = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(adversary)

SEED = int(os.environ.get("RSO_SEED", "20261124"))
JANE = Patient(name="DOE^JANE", birth_date="19700131", sex="F")
MARY = Patient(name="ROE^MARY", birth_date="19811231", sex="F")


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """Facility N, which one radiologist reads for."""
    file = tmp_path / "rso.toml"
    file.write_text("")
    settings = load_settings(file)
    options = {"ae_title": "PACS", "host": "127.0.0.1", "port": 1}
    await load_site(
        ledger,
        {
            "facility": [{"code": "N", "radiologists": [{"code": "R"}]}],
            "radiologist": [
                {"code": "R", "destinations": [
                    {"code": "R-PACS", "sender": "dicom_scu", "options": options}]},
            ],
        },
    )  # fmt: skip
    return Engine(
        ledger=ledger, plugins=load_plugins(settings), settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )  # fmt: skip


async def arrive(engine: Engine, study: IncomingStudy) -> str:
    """Take a Study in and match it; the key of its row."""
    rows = await upsert_studies(engine.ledger, "N", [(study, "")])
    row = next(iter(rows.values()))
    if row["state"] == "pending":
        async with engine.ledger.transaction():
            await match_study(engine, row)
    return str(row["id"])


def part(exam: Exam, patient: Patient, **more: Any) -> IncomingStudy:
    """A technician's part of Study 1.2, with the exam's number."""
    identified = structs.replace(patient, patient_id=exam.number)
    return IncomingStudy(
        study_instance_uid="1.2", patient=identified, kind=Kind.TECHNICIAN, **more
    )  # fmt: skip


async def state(engine: Engine, study_id: str) -> tuple[str, bool, int]:
    """Of a Study: its state, whether it is in an exam, and the row that decided."""
    row = (await engine.ledger.fetch("SELECT * FROM study WHERE id = ?", study_id))[0]
    return row["state"], row["exam"] is not None, row["table_row"]


@pytest.mark.parametrize("more", [{"accession_number": "A7"}, {"kind": Kind.INTEGRATION}])
async def test_no_part_of_a_study_keeps_another_at_home(
    engine: Engine, more: dict[str, Any]
) -> None:
    """JANE's Study in two parts leaves an exam that turns out to be MARY's, with an alarm."""
    exam = await create_exam(engine, facility="N", patient=JANE, actor="t")
    one = await arrive(engine, part(exam, JANE))
    two = await arrive(engine, structs.replace(part(exam, JANE), **more))
    assert await state(engine, one) == ("matched", True, 4)
    assert await state(engine, two) == ("matched", True, 1)
    await edit_exam(engine, exam, actor="t", patient=MARY)
    assert await state(engine, one) == ("held", False, 8)
    assert await state(engine, two) == ("held", False, 8)
    holds = await engine.ledger.fetch("SELECT alarm FROM hold WHERE state = 'open'")
    assert [bool(hold["alarm"]) for hold in holds] == [True, True]


async def test_what_agrees_still_stays_whole(engine: Engine) -> None:
    """A corrected sex keeps both parts, also one that is known by the other only."""
    patient = structs.replace(JANE, sex="")
    exam = await create_exam(engine, facility="N", patient=patient, actor="t")
    uploaded = IncomingStudy(
        study_instance_uid="1.2", patient=structs.replace(JANE, patient_id="X9"),
        kind=Kind.TECHNICIAN, bound_exam_number=exam.number,
    )  # fmt: skip
    one = await arrive(engine, uploaded)
    two = await arrive(engine, structs.replace(uploaded, bound_exam_number=""))
    assert await state(engine, two) == ("matched", True, 1)
    # The order of asking does not matter.
    await engine.ledger.execute(
        "UPDATE study SET created_at = ? WHERE id = ?", now() - timedelta(days=1), two
    )
    await edit_exam(engine, exam, actor="t", patient=JANE)
    assert (await state(engine, one))[:2] == ("matched", True)
    assert (await state(engine, two))[:2] == ("matched", True)
    assert not await engine.ledger.fetch("SELECT id FROM hold WHERE reason <> 'no destination'")


async def test_a_stopped_part_does_not_go_on_in_another_patients_exam(engine: Engine) -> None:
    """It was stopped because its Study names two people; the exam turns out to be the other's."""
    exam = await create_exam(engine, facility="N", patient=JANE, actor="t")
    janes = await arrive(engine, part(exam, JANE))
    marys = await arrive(engine, part(exam, MARY))
    assert await state(engine, janes) == ("stopped", True, 4)
    assert await state(engine, marys) == ("held", False, 2)
    await edit_exam(engine, exam, actor="t", patient=MARY)
    hold = (await engine.ledger.fetch("SELECT id FROM hold WHERE study = ?", marys))[0]
    await release_hold(engine, hold["id"], exam.number, reason="hers", actor="t")
    assert (await state(engine, janes))[:2] == ("held", False)
    assert (await state(engine, marys))[:2] == ("matched", True)


async def test_two_studies_do_not_know_a_patient_id_for_each_other(engine: Engine) -> None:
    """A Patient ID that was corrected is not known from the images that came with the wrong one."""
    patient = structs.replace(JANE, patient_id="P1")
    exam = await create_exam(engine, facility="N", patient=patient, actor="t")
    studies = [
        await arrive(
            engine,
            IncomingStudy(study_instance_uid=uid, patient=patient, kind=Kind.TECHNICIAN),
        )
        for uid in ("1.2", "1.3")
    ]
    assert [await state(engine, s) for s in studies] == [("matched", True, 12)] * 2
    await edit_exam(engine, exam, actor="t", patient=structs.replace(patient, patient_id="P2"))
    assert [(await state(engine, s))[:2] for s in studies] == [("held", False)] * 2


@pytest.mark.parametrize("status", [ExamStatus.CLOSED, ExamStatus.CANCELLED])
async def test_the_patient_of_an_exam_that_ended_stays(engine: Engine, status: ExamStatus) -> None:
    """The images could not come back to it; what else was asked for may still be corrected."""
    exam = await create_exam(engine, facility="N", patient=JANE, actor="t")
    study = await arrive(engine, part(exam, JANE))
    await set_status(engine.ledger, exam.id, status)
    middle = structs.replace(JANE, name="DOE^JANE^M")
    with pytest.raises(StateError, match=f"the exam is {status}: its patient"):
        await edit_exam(engine, exam, actor="t", patient=middle, modality="CT")
    kept = await exam_by_id(engine.ledger, exam.id)
    assert kept is not None
    assert (kept.patient, kept.modality) == (JANE, "")
    await edit_exam(engine, exam, actor="t", patient=JANE, request={"fax": "+12025550100"})
    assert await state(engine, study) == ("matched", True, 4)
    assert await engine.ledger.fetch("SELECT id FROM hold WHERE reason <> 'no destination'") == []


@pytest.mark.parametrize("kind", [Kind.TECHNICIAN, Kind.INTEGRATION])
async def test_an_old_exam_keeps_what_agrees(engine: Engine, kind: Kind) -> None:
    """Made before the days in which images find their exam, it has these already."""
    patient = structs.replace(JANE, patient_id="P1")
    exam = await create_exam(engine, facility="N", patient=patient, actor="t")
    named = IncomingStudy(study_instance_uid="1.3", patient=patient, kind=kind)
    numbered = structs.replace(part(exam, JANE), kind=kind)
    studies = [await arrive(engine, numbered), await arrive(engine, named)]
    old = now() - timedelta(days=engine.settings.intake.open_days + 1)
    await engine.ledger.execute("UPDATE exam SET created_at = ?", old)
    middle = structs.replace(patient, name="DOE^JANE^M")
    exam = await edit_exam(engine, exam, actor="t", patient=middle)
    assert [(await state(engine, s))[:2] for s in studies] == [("matched", True)] * 2
    assert len(await engine.ledger.fetch("SELECT id FROM exam")) == 1
    await edit_exam(engine, exam, actor="t", patient=structs.replace(MARY, patient_id="P1"))
    assert [(await state(engine, s))[:2] for s in studies] == [("held", False)] * 2
    assert len(await engine.ledger.fetch("SELECT id FROM exam")) == 1


async def kept_by_edits(engine: Engine, count: int) -> tuple[int, int]:
    """How many Studies were split, and how many parts stay with a patient they do not name."""
    split = wrong = 0
    for made, parts, other in adversary.wrong_edits(count, SEED):
        exam = structs.replace(made, id=new_id(), created_at=now())
        await engine.ledger.execute("DELETE FROM hold")
        await engine.ledger.execute("DELETE FROM study")
        await engine.ledger.execute("DELETE FROM exam")
        await insert_exam(engine.ledger, exam, due_at=None, created_by="t")
        for study in parts:
            await arrive(engine, study)
        before = await engine.ledger.fetch("SELECT id FROM study WHERE exam = ?", exam.id)
        split += len(before) > 1
        current = await exam_by_id(engine.ledger, exam.id)
        assert current is not None
        await edit_exam(engine, current, actor="t", patient=other)
        after = await engine.ledger.fetch("SELECT id FROM study WHERE exam = ?", exam.id)
        wrong += len(after)
    return split, wrong


async def test_an_adversarys_edits(engine: Engine) -> None:
    """Sixty exams that turn out to be somebody else's: no part of a split Study stays in one."""
    split, wrong = await kept_by_edits(engine, 60)
    assert split > 15
    assert wrong == 0


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
async def test_three_thousand_edits(engine: Engine) -> None:
    """The promise, for what is decided again."""
    _, wrong = await kept_by_edits(engine, 3_000)
    assert wrong == 0


async def test_only_one_of_two_who_saw_the_same_saves(engine: Engine) -> None:
    """Whether it stands as it was seen is asked under the lock; the rest is as the first left it."""
    exam = await create_exam(engine, facility="N", patient=JANE, actor="c")

    async def still(stands: Exam) -> bool:
        await asyncio.sleep(0.05)
        return stands.body_part == ""

    done = await asyncio.gather(
        *(edit_exam(engine, exam, actor="c", body_part=part, still=still) for part in "ABC"),
        return_exceptions=True,
    )
    assert [isinstance(one, StaleError) for one in done].count(True) == 2


async def test_fields_of_a_patient_change_by_themselves(engine: Engine) -> None:
    """A corrected birth date is not put back by who had read the exam before and says the sex."""
    exam = await create_exam(engine, facility="N", patient=JANE, actor="c")
    await edit_exam(engine, exam, actor="c", patient={"birth_date": "19700201"})
    changed = await edit_exam(engine, exam, actor="c", patient={"sex": "O"})
    assert (changed.patient.birth_date, changed.patient.sex) == ("19700201", "O")
