"""Notes on an exam, for those who sign in: all of them are kept."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from rso.core.errors import ConfigError
from rso.core.exam import Exam
from rso.engine.requests import MOST
from rso.ledger import Ledger, audit, new_id
from rso.ledger.exams import lock_exams, now
from rso.ledger.tables import ExamNote

__all__ = ["exam_notes", "keep_note"]

_ONE_PRESS = timedelta(seconds=30)


async def keep_note(ledger: Ledger, exam: Exam, actor: str, note: str) -> None:
    """Keep a note; an empty one is none, and the same again within half a minute is one.

    Raises:
        ConfigError: It is too long; nothing of it is kept.
    """
    if not (note := note.strip()):
        return
    if len(note) > MOST["note"]:
        raise ConfigError(f"a note has at most {MOST['note']} characters; here are {len(note)}")
    async with ledger.transaction():
        await lock_exams(ledger, [exam.id])  # two presses at once see one another
        at = now()
        last = await ledger.fetch(
            "SELECT account, note, at FROM exam_note WHERE exam = ? ORDER BY id DESC LIMIT 1",
            exam.id,
        )
        same = last and (last[0]["account"], last[0]["note"]) == (actor, note)
        if same and at - last[0]["at"] < _ONE_PRESS:
            return
        row = {"id": new_id(), "exam": exam.id, "account": actor[:254], "note": note, "at": at}
        await ledger.insert_rows(ExamNote, [row])
        await audit.append(
            ledger, actor=actor, action="note added", facility=exam.facility, exam=exam.number
        )


async def exam_notes(ledger: Ledger, exam: Exam) -> list[dict[str, Any]]:
    """What people wrote, the newest first: ``at``, ``by`` and ``note``."""
    rows = await ledger.fetch(
        "SELECT at, account, note FROM exam_note WHERE exam = ? ORDER BY id DESC", exam.id
    )
    notes = [{"at": row["at"], "by": row["account"], "note": row["note"]} for row in rows]
    # Those from before they had rows of their own.
    rows = await ledger.fetch("SELECT request FROM exam WHERE id = ?", exam.id)
    before: list[dict[str, str]] = msgspec.json.decode(rows[0]["request"] or "{}").get("notes", [])
    for said in reversed(before):
        notes.append({**said, "at": datetime.fromisoformat(said["at"])})
    return notes
