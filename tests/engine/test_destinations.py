"""Destinations as people watch and steer them, on both databases."""

import asyncio
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rso.core.errors import ExamError, RoutingError
from rso.core.exam import Exam, Patient
from rso.core.routing import Destination
from rso.engine.archive import LocalArchive
from rso.engine.context import Engine
from rso.engine.delivery_control import (
    check_destination,
    pause_destination,
    retry_delivery,
    retry_destination,
)
from rso.engine.destinations import view_destinations
from rso.engine.exams import cancel_exam, create_exam
from rso.engine.outgoing import Parcel, Preparer
from rso.engine.router import NO_DESTINATION, retry_routing, route_study
from rso.engine.sessions import SessionThreads
from rso.ledger import Ledger, new_id, tables
from rso.ledger.deliveries import add_items, ensure_delivery, recount
from rso.ledger.exams import now
from rso.ledger.holds import find_holds
from rso.ledger.site import load_site
from rso.plugins import Health, Outcome, Sender, SendResult, hookimpl, load_plugins
from rso.settings import load_settings

SITE: dict[str, Any] = {
    "facility": [
        {"code": "NORTH", "radiologists": [{"code": "BOTH"}, {"code": "OWN"}]},
        {"code": "SOUTH", "radiologists": [{"code": "BOTH"}]},
    ],
    "radiologist": [
        {"code": code, "destinations": [{"code": f"{code}-PACS", "sender": "dicom_scu", "options": {
            "ae_title": "PACS", "host": "127.0.0.1", "port": 1}}]}
        for code in ("BOTH", "OWN")
    ],
}  # fmt: skip


@pytest.fixture
async def engine(ledger: Ledger, tmp_path: Path) -> Engine:
    """Two facilities, one destination of both and one of NORTH's own."""
    (tmp_path / "rso.toml").write_text("")
    settings = load_settings(tmp_path / "rso.toml")
    await load_site(ledger, SITE)
    return Engine(
        ledger=ledger, plugins=load_plugins(settings), settings=settings,
        archive=LocalArchive(tmp_path / "archive"),
    )  # fmt: skip


async def queued(engine: Engine, facility: str, code: str, states: list[dict[str, Any]]) -> Exam:
    """An exam with one instance a state on its way to a destination."""
    ledger = engine.ledger
    exam = await create_exam(engine, facility=facility, patient=Patient(name="X"), actor="t")
    study, at = new_id(), now()
    blank = {"patient_name": "", "kind": "technician", "table_row": 0, "decision": "{}"}
    await ledger.insert_rows(tables.Study, [{
        "id": study, "facility": facility, "study_instance_uid": f"1.{exam.id}"[:64],
        "identity": "x", "exam": exam.id, "state": "matched", "created_at": at, "updated_at": at,
        **blank,
    }])  # fmt: skip
    keys = [new_id() for _ in states]
    await ledger.insert_rows(tables.Instance, [{
        "id": key, "facility": facility, "study": study, "sop_instance_uid": f"1.2.{key}"[:64],
        "sop_class_uid": "1", "series_instance_uid": "1", "transfer_syntax_uid": "1",
        "digest": key, "size": 1, "batch": key, "received_at": at,
    } for key in keys])  # fmt: skip
    delivery = await ensure_delivery(ledger, exam.id, code, 2)
    await add_items(ledger, delivery, code, keys, 2)
    for key, state in zip(keys, states, strict=True):
        for column, value in state.items():
            await ledger.execute(
                f"UPDATE delivery_item SET {column} = ? WHERE instance = ?", value, key
            )
    await recount(ledger, [delivery])
    return exam


REFUSED = {"state": "stopped", "code": "C000", "reason": "cannot understand", "attempts": 1}
BUSY = {"code": "A700", "reason": "out of resources", "attempts": 3}


async def states(engine: Engine) -> list[str]:
    """Every item's state."""
    rows = await engine.ledger.fetch("SELECT state FROM delivery_item ORDER BY state")
    return [row["state"] for row in rows]


async def test_what_is_seen_of_a_destination(engine: Engine) -> None:
    """Queue, rate of the last five minutes, failures by reason; the breaker in words."""
    sent = {"state": "acknowledged", "acknowledged_at": now() - timedelta(minutes=2)}
    long_ago = {"state": "acknowledged", "acknowledged_at": now() - timedelta(hours=2)}
    await queued(engine, "NORTH", "OWN-PACS", [sent] * 10 + [long_ago, REFUSED, REFUSED, BUSY, {}])
    both, own = await view_destinations(engine.ledger)
    assert (both.code, both.waiting, both.failures, both.state) == ("BOTH-PACS", 0, [], "working")
    assert (own.waiting, own.stopped, own.per_minute) == (2, 2, 2.0)
    assert [(f.state, f.code, f.instances, f.exams) for f in own.failures] == [
        ("stopped", "C000", 2, 1), ("pending", "A700", 1, 1),
    ]  # fmt: skip
    ledger = engine.ledger
    for change, state in (
        ({"failures": 3}, "failing"), ({"open_until": now() + timedelta(minutes=1)}, "resting"),
        ({"paused": True}, "paused"),
    ):  # fmt: skip
        for column, value in change.items():
            await ledger.execute(f"UPDATE destination SET {column} = ?", value)
        assert (await view_destinations(ledger))[1].state == state


async def test_counts_are_of_ones_own_facilities(engine: Engine) -> None:
    """A shared destination tells nobody of another facility's exams."""
    await queued(engine, "NORTH", "BOTH-PACS", [REFUSED])
    await queued(engine, "SOUTH", "BOTH-PACS", [REFUSED, REFUSED, BUSY, {"state": "acknowledged",
                 "acknowledged_at": now()}])  # fmt: skip
    north = await view_destinations(engine.ledger, facilities=["NORTH"])
    assert [(d.code, d.stopped, d.waiting, d.shared) for d in north] == [
        ("BOTH-PACS", 1, 0, True), ("OWN-PACS", 0, 0, False),
    ]  # fmt: skip
    (south,) = await view_destinations(engine.ledger, facilities=["SOUTH"])
    assert (south.stopped, south.waiting, south.per_minute) == (2, 1, 0.2)
    assert await view_destinations(engine.ledger, facilities=[]) == []


async def test_try_all_again(engine: Engine) -> None:
    """What stopped goes on, what waits is due now; nothing cancelled, disputed or another's."""
    late = {**BUSY, "next_at": now() + timedelta(minutes=10)}
    await queued(engine, "NORTH", "OWN-PACS", [REFUSED, REFUSED, late])
    cancelled = await queued(engine, "NORTH", "OWN-PACS", [{}])
    await cancel_exam(engine, cancelled, actor="t", reason="x")
    disputed = await queued(engine, "NORTH", "OWN-PACS", [REFUSED])
    await engine.ledger.execute("UPDATE study SET state = 'stopped' WHERE exam = ?", disputed.id)
    assert await retry_destination(engine, "OWN-PACS", actor="boss") == 2
    assert await states(engine) == ["pending"] * 3 + ["stopped"] * 2
    due = await engine.ledger.fetch(
        "SELECT next_at AS at FROM delivery_item ORDER BY next_at DESC LIMIT 1"
    )
    assert due[0]["at"] <= now()
    # Nor from the exam's own page.
    for delivery in await engine.ledger.fetch("SELECT id FROM delivery"):
        await retry_delivery(engine, delivery["id"])
    assert await states(engine) == ["pending"] * 3 + ["stopped"] * 2
    rows = await engine.ledger.fetch("SELECT actor FROM audit WHERE action = 'destination retried'")
    assert [row["actor"] for row in rows] == ["boss"]


async def test_of_shared_destinations_one_moves_ones_own_only(engine: Engine) -> None:
    """A coordinator of one facility retries theirs, and pauses nothing that serves others."""
    await queued(engine, "NORTH", "BOTH-PACS", [REFUSED])
    await queued(engine, "SOUTH", "BOTH-PACS", [REFUSED, {**BUSY, "next_at": now()}])
    before = await engine.ledger.fetch("SELECT next_at FROM delivery_item WHERE code = 'A700'")
    assert await retry_destination(engine, "BOTH-PACS", actor="c", facilities=["NORTH"]) == 1
    assert await states(engine) == ["pending", "pending", "stopped"]
    assert before == await engine.ledger.fetch(
        "SELECT next_at FROM delivery_item WHERE code = 'A700'"
    )
    with pytest.raises(RoutingError, match="other facilities"):
        await pause_destination(engine, "BOTH-PACS", paused=True, actor="c", facilities=["NORTH"])
    with pytest.raises(ExamError, match="no destination"):
        await pause_destination(engine, "OWN-PACS", paused=True, actor="c", facilities=["SOUTH"])
    await pause_destination(engine, "OWN-PACS", paused=True, actor="c", facilities=["NORTH"])
    rows = await engine.ledger.fetch("SELECT code FROM destination WHERE paused")
    assert rows == [{"code": "OWN-PACS"}]


async def test_an_echo(engine: Engine, pacs: Any) -> None:
    """It answers, or in words why not."""
    assert not (await check_destination(engine, "OWN-PACS")).ok
    await engine.ledger.execute(
        "UPDATE destination SET options = ?",
        f'{{"ae_title": "PACS", "host": "127.0.0.1", "port": {pacs.port}}}',
    )
    assert (await check_destination(engine, "OWN-PACS")).ok


async def test_a_plugin_that_fails_to_route_holds_the_study(engine: Engine) -> None:
    """Intake goes on and a person is told; once the plugin answers, the Study is on its way."""
    faults = [ValueError("PATIENT DATA")] * 2

    def rso_route_exam(exam: Any, attachments: Any) -> None:
        if faults:
            raise faults.pop()

    module = ModuleType("broken_rule")
    module.rso_route_exam = hookimpl(rso_route_exam)  # type: ignore[attr-defined]
    exam = await queued(engine, "NORTH", "OWN-PACS", [{"state": "pending"}])
    study = (await engine.ledger.fetch("SELECT id FROM study WHERE exam = ?", exam.id))[0]["id"]
    await engine.ledger.execute("DELETE FROM delivery_item")
    await engine.ledger.execute("DELETE FROM delivery")
    engine.plugins.register(module, "broken_rule")
    assert not await route_study(engine, exam, study)
    held = await find_holds(engine.ledger)
    assert [(h.study, h.reason) for h in held] == [(study, NO_DESTINATION)]
    assert "PATIENT DATA" not in str(held)
    assert await retry_routing(engine) == 0
    assert await retry_routing(engine) == 1
    assert await find_holds(engine.ledger) == []


async def test_a_plugin_that_fails_to_coerce_stops_its_instance(
    engine: Engine, dataset: tuple[bytes, str], tmp_path: Path
) -> None:
    """The courier's session goes on: the next instance leaves when the plugin answers."""
    faults = [ValueError("PATIENT DATA")]

    def rso_coerce(header: Any, destination: Any) -> None:
        if faults:
            raise faults.pop()

    module = ModuleType("broken_coercer")
    module.rso_coerce = hookimpl(rso_coerce)  # type: ignore[attr-defined]
    engine.plugins.register(module, "broken_coercer")
    exam = await create_exam(engine, facility="NORTH", patient=Patient(name="X"), actor="t")
    file = tmp_path / "dataset"
    file.write_bytes(dataset[0])
    parcels = [
        Parcel(
            item=item, delivery="", instance="", attempts=0, priority=0, sop_class_uid="1.2",
            sop_instance_uid="1.2", transfer_syntax_uid=dataset[1], path=file, offset=0,
            size=len(dataset[0]), exam=exam, correct=False,
        )
        for item in ("first", "second")
    ]  # fmt: skip
    answers: list[tuple[str, Any]] = []
    destination = Destination(
        code="D", radiologist="BOTH", sender="dicom_scu", egress="passthrough"
    )
    sessions = SessionThreads(
        Taker(), Preparer(engine, destination), lambda p, result: answers.append((p.item, result))
    )
    sessions.put(parcels)
    for _ in range(200):
        if len(answers) == 2:
            break
        await asyncio.sleep(0.02)
    sessions.close()
    (first, stopped), (second, taken) = answers
    assert (first, stopped.outcome, stopped.reason) == (
        "first", Outcome.STOPPED, "plugin broken_coercer: rso_coerce failed: ValueError",
    )  # fmt: skip
    assert (second, taken.outcome) == ("second", Outcome.ACKNOWLEDGED)


class Taker(Sender):
    """Takes everything."""

    name = "taker"
    parallel = 1

    def __init__(self) -> None:
        super().__init__(None, None)

    def open(self, wanted: Any) -> "Taker":  # type: ignore[override]
        """Itself."""
        return self

    def send(self, instance: Any) -> SendResult:
        """Acknowledge."""
        return SendResult(outcome=Outcome.ACKNOWLEDGED, code="0000")

    def check(self) -> Health:
        """Well."""
        return Health(ok=True)


async def test_numbers_that_are_all_taken_end(engine: Engine) -> None:
    """A plugin that makes one number for ever does not hang whoever asks."""
    module = ModuleType("stuck")
    module.rso_make_exam_number = hookimpl(lambda: "AAAA0000")  # type: ignore[attr-defined]
    engine.plugins.register(module, "stuck")
    await create_exam(engine, facility="NORTH", patient=Patient(name="X"), actor="t")
    with pytest.raises(ExamError, match="no free exam number"):
        await create_exam(engine, facility="NORTH", patient=Patient(name="X"), actor="t")
