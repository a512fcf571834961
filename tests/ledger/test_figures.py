"""The figures of dashboard and metrics, the same on both engines."""

from datetime import timedelta
from typing import Any

from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.number import make_number
from rso.ledger import Ledger, new_id, tables
from rso.ledger.exams import insert_exam, now
from rso.ledger.figures import (
    add_received,
    count_overdue,
    delivered_since,
    destination_queues,
    outbox_states,
    per_hour,
    received_totals,
    sources_of,
)
from rso.ledger.site import load_site

AT = now().replace(minute=30, second=0, microsecond=0)
SITE: dict[str, Any] = {
    "facility": [
        {"code": "NORTH", "radiologists": [{"code": "R"}], "sources": [
            {"channel": "dicom_scp", "identity": "CT", "kind": "technician",
             "networks": ["10.0.0.0/8"]}]},
        {"code": "SOUTH", "radiologists": [{"code": "S"}]},
    ],
    "radiologist": [
        {"code": c, "destinations": [{"code": f"{c}-PACS", "sender": "dicom_scu", "options": {}}]}
        for c in "RS"
    ],
}  # fmt: skip


async def exam(ledger: Ledger, facility: str, *, due: int, done: int | None = None) -> None:
    """An exam that is due, and perhaps was delivered, so many minutes from AT."""
    made = Exam(
        id=new_id(), number=make_number(), facility=facility, origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED if done is None else ExamStatus.DELIVERED,
        patient=Patient(name="DOE^JANE"), created_at=AT - timedelta(hours=3),
        priority=Priority.STAT,
    )  # fmt: skip
    await insert_exam(ledger, made, due_at=AT + timedelta(minutes=due))
    if done is not None:
        await ledger.execute(
            "UPDATE exam SET delivered_at = ? WHERE id = ?", AT + timedelta(minutes=done), made.id
        )


async def instances(ledger: Ledger, facility: str, minutes: int, count: int) -> None:
    """Instances that came so many minutes before AT."""
    words = dict.fromkeys(("sop_class_uid", "series_instance_uid", "transfer_syntax_uid"), "1.2")
    await ledger.insert_rows(
        tables.Instance,
        [
            {"id": new_id(), "facility": facility, "study": new_id(), "sop_instance_uid": new_id(),
             **words, "digest": "", "size": 1, "batch": new_id(),
             "received_at": AT - timedelta(minutes=minutes)}
            for _ in range(count)
        ],
    )  # fmt: skip


async def test_per_hour(ledger: Ledger) -> None:
    """Each hour has what came in it, of one's facilities; what is older is left out."""
    for facility, minutes, count in (
        ("NORTH", 0, 3), ("NORTH", 31, 2), ("SOUTH", 31, 5), ("NORTH", 60 * 24, 9),
    ):  # fmt: skip
        await instances(ledger, facility, minutes, count)
    await exam(ledger, "NORTH", due=0, done=-45)
    rows = await per_hour(ledger, None, until=AT, hours=24)
    assert [r["received"] for r in rows] == [0] * 22 + [7, 3]
    assert [r["delivered"] for r in rows] == [0] * 22 + [1, 0]
    assert rows[-1]["at"] == AT.replace(minute=0)
    north = await per_hour(ledger, ["NORTH"], until=AT, hours=24)
    assert [r["received"] for r in north] == [0] * 22 + [2, 3]
    assert sum(r["received"] for r in await per_hour(ledger, [], until=AT, hours=48)) == 0


async def test_the_state_of_work(ledger: Ledger) -> None:
    """Overdue, delivered, queues and sources, each within one's facilities."""
    await load_site(ledger, SITE)
    await exam(ledger, "NORTH", due=-1)
    await exam(ledger, "SOUTH", due=-1)
    await exam(ledger, "SOUTH", due=5)
    await exam(ledger, "NORTH", due=0, done=-60)
    await exam(ledger, "NORTH", due=0, done=-60 * 30)
    assert await count_overdue(ledger, None, AT) == 2
    assert await count_overdue(ledger, ["NORTH"], AT) == 1
    assert await count_overdue(ledger, [], AT) == 0
    day = AT - timedelta(days=1)
    assert len(await delivered_since(ledger, ["NORTH"], day)) == 1
    assert await delivered_since(ledger, ["SOUTH"], day) == []
    assert [s["identity"] for s in await sources_of(ledger, None)] == ["CT"]
    assert await sources_of(ledger, ["SOUTH"]) == []
    await ledger.insert_rows(
        tables.DeliveryItem,
        [
            {"id": new_id(), "delivery": new_id(), "destination": "R-PACS", "instance": new_id(),
             "state": state, "next_at": AT}
            for state in ("pending", "pending", "stopped", "acknowledged")
        ],
    )  # fmt: skip
    queues = await destination_queues(ledger, None)
    assert [(q["code"], q["pending"], q["stopped"]) for q in queues] == [
        ("R-PACS", 2, 1), ("S-PACS", 0, 0),
    ]  # fmt: skip
    assert [q["code"] for q in await destination_queues(ledger, ["SOUTH"])] == ["S-PACS"]
    # These are of no exam of NORTH: the destination is its own, what waits there is not.
    assert [(q["code"], q["pending"]) for q in await destination_queues(ledger, ["NORTH"])] == [
        ("R-PACS", 0)
    ]
    assert await destination_queues(ledger, []) == []


async def test_totals(ledger: Ledger) -> None:
    """What came in adds up by channel; the outbox is counted by state."""
    await add_received(ledger, "ftp", 2, 100)
    await add_received(ledger, "dicom_scp", 1, 5)
    await add_received(ledger, "ftp", 3, 50)
    assert await received_totals(ledger) == [
        {"channel": "dicom_scp", "instances": 1, "bytes": 5},
        {"channel": "ftp", "instances": 5, "bytes": 150},
    ]
    await ledger.insert_rows(
        tables.Outbox,
        [
            {"id": new_id(), "kind": "hook", "event": "e", "dedupe": new_id(), "state": "done",
             "next_at": AT, "created_at": AT - timedelta(hours=hours)}
            for hours in (1, 2, 30)
        ],
    )  # fmt: skip
    assert await outbox_states(ledger, AT - timedelta(days=1)) == [
        {"kind": "hook", "state": "done", "n": 2}
    ]
