"""Who looks after an exam: claimed, given to somebody, let go. Always in the audit."""

from typing import Any

from rso.core.errors import OwnerError
from rso.core.exam import Exam
from rso.engine.context import Engine
from rso.engine.exams import note_exam
from rso.ledger import Ledger
from rso.ledger.exams import now
from rso.ledger.people import person_of

__all__ = ["assignable", "claim_exam", "give_exam", "owner_of", "release_exam"]

_OWNERS = ("technician", "coordinator", "admin")


async def owner_of(ledger: Ledger, exam: Exam) -> str:
    """The address of the person who looks after an exam; empty when nobody does."""
    rows = await ledger.fetch("SELECT owner FROM exam WHERE id = ?", exam.id)
    return str(rows[0]["owner"])


async def assignable(ledger: Ledger, facility: str) -> list[dict[str, Any]]:
    """Who may look after a facility's exams: address and name, in order."""
    rows = await ledger.fetch(
        "SELECT * FROM user_account WHERE NOT disabled AND role IN (?, ?, ?) ORDER BY email",
        *_OWNERS,
    )
    people = [person_of(row) for row in rows]
    return [
        {"email": person.email, "name": person.name or person.email}
        for person in people
        if person.facilities is None or facility in person.facilities
    ]


async def claim_exam(engine: Engine, exam: Exam, *, actor: str) -> None:
    """Look after an exam that nobody looks after; the first who asks has it.

    Raises:
        OwnerError: Somebody else has it.
    """
    async with engine.ledger.transaction():
        before = await owner_of(engine.ledger, exam)
        if before == actor:
            return
        if not await _change(engine, exam, "", actor):
            raise OwnerError(f"{await owner_of(engine.ledger, exam)} has claimed this exam already")
        await note_exam(engine.ledger, exam, actor, "exam claimed")


async def give_exam(engine: Engine, exam: Exam, to: str, *, actor: str) -> None:
    """Give an exam to somebody, whoever had it.

    Raises:
        OwnerError: The person cannot look after this facility's exams.
    """
    if to not in {person["email"] for person in await assignable(engine.ledger, exam.facility)}:
        raise OwnerError("this person cannot look after exams of this facility")
    async with engine.ledger.transaction():
        before = await owner_of(engine.ledger, exam)
        if await _change(engine, exam, before, to):
            await note_exam(engine.ledger, exam, actor, "exam assigned", to=to)


async def release_exam(engine: Engine, exam: Exam, *, actor: str, anybodys: bool = False) -> None:
    """Let an exam go; ``anybodys`` also takes it from somebody else.

    Raises:
        OwnerError: Somebody else has it.
    """
    async with engine.ledger.transaction():
        before = await owner_of(engine.ledger, exam)
        if not before:
            return
        if before != actor and not anybodys:
            raise OwnerError(f"{before} looks after this exam")
        await _change(engine, exam, before, "")
        await note_exam(engine.ledger, exam, actor, "exam released by its owner", owner=before)


async def _change(engine: Engine, exam: Exam, before: str, after: str) -> bool:
    return bool(
        await engine.ledger.execute(
            "UPDATE exam SET owner = ?, updated_at = ? WHERE id = ? AND owner = ?",
            after,
            now(),
            exam.id,
            before,
        )
    )
