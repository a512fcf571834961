"""Who gets an exam gets all of it: the route is decided once, on both databases."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rso.core.exam import Exam, ExamStatus, Patient, Priority
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.exam_deliveries import act_on_delivery
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import create_exam
from rso.engine.matcher import link_study
from rso.engine.recall import unlink_study
from rso.engine.resume import resume_study
from rso.engine.router import NO_DESTINATION, retry_routing, route_study, stop_study
from rso.engine.settle import conclude
from rso.ledger import Ledger, new_id, tables
from rso.ledger.deliveries import Answer, claim_items, complete_items, deliveries_of
from rso.ledger.exams import exam_by_id, now, set_status
from rso.ledger.holds import find_holds
from rso.ledger.site import load_site
from rso.plugins import builtin, load_plugins
from rso.settings import load_settings

DAY = {"hours": [{"start": "08:00", "end": "18:00"}]}
NIGHT = {"hours": [{"start": "18:00", "end": "08:00"}]}


def site_of(**conditions: dict[str, Any]) -> dict[str, Any]:
    """A facility with these radiologists, each with a PACS; A and B are there always."""
    return {
        "facility": [{"code": "NORTH", "radiologists": [
            {"code": code, **said} for code, said in conditions.items()]}],
        "radiologist": [{"code": code, "destinations": [
            {"code": f"{code}-PACS", "sender": "dicom_scu", "options": {
                "ae_title": "PACS", "host": "127.0.0.1", "port": 1}}]}
            for code in sorted({"A", "B", *conditions})],
    }  # fmt: skip


class Clock(datetime):
    """What the built-in rule takes for now."""

    hour_now = 17

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        """That hour of some day."""
        return datetime(2026, 3, 4, cls.hour_now, 59, tzinfo=UTC)


class Arriving:
    """An exam whose images arrive in groups."""

    def __init__(self, engine: Engine, exam: Exam) -> None:
        self.engine, self.ledger, self.exam = engine, engine.ledger, exam
        self.count = 0

    async def study(self) -> str:
        """A matched Study without images yet."""
        key, at = new_id(), now()
        await self.ledger.insert_rows(tables.Study, [{
            "id": key, "facility": "NORTH", "study_instance_uid": f"1.{key}"[:64], "identity": "x",
            "exam": self.exam.id, "state": "matched", "created_at": at, "updated_at": at,
            "patient_name": "", "kind": "technician", "table_row": 0, "decision": "{}",
        }])  # fmt: skip
        return key

    async def images(self, study: str, count: int) -> list[str]:
        """So many more are in the archive."""
        keys = [new_id() for _ in range(count)]
        await self.ledger.insert_rows(tables.Instance, [{
            "id": key, "facility": "NORTH", "study": study, "sop_instance_uid": f"1.2.{key}"[:64],
            "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1",
            "digest": key, "size": 1, "batch": key, "received_at": now(),
        } for key in keys])  # fmt: skip
        return keys

    async def arrive(self, study: str, count: int, *, first: bool = False) -> None:
        """As intake does: the first group at the match, later ones by their keys."""
        keys = await self.images(study, count)
        async with self.ledger.transaction():
            exam = await exam_by_id(self.ledger, self.exam.id)
            assert exam is not None
            await link_study(self.engine, exam, study, None if first else keys)

    async def ways(self) -> dict[str, tuple[int, int, str]]:
        """What each destination has of how many, and the delivery's state."""
        return {
            row["destination"]: (row["acknowledged"], row["total"], row["state"])
            for row in await deliveries_of(self.ledger, self.exam.id)
        }

    async def send(self, *codes: str) -> None:
        """Whatever is due to these arrives."""
        for code in codes:
            rows = await claim_items(self.ledger, code, "w", limit=999, seconds=60)
            await complete_items(self.ledger, "w", [
                Answer(item=r["item"], delivery=r["delivery"], instance=r["instance"],
                       state="acknowledged", code="0000", attempts=1)
                for r in rows
            ])  # fmt: skip


@pytest.fixture
async def clinic(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A reads until 18:00, B from then on; it is a minute before."""
    monkeypatch.setattr(builtin, "datetime", Clock)
    monkeypatch.setattr(Clock, "hour_now", 17)
    (tmp_path / "rso.toml").write_text("")
    settings = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, site_of(A=DAY, B=NIGHT))
    return Engine(
        ledger=ledger, plugins=load_plugins(settings), settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )  # fmt: skip


@pytest.fixture
async def arriving(clinic: Engine) -> Arriving:
    """Requested, no images yet."""
    exam = await create_exam(
        clinic, facility="NORTH", patient=Patient(name="X"), modality="CT", actor="t"
    )
    return Arriving(clinic, exam)


async def status(arriving: Arriving) -> ExamStatus:
    """What becomes of the exam when it has settled."""
    await set_status(arriving.ledger, arriving.exam.id, ExamStatus.SETTLED)
    await conclude(arriving.engine, [arriving.exam.id])
    exam = await exam_by_id(arriving.ledger, arriving.exam.id)
    assert exam is not None
    return exam.status


async def test_an_exam_that_streams_over_the_change_of_readers(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who began it gets the rest; delivered is it when somebody has all of it."""
    study = await arriving.study()
    await arriving.arrive(study, 100, first=True)
    await arriving.send("A-PACS")
    monkeypatch.setattr(Clock, "hour_now", 18)
    await arriving.arrive(study, 100)
    assert await arriving.ways() == {"A-PACS": (100, 200, "sending")}
    assert await status(arriving) is ExamStatus.SETTLED
    await arriving.send("A-PACS", "B-PACS")
    assert await arriving.ways() == {"A-PACS": (200, 200, "delivered")}
    assert await status(arriving) is ExamStatus.DELIVERED
    # Another Study of the exam goes there too.
    await arriving.arrive(await arriving.study(), 5, first=True)
    assert await arriving.ways() == {"A-PACS": (200, 205, "sending")}


@pytest.mark.parametrize("change", ["priority", "modality", "attached"])
async def test_changes_midway_move_nothing(arriving: Arriving, change: str) -> None:
    """A STAT, another modality, one more radiologist: what is on its way stays there, whole."""
    routine = {"priorities": ["routine"], "modalities": ["CT"]}
    others = {"priorities": ["stat"]}, {"modalities": ["MR"]}
    await load_site(arriving.ledger, site_of(A=routine, B=others[0], C=others[1]))
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    if change == "priority":
        await edit_exam(arriving.engine, arriving.exam, actor="t", priority=Priority.STAT)
    elif change == "modality":
        await edit_exam(arriving.engine, arriving.exam, actor="t", modality="MR")
    else:
        await load_site(arriving.ledger, site_of(A=routine, D={}))
    await arriving.arrive(study, 3)
    assert await arriving.ways() == {"A-PACS": (0, 6, "pending")}


async def test_nobody_fits_any_more(arriving: Arriving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late images follow the first, though nobody would be asked by now: nothing is held."""
    await load_site(arriving.ledger, site_of(A=DAY))
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    monkeypatch.setattr(Clock, "hour_now", 19)
    await arriving.arrive(study, 3)
    assert await arriving.ways() == {"A-PACS": (0, 6, "pending")}
    assert await find_holds(arriving.ledger) == []


async def test_a_radiologist_who_left(arriving: Arriving) -> None:
    """Late images do not go to who reads for the facility no more; who does gets everything."""
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    await arriving.send("A-PACS")
    await load_site(arriving.ledger, site_of(B={}))
    await arriving.arrive(study, 2)
    assert await arriving.ways() == {
        "A-PACS": (3, 3, "delivered"), "B-PACS": (0, 5, "pending"),
    }  # fmt: skip


async def test_a_destination_that_comes_late_gets_all_studies(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One Study waited for a destination; another brings one, which gets both."""
    await load_site(arriving.ledger, site_of(B=NIGHT))
    one, two = await arriving.study(), await arriving.study()
    await arriving.arrive(one, 3, first=True)
    assert [h.reason for h in await find_holds(arriving.ledger)] == [NO_DESTINATION]
    monkeypatch.setattr(Clock, "hour_now", 18)
    await arriving.arrive(two, 4, first=True)
    assert await arriving.ways() == {"B-PACS": (0, 7, "pending")}
    assert await retry_routing(arriving.engine) == 1
    assert await arriving.ways() == {"B-PACS": (0, 7, "pending")}
    assert await find_holds(arriving.ledger) == []


@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_what_ended_meanwhile_is_not_routed(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Nobody read at night, the exam ended, and a reader's hours come: nothing leaves."""
    await load_site(arriving.ledger, site_of(B=NIGHT))
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    await set_status(arriving.ledger, arriving.exam.id, ExamStatus(end))
    monkeypatch.setattr(Clock, "hour_now", 18)
    assert await retry_routing(arriving.engine) == 0
    assert await arriving.ways() == {}
    # A cancelled exam asks nobody any more; what came of a closed one a person may look at.
    assert len(await find_holds(arriving.ledger)) == (end == "closed")


@pytest.mark.parametrize("first", ["person", "question"])
async def test_an_answered_question_undoes_no_stop(arriving: Arriving, first: str) -> None:
    """Whatever stopped it first: what a person stopped waits for a person's retry."""
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    (row,) = await arriving.ledger.fetch("SELECT study_instance_uid AS uid FROM study")
    if first == "question":
        await stop_study(arriving.engine, "NORTH", row["uid"])
    await act_on_delivery(arriving.engine, arriving.exam, "A-PACS", "stop", actor="boss")
    if first == "person":
        await stop_study(arriving.engine, "NORTH", row["uid"])
    await resume_study(arriving.engine, "NORTH", row["uid"])
    assert await arriving.ways() == {"A-PACS": (0, 3, "stopped")}
    await act_on_delivery(arriving.engine, arriving.exam, "A-PACS", "retry", actor="boss")
    assert await arriving.ways() == {"A-PACS": (0, 3, "pending")}
    await stop_study(arriving.engine, "NORTH", row["uid"])
    await resume_study(arriving.engine, "NORTH", row["uid"])
    assert await arriving.ways() == {"A-PACS": (0, 3, "pending")}


async def test_what_a_person_stopped_stays_stopped(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late images wait with the others; who reads by now gets all; a retry sends all there too."""
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    await act_on_delivery(arriving.engine, arriving.exam, "A-PACS", "stop", actor="boss")
    await arriving.arrive(study, 2)
    assert await arriving.ways() == {"A-PACS": (0, 5, "stopped")}
    monkeypatch.setattr(Clock, "hour_now", 18)
    await arriving.arrive(study, 1)
    assert await arriving.ways() == {
        "A-PACS": (0, 6, "stopped"), "B-PACS": (0, 6, "pending"),
    }  # fmt: skip
    await act_on_delivery(arriving.engine, arriving.exam, "A-PACS", "retry", actor="boss")
    await arriving.arrive(study, 1)
    await arriving.send("A-PACS", "B-PACS")
    assert await arriving.ways() == dict.fromkeys(["A-PACS", "B-PACS"], (7, 7, "delivered"))


async def test_what_the_destination_refused_is_no_stop(arriving: Arriving) -> None:
    """One instance that a PACS does not take keeps no later one from it."""
    study = await arriving.study()
    await arriving.arrive(study, 2, first=True)
    rows = await claim_items(arriving.ledger, "A-PACS", "w", limit=1, seconds=60)
    await complete_items(arriving.ledger, "w", [
        Answer(item=r["item"], delivery=r["delivery"], instance=r["instance"], state="stopped",
               code="C000", reason="stopped by its own rules", attempts=1) for r in rows
    ])  # fmt: skip
    await arriving.send("A-PACS")
    await arriving.arrive(study, 1)
    assert await arriving.ways() == {"A-PACS": (1, 3, "sending")}


async def test_after_a_recall_the_route_is_asked_again(
    arriving: Arriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the exam is on its way: it goes to who reads when it is released anew."""
    study = await arriving.study()
    await arriving.arrive(study, 3, first=True)
    await arriving.send("A-PACS")
    rows = await arriving.ledger.fetch("SELECT * FROM study WHERE id = ?", study)
    async with arriving.ledger.transaction():
        assert await unlink_study(arriving.engine, rows[0], state="held") == 3
    await arriving.ledger.execute(
        "UPDATE study SET exam = ?, state = 'matched' WHERE id = ?", arriving.exam.id, study
    )
    monkeypatch.setattr(Clock, "hour_now", 18)
    await arriving.arrive(study, 1, first=True)
    ways = await arriving.ways()
    assert (ways["A-PACS"][1], ways["B-PACS"]) == (0, (0, 4, "pending"))
    assert await _route(arriving, study, [])
    assert (await arriving.ways())["B-PACS"] == (0, 4, "pending")


async def _route(arriving: Arriving, study: str, keys: Sequence[str]) -> bool:
    async with arriving.ledger.transaction():
        return await route_study(arriving.engine, arriving.exam, study, keys)
