"""What is stopped, taken out or paused does not leave, though a courier had it leased already."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rso.core.exam import Exam, Patient
from rso.core.routing import Destination
from rso.engine import again, delivery, sessions
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.delivery import Courier
from rso.engine.delivery_control import pause_destination, resend_delivery
from rso.engine.exam_deliveries import act_on_delivery
from rso.engine.exam_edit import edit_exam
from rso.engine.exams import cancel_exam, create_exam
from rso.engine.holds import recall_hold, show_hold
from rso.engine.outgoing import Preparer
from rso.engine.resume import resume_study
from rso.engine.router import stop_study
from rso.engine.sessions import NotSent
from rso.engine.timeline import timeline_of
from rso.ledger import Ledger, LedgerUnavailable, audit, new_id, tables
from rso.ledger.attempts import keep_attempts
from rso.ledger.deliveries import add_items, complete_items, deliveries_of, ensure_delivery
from rso.ledger.exams import now
from rso.ledger.holds import close_hold, open_hold
from rso.ledger.site import load_site
from rso.plugins import Health, Outcome, Sender, SendResult, load_plugins
from rso.settings import load_settings

SITE: dict[str, Any] = {
    "facility": [{"code": "NORTH", "radiologists": [{"code": "READER"}]}],
    "radiologist": [{"code": "READER", "destinations": [
        {"code": "PACS", "sender": "dicom_scu", "egress": "passthrough",
         "options": {"ae_title": "PACS", "host": "127.0.0.1", "port": 1}}]}],
}  # fmt: skip
COUNT = 40


class SlowLink(Sender):
    """A destination that takes one instance each time it is let."""

    name = "slow"
    parallel = 1

    def __init__(self) -> None:
        super().__init__(None, None)
        self.begun: list[str] = []
        self.let = threading.Semaphore(0)

    def open(self, wanted: Any) -> "SlowLink":  # type: ignore[override]
        """Itself."""
        return self

    def send(self, instance: Any) -> SendResult:
        """Take it, in time."""
        self.begun.append(instance.sop_instance_uid)
        self.let.acquire()
        return SendResult(outcome=Outcome.ACKNOWLEDGED, code="0000")

    def check(self) -> Health:
        """Well."""
        return Health(ok=True)


class Way:
    """An exam of 40 instances on its slow way to PACS: one has begun, the rest is leased."""

    def __init__(self, engine: Engine, exam: Exam, study: str) -> None:
        self.engine, self.ledger = engine, engine.ledger
        self.exam, self.study, self.link = exam, study, SlowLink()
        self.stop = asyncio.Event()
        self.courier: Courier

    async def begin(self) -> None:
        """Run the courier until the first instance is on the wire."""
        destination = Destination(
            code="PACS", radiologist="READER", sender="slow", egress="passthrough"
        )
        preparer = Preparer(self.engine, destination)
        self.courier = Courier(self.engine, "PACS", self.link, preparer, "host/1")
        self.task = asyncio.create_task(self.courier.run(self.stop))
        await self.until(lambda: bool(self.link.begun))
        assert len(self.courier.leased) == COUNT

    async def end(self) -> None:
        """End the courier."""
        self.stop.set()
        self.link.let.release(COUNT * 2)
        await self.task

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is so."""
        for _ in range(500):
            if true():
                return
            assert not self.task.done(), self.task.exception()
            await asyncio.sleep(0.02)
        raise AssertionError("it did not come so")

    async def taken_back(self) -> None:
        """The courier has noticed; the one on the wire arrives, and time passes for others."""
        await self.until(lambda: len(self.courier.leased) == 1)
        self.link.let.release(COUNT)
        await self.until(lambda: not self.courier.leased)
        await asyncio.sleep(0.2)

    async def items(self) -> dict[str, int]:
        """How many items are in each state."""
        rows = await self.ledger.fetch("SELECT state, count(*) AS n FROM delivery_item"
                                       " GROUP BY state")  # fmt: skip
        return {row["state"]: row["n"] for row in rows}

    async def noted(self) -> list[tuple[str, dict[str, Any]]]:
        """What the audit of the exam has of delivery."""
        rows = await self.ledger.fetch(
            "SELECT action, facts FROM audit WHERE exam = ? AND actor = 'delivery' ORDER BY id",
            self.exam.number,
        )
        return [(row["action"], msgspec.json.decode(row["facts"])) for row in rows]

    async def late(self) -> int:
        """How many attempts are kept as late ones."""
        return len(await self.ledger.fetch("SELECT id FROM delivery_attempt WHERE state = 'late'"))

    async def told(self) -> list[tuple[str, int]]:
        """The state of the hold and the count of each recall that was told."""
        rows = await self.ledger.fetch(
            "SELECT payload FROM outbox WHERE event = 'release_recalled' AND kind = 'hook'"
            " ORDER BY id"
        )
        facts = [msgspec.json.decode(row["payload"]) for row in rows]
        return [
            ((await show_hold(self.ledger, fact["hold"])).state, fact["sent"]) for fact in facts
        ]


@pytest.fixture
async def way(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Way]:
    """On either engine."""
    monkeypatch.setattr(sessions, "_IDLE_SECONDS", 0.1)  # an idle thread ends sooner
    (tmp_path / "rso.toml").write_text("")
    settings = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, SITE)
    engine = Engine(
        ledger=ledger, plugins=load_plugins(settings), settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )  # fmt: skip
    exam = await create_exam(engine, facility="NORTH", patient=Patient(name="X"), actor="t")
    study, at = new_id(), now()
    await ledger.insert_rows(tables.Study, [{
        "id": study, "facility": "NORTH", "study_instance_uid": "1.2", "identity": "x",
        "exam": exam.id, "state": "matched", "created_at": at, "updated_at": at,
        "patient_name": "", "kind": "technician", "table_row": 0, "decision": "{}",
    }])  # fmt: skip
    keys = [new_id() for _ in range(COUNT)]
    for key in keys:
        engine.archive.put(key, b"x")
    await ledger.insert_rows(tables.Instance, [{
        "id": key, "facility": "NORTH", "study": study, "sop_instance_uid": f"1.2.{n}",
        "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1",
        "digest": key, "size": 1, "batch": key, "received_at": at,
    } for n, key in enumerate(keys)])  # fmt: skip
    delivery = await ensure_delivery(ledger, exam.id, "PACS", 2)
    await add_items(ledger, delivery, "PACS", keys, 2)
    made = Way(engine, exam, study)
    await made.begin()
    yield made
    with contextlib.suppress(BaseException):
        await made.end()


async def recall(way: Way) -> int:
    """Release a hold of the exam's Study, as it were, and take that back."""
    ledger = way.ledger
    hold = await open_hold(ledger, kind="study", facility="NORTH", study=way.study, reason="x")
    assert hold
    await close_hold(ledger, hold, state="released", actor="a", resolution="x", exam=way.exam.id)
    return await recall_hold(way.engine, hold, reason="wrong", actor="a")


async def test_a_recall_reaches_what_is_leased(way: Way) -> None:
    """One had begun and arrives: it alone, and it is an attempt, in the audit, and told."""
    assert await recall(way) == 0
    await way.taken_back()
    assert way.link.begun == ["1.2.0"]
    assert await way.items() == {"cancelled": COUNT}
    assert await way.late() == 1
    assert await way.noted() == [
        ("sent while it was taken out", {"destination": "PACS", "sent": "1"})
    ]
    assert await way.told() == [("recalled", 1)]
    line = await timeline_of(way.ledger, way.exam)
    moments = [(m.kind, m.what, m.who) for m in line.moments]
    assert ("fault", "1 image left in the last moment", "PACS") in moments
    assert await audit.verify(way.ledger) is None


async def test_a_stop_reaches_what_is_leased(way: Way) -> None:
    """What had begun counts as acknowledged; a retry sends the others, and not that one again."""
    await act_on_delivery(way.engine, way.exam, "PACS", "stop", actor="a")
    await way.taken_back()
    assert way.link.begun == ["1.2.0"]
    assert await way.items() == {"acknowledged": 1, "stopped": COUNT - 1}
    (delivery,) = await deliveries_of(way.ledger, way.exam.id)
    assert (delivery["acknowledged"], delivery["state"]) == (1, "stopped")
    assert await way.noted() == [
        ("sent while it was stopped", {"destination": "PACS", "sent": "1"})
    ]
    assert await way.told() == []
    await act_on_delivery(way.engine, way.exam, "PACS", "retry", actor="a")
    way.link.let.release(COUNT)
    way.courier.wake.set()
    await way.until(lambda: len(way.link.begun) == COUNT)
    assert sorted(way.link.begun) == sorted(f"1.2.{n}" for n in range(COUNT))


@pytest.mark.parametrize("race", [False, True])
async def test_a_corrected_patient_reaches_what_is_leased(
    way: Way, monkeypatch: pytest.MonkeyPatch, race: bool
) -> None:
    """What waits at the courier leaves with the patient as edited; what had begun, once more."""
    await way.ledger.execute("UPDATE study SET patient_name = 'X', patient_id = ?", way.exam.number)
    if race:  # the edit comes between the courier's look at its leases and its next claim
        real = delivery.claim_items

        async def claims(*args: Any, **more: Any) -> Any:
            monkeypatch.setattr(delivery, "claim_items", real)
            await edit_exam(way.engine, way.exam, actor="a", patient={"sex": "F"})
            return await real(*args, **more)

        monkeypatch.setattr(delivery, "claim_items", claims)
        monkeypatch.setattr(delivery, "_AHEAD", 200)
        way.courier.wake.set()
    else:
        await edit_exam(way.engine, way.exam, actor="a", patient={"sex": "F"})
    way.courier.wake.set()

    def anew() -> bool:
        parcels = [p for p in way.courier.leased.values() if p.sop_instance_uid != "1.2.0"]
        return len(parcels) == COUNT - 1 and all(p.exam.patient.sex == "F" for p in parcels)

    await way.until(anew)
    assert way.link.begun == ["1.2.0"]
    way.link.let.release(COUNT + 1)
    await way.until(lambda: len(way.link.begun) == COUNT + 1)
    assert way.link.begun[1:].count("1.2.0") == 1


async def test_a_cancelled_exam_does_not_leave(way: Way) -> None:
    """Nothing of it that no session had begun."""
    await cancel_exam(way.engine, way.exam, actor="a", reason="x")
    await way.taken_back()
    assert way.link.begun == ["1.2.0"]
    assert await way.items() == {"acknowledged": 1, "stopped": COUNT - 1}


async def test_a_recall_counts_what_left_while_its_identity_came_into_question(way: Way) -> None:
    """A hold stops the Study, one image arrives all the same: a later recall knows of it."""
    await stop_study(way.engine, "NORTH", "1.2")
    await way.taken_back()
    assert way.link.begun == ["1.2.0"]
    assert await recall(way) == 1


async def test_a_recall_counts_what_is_sent_again(way: Way) -> None:
    """Acknowledged once, queued again: the destination has it."""
    rows = await way.ledger.fetch("SELECT delivery, instance FROM delivery_item LIMIT 3")
    at = now()
    await keep_attempts(
        way.ledger,
        [(r["delivery"], r["instance"], "acknowledged", "0000", "", at) for r in rows],
    )
    assert await recall(way) == 3


async def test_a_paused_destination_returns_its_queue(way: Way) -> None:
    """What had begun is acknowledged; the rest is nobody's until it goes on, and then leaves."""
    await pause_destination(way.engine, "PACS", paused=True, actor="a")
    await way.taken_back()
    assert way.link.begun == ["1.2.0"]
    assert await way.items() == {"acknowledged": 1, "pending": COUNT - 1}
    leased = "SELECT id FROM delivery_item WHERE lease_owner <> ''"
    assert await way.ledger.fetch(leased) == []
    assert await way.late() == 0
    await pause_destination(way.engine, "PACS", paused=False, actor="a")
    await way.until(lambda: len(way.link.begun) == COUNT)


async def test_queued_anew_while_it_leaves_it_is_sent_again(way: Way) -> None:
    """The old acknowledgement is of the old identity: it does not answer for the new one."""
    await stop_study(way.engine, "NORTH", "1.2")
    await way.until(lambda: len(way.courier.leased) == 1)
    await resume_study(way.engine, "NORTH", "1.2")
    way.courier.wake.set()
    await way.until(lambda: len(way.courier.leased) == COUNT)
    way.link.let.release(COUNT * 2)
    await way.until(lambda: len(way.link.begun) == COUNT + 1)
    await way.until(lambda: not way.courier.leased)
    assert way.link.begun.count("1.2.0") == 2
    assert await way.items() == {"acknowledged": COUNT}
    assert await way.late() == 1


async def test_answers_are_kept_until_they_are_written(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database undoes the journal twice: each image is written down, and sent once."""
    faults = iter([LedgerUnavailable("undone"), LedgerUnavailable("undone")])

    async def undone(*arguments: Any) -> list[str]:
        for fault in faults:
            raise fault
        return await complete_items(*arguments)

    monkeypatch.setattr(again, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(delivery, "complete_items", undone)
    way.link.let.release(COUNT)
    await way.until(lambda: not way.courier.leased)
    assert await way.items() == {"acknowledged": COUNT}
    assert len(way.link.begun) == COUNT


async def test_what_was_leased_in_a_turn_that_failed_is_sent(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is claimed, and then the database does not answer: no lease of it is kept for ever."""
    way.link.let.release(COUNT * 2)
    await way.until(lambda: not way.courier.leased)
    monkeypatch.setattr(again, "_PAUSE_SECONDS", 0.05)
    parcels, failed = way.courier.preparer.parcels, list[int]()

    async def away(rows: list[dict[str, Any]]) -> list[Any]:
        if not failed:
            failed.append(len(rows))
            raise LedgerUnavailable("away")
        return await parcels(rows)

    monkeypatch.setattr(way.courier.preparer, "parcels", away)
    (found,) = await deliveries_of(way.ledger, way.exam.id)
    await resend_delivery(way.engine, found["id"])
    way.courier.wake.set()
    await way.until(lambda: len(way.link.begun) == 2 * COUNT)
    assert failed == [COUNT]


@pytest.mark.parametrize("why", ["paused", "resting", "full"])
async def test_who_may_not_send_rests(way: Way, why: str) -> None:
    """New work wakes a courier that can take none of it once, and not again and again."""
    if why == "paused":
        await pause_destination(way.engine, "PACS", paused=True, actor="a")
        await way.until(lambda: len(way.courier.leased) == 1)
    elif why == "resting":
        way.courier.open_until = time.monotonic() + 60
    turns = 0
    journal = way.courier.journal

    async def counted() -> None:
        nonlocal turns
        turns += 1
        await journal()

    way.courier.journal = counted  # type: ignore[method-assign]
    way.courier.wake.set()
    await asyncio.sleep(0.5)
    assert 1 <= turns <= 3


async def test_what_was_not_sent_says_nothing_of_its_destination(way: Way) -> None:
    """An archive file that is gone neither closes the breaker nor counts as a failure."""
    courier = way.courier
    courier.failures = 3
    for parcel in courier.sessions.drain():
        courier.answers.put(
            (parcel, NotSent(outcome=Outcome.STOPPED, code="local", reason="no file"))
        )
    courier.answered.set()
    await way.until(lambda: len(courier.leased) == 1)
    (row,) = await way.ledger.fetch("SELECT failures, last_success_at FROM destination")
    assert (courier.failures, row["failures"], row["last_success_at"]) == (3, 0, None)
    way.link.let.release(COUNT)
    await way.until(lambda: not courier.leased)
    await way.until(lambda: courier.failures == 0)
    (row,) = await way.ledger.fetch("SELECT last_success_at FROM destination")
    assert row["last_success_at"] is not None
    assert await way.items() == {"acknowledged": 1, "stopped": COUNT - 1}
