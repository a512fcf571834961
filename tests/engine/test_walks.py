"""Walks at random: images come, people decide, and nothing is lost or sent against a decision."""

import json
from datetime import datetime
from random import Random
from typing import Any

from msgspec import structs

from rso.core.errors import ExamError, MatchingError
from rso.core.exam import Patient
from rso.engine.archive import instance_digest
from rso.engine.context import Engine
from rso.engine.exams import close_exam, create_exam
from rso.engine.holds import recall_hold, reject_hold, release_hold
from rso.engine.intake import take_records
from rso.ledger.rejected import LATE
from tests.engine.conftest import Clinic, arrived

_WALKS, _STEPS, _IMAGES = 80, 16, 2

Content = tuple[str, str]
"""An instance, whatever its key: SOP Instance UID and digest."""


class Walk:
    """Two Studies of an exam of its own, and what people said of its contents."""

    def __init__(self, clinic: Clinic, number: int) -> None:
        self.clinic, self.ledger, self.number = clinic, clinic.ledger, number
        self.random = Random(number)
        self.uid = f"1.2.840.{number}"
        jane = structs.replace(
            clinic.exam.patient, patient_id=clinic.exam.number, name=f"DOE^JANE{number}"
        )
        stray = structs.replace(jane, patient_id=f"P{number}")
        mary = structs.replace(jane, name=f"ROE^MARY{number}")
        bound = {"exam_number": clinic.exam.number}
        ways = [(jane, {}), (stray, {}), (stray, bound), (mary, {})]
        # The fewer there are of each, the more often the same comes again.
        self.ways = self.random.sample(ways, self.random.randint(1, 3))
        self.texts, self.studies = self.random.choice(["-", "-x"]), self.random.choice(["1", "112"])
        self.last: list[Any] = []
        self.rejected: set[Content] = set()
        self.story: list[str] = []

    async def rows(self, more: str = "") -> list[dict[str, Any]]:
        """Their instances, with how they stand."""
        return await self.ledger.fetch(
            "SELECT i.id, i.sop_instance_uid, i.digest, i.study, i.conflict, i.received_at, s.state,"
            " s.exam, e.status, (SELECT count(*) FROM delivery_item d JOIN delivery v"
            " ON v.id = d.delivery WHERE d.instance = i.id AND d.state = 'acknowledged'"
            " AND v.exam = s.exam) AS sent, (SELECT count(*) FROM delivery_item d"
            " WHERE d.instance = i.id AND d.state <> 'cancelled') AS queued,"
            " (SELECT count(*) FROM hold h WHERE h.instance = i.id AND h.state = 'rejected')"
            " AS decided FROM instance i JOIN study s ON s.id = i.study"
            f" LEFT JOIN exam e ON e.id = s.exam WHERE s.study_instance_uid LIKE ? {more}"
            " ORDER BY i.id",
            f"{self.uid}.%",
        )

    async def holds(self, *states: str) -> list[dict[str, Any]]:
        """Those of the Studies, the oldest first."""
        return await self.ledger.fetch(
            "SELECT h.id, h.kind, h.reason, h.evidence, h.instance, h.study, s.exam FROM hold h"
            " JOIN study s ON s.id = h.study WHERE s.study_instance_uid LIKE ?"
            f" AND h.state IN ({','.join('?' * len(states))}) ORDER BY h.opened_at, h.id",
            f"{self.uid}.%",
            *states,
        )

    async def arrive(self) -> None:
        """Some images in one group, said to be of somebody, with either content."""
        patient, said = self.random.choice(self.ways)
        text, study = self.random.choice(self.texts), self.random.choice(self.studies)
        images = self.random.sample(range(1, _IMAGES + 1), self.random.randint(1, _IMAGES))
        self.last = [
            arrived(
                patient, image=image, text=text, study_instance_uid=f"{self.uid}.{study}",
                sop_instance_uid=f"{self.uid}.{study}.{image}", **said,
            )
            for image in images
        ]  # fmt: skip
        self.story.append(f"{study} {images} {patient.patient_id} {patient.name} {text} {said}")
        await take_records(self.clinic.engine, self.last)
        self.rejected -= {
            (r.header.sop_instance_uid, instance_digest(r.header.transfer_syntax_uid, r.part10))
            for r in self.last
        }

    async def replay(self) -> None:
        """The last group is read once more, of what became a row of it."""
        keys = {str(row["id"]) for row in await self.rows()}
        await take_records(self.clinic.engine, [r for r in self.last if r.record_id in keys])

    async def release(self) -> None:
        """A hold of a Study, if any is open."""
        for hold in self._one([h for h in await self.holds("open") if h["kind"] == "study"]):
            await self._release(hold)

    async def reject(self) -> None:
        """A hold, if any is open."""
        for hold in self._one(await self.holds("open")):
            await self._reject(hold)

    async def recall(self) -> None:
        """A release, if there was any."""
        for hold in self._one(await self.holds("released")):
            try:
                await recall_hold(self.clinic.engine, hold["id"], reason="r", actor="a")
            except MatchingError:
                continue

    async def close(self) -> None:
        """The exam, once it has fallen quiet."""
        await self.send()
        await self.settle()
        try:
            await close_exam(self.clinic.engine, self.clinic.exam, actor="a")
        except ExamError:
            return

    async def send(self) -> None:
        """What is due arrives: nothing that a person rejected."""
        before = await self._acknowledged()
        await self.clinic.send()
        new = {self._content(row) for key, row in (await self._acknowledged()).items()
               if key not in before}  # fmt: skip
        self.check(not new & self.rejected, "sent though rejected", new & self.rejected)

    async def settle(self) -> None:
        """The exam falls quiet."""
        await self.clinic.settle()

    async def step(self, name: str) -> None:
        """One of the above; no exam is delivered in part."""
        self.story.append(name)
        await getattr(self, name)()
        await self.whole()

    async def whole(self) -> None:
        """A delivered exam has all that is of it, and was not rejected."""
        short = [r for r in await self.rows("AND e.status = 'delivered' AND s.state = 'matched'")
                 if not r["conflict"] and not r["sent"] and self._content(r) not in self.rejected]  # fmt: skip
        self.check(not short, "delivered without", short)

    async def end(self) -> None:
        """Every hold is decided, and all is sent that may be."""
        for _ in range(9):
            for hold in await self.holds("open"):
                if await self.is_open(hold):
                    await (self._release if self.random.random() < 0.5 else self._reject)(hold)
                    await self.whole()
            await self.step("send")
            await self.step("settle")
            if not await self.holds("open"):
                break
        self.check(not await self.holds("open"), "still open", await self.holds("open"))
        lost = [r for r in await self.rows()
                if not r["sent"] and r["state"] != "rejected" and r["status"] != "cancelled"
                and self._content(r) not in self.rejected
                and not (r["conflict"] and r["decided"])]  # fmt: skip
        self.check(not lost, "neither sent nor rejected", lost)

    async def is_open(self, hold: dict[str, Any]) -> bool:
        """Whether no other decision has ended it."""
        return hold["id"] in {h["id"] for h in await self.holds("open")}

    async def _release(self, hold: dict[str, Any]) -> None:
        self.story.append(f"release {hold['kind']} {hold['reason']}")
        for person in "ab":
            try:
                if await release_hold(self.clinic.engine, hold["id"], self.clinic.exam.number,
                                      reason="r", actor=person):  # fmt: skip
                    return
            except MatchingError:
                await self._reject(hold)
                return

    async def _reject(self, hold: dict[str, Any]) -> None:
        self.story.append(f"reject {hold['kind']} {hold['reason']}")
        rows = await self.rows()
        if hold["kind"] == "instance":
            rows = [r for r in rows if r["id"] == hold["instance"]]
        elif hold["exam"] is None:
            rows = [r for r in rows if r["study"] == hold["study"]]
        else:  # late: what waits, since the first that was late
            self.check(hold["reason"] == LATE, "an unknown question", hold)
            since = datetime.fromisoformat(json.loads(hold["evidence"])["since"])
            rows = [r for r in rows if r["study"] == hold["study"] and not r["conflict"]
                    and not r["queued"] and r["received_at"] >= since]  # fmt: skip
        await reject_hold(self.clinic.engine, hold["id"], reason="r", actor="a")
        self.rejected |= {self._content(r) for r in rows}

    async def _acknowledged(self) -> dict[Any, dict[str, Any]]:
        """Whatever was acknowledged of the Studies, each time anew."""
        rows = await self.ledger.fetch(
            "SELECT d.id, d.acknowledged_at, i.sop_instance_uid, i.digest FROM delivery_item d"
            " JOIN instance i ON i.id = d.instance JOIN study s ON s.id = i.study"
            " WHERE s.study_instance_uid LIKE ? AND d.state = 'acknowledged'",
            f"{self.uid}.%",
        )
        return {(row["id"], row["acknowledged_at"]): row for row in rows}

    def _one(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.random.sample(found, min(1, len(found)))

    @staticmethod
    def _content(row: dict[str, Any]) -> Content:
        return row["sop_instance_uid"], row["digest"]

    def check(self, held: bool, what: str, rows: Any) -> None:
        """With what happened until then."""
        said = "\n".join(self.story)
        assert held, f"walk {self.number}: {what}\n{rows}\n{said}"


STEPS = (
    ["arrive"] * 5 + ["reject"] * 4 + ["release", "send"] * 3 + ["recall"] * 2 + ["replay", "close"]
)


async def test_nothing_is_lost_nor_sent_against_a_decision(engine: Engine) -> None:
    """What a person rejected is not sent, all else is, and no exam is delivered without it."""
    for number in range(_WALKS):
        patient = Patient(name=f"DOE^JANE{number}", birth_date=f"19{number:02}0131")
        exam = await create_exam(engine, facility="NORTH", patient=patient, actor="t")
        walk = Walk(Clinic(engine, exam), number)
        for _ in range(_STEPS):
            await walk.step(walk.random.choice(STEPS))
        await walk.end()
