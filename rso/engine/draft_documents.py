"""Documents that are chosen for a request before it is sent.

They are a person's own, kept with one form of theirs, and become the exam's in the transaction that
makes it: the rows move, the files stay where they are.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from blake3 import blake3
from msgspec import Struct

from rso.core.errors import RefusedError
from rso.core.exam import Exam
from rso.engine.context import Engine
from rso.engine.documents import (
    MOST_DOCUMENTS,
    check_document,
    document_path,
    shown_name,
    write_document,
)
from rso.engine.exams import create_exam, note_exam
from rso.engine.requests import UNKNOWN_PATIENT, Asked
from rso.ledger import Ledger, new_id, tables
from rso.ledger.drafts import DRAFT_DAYS, drop_draft, forget_drafts
from rso.ledger.exams import exam_by_id, now

__all__ = [
    "MOST_DRAFTS",
    "Form",
    "draft_documents",
    "drop_documents",
    "drop_form",
    "keep_document",
    "send_request",
    "sent_exam",
    "sweep_drafts",
]

MOST_DRAFTS = 3  # forms of one person that have documents


class Form(Struct, frozen=True, kw_only=True):
    """One form of one person, not sent yet; another's is never found by its key.

    Attributes:
        key: A UUID that the page has made up.
    """

    account: str
    key: str


class _SentError(Exception):
    """The same form was sent already."""


async def draft_documents(ledger: Ledger, form: Form) -> list[dict[str, Any]]:
    """The documents that are kept with a form, the first first."""
    return await ledger.fetch(
        "SELECT * FROM draft_document WHERE account = ? AND draft = ? AND kept_until > ?"
        " ORDER BY id",
        form.account,
        form.key,
        now(),
    )


async def keep_document(engine: Engine, form: Form, name: str, data: bytes) -> tuple[str, str]:
    """Keep a document with a form; one that is there already is not kept twice.

    The person's oldest other form loses its documents where more than ``MOST_DRAFTS`` have some.

    Returns:
        Its key, and the BLAKE3 of its bytes as hex.

    Raises:
        RefusedError: Its kind, its size, or one too many.
        NoSpaceError: The volume is full.
    """
    media_type = check_document(data)
    key, name, at = new_id(), shown_name(name), now()
    digest = blake3(data).hexdigest()
    # The file first: a row always has its bytes, and a file without a row is swept.
    await write_document(engine, key, data)
    gone: list[str] = []
    try:
        async with engine.ledger.transaction():
            # The limits are counted, not guessed.
            await _one_at_a_time(engine.ledger, form)
            mine = await draft_documents(engine.ledger, form)
            same = [row for row in mine if (row["digest"], row["name"]) == (digest, name)]
            if not same:
                if len(mine) >= MOST_DOCUMENTS:
                    raise RefusedError(f"an exam has at most {MOST_DOCUMENTS} documents")
                gone = await _make_room(engine.ledger, form)
                await engine.ledger.insert_rows(tables.DraftDocument, [{
                    "id": key, "account": form.account, "draft": form.key, "name": name,
                    "media_type": media_type, "size": len(data), "digest": digest,
                    "created_at": at, "kept_until": at + timedelta(days=DRAFT_DAYS),
                }])  # fmt: skip
    except RefusedError:
        await _unlink(engine, [key])
        raise
    await _unlink(engine, [key] if same else gone)
    return str(same[0]["id"]) if same else key, digest


async def _one_at_a_time(ledger: Ledger, form: Form) -> None:
    """Until the transaction ends, no other has this person's forms; first of all its locks."""
    await ledger.execute(
        "UPDATE request_draft SET account = account WHERE account = ?", form.account
    )


async def _make_room(ledger: Ledger, form: Form) -> list[str]:
    """Take the documents of the person's oldest other forms away; returns their keys."""
    rows = await ledger.fetch(
        "SELECT draft FROM draft_document WHERE account = ? AND draft <> ?"
        " GROUP BY draft ORDER BY MAX(kept_until) DESC",
        form.account,
        form.key,
    )
    gone: list[str] = []
    for row in rows[MOST_DRAFTS - 1 :]:
        gone += await _let_go(ledger, Form(account=form.account, key=str(row["draft"])))
    return gone


async def _let_go(ledger: Ledger, form: Form, documents: Sequence[str] | None = None) -> list[str]:
    only = "" if documents is None else f" AND id IN ({_marks(documents)})"
    async with ledger.transaction():
        rows = await ledger.fetch(
            f"DELETE FROM draft_document WHERE account = ? AND draft = ?{only} RETURNING id",  # noqa: S608
            form.account,
            form.key,
            *(documents or ()),
        )
    return [str(row["id"]) for row in rows]


async def drop_documents(engine: Engine, form: Form, documents: Sequence[str]) -> int:
    """Throw away some of a form's documents; returns how many it had."""
    gone = await _let_go(engine.ledger, form, documents) if documents else []
    await _unlink(engine, gone)
    return len(gone)


async def drop_form(engine: Engine, form: Form) -> None:
    """Forget a form: what was typed, and its documents."""
    async with engine.ledger.transaction():
        await drop_draft(engine.ledger, form.account, form.key)
        gone = await _let_go(engine.ledger, form)
    await _unlink(engine, gone)


async def sent_exam(ledger: Ledger, form: Form, digest: str) -> Exam | None:
    """The exam that this form has made, where it was sent with the same content."""
    rows = await ledger.fetch(
        "SELECT exam FROM request_sent WHERE account = ? AND draft = ? AND digest = ?",
        form.account,
        form.key,
        digest,
    )
    return await exam_by_id(ledger, str(rows[0]["exam"])) if rows else None


async def send_request(
    engine: Engine,
    form: Form,
    documents: Sequence[str],
    *,
    digest: str,
    facility: str,
    asked: Asked,
) -> tuple[Exam, bool]:
    """Make the exam of a form, with its documents, and forget the draft: all or nothing.

    Args:
        engine: Open.
        form: Whose, and which.
        documents: Keys of what is kept with the form; what is not named stays there.
        digest: Of the content: the same form with the same content makes one exam.
        facility: Its code.
        asked: As it was typed, without problems.

    Returns:
        The exam, and whether it was made now.

    Raises:
        RefusedError: A document is not kept any more.
        ExamError: The facility is unknown.
    """
    ledger = engine.ledger
    try:
        async with ledger.transaction():
            await _one_at_a_time(ledger, form)
            exam = await create_exam(
                engine,
                facility=facility,
                patient=asked.patient,
                priority=asked.priority,
                modality=asked.modality,
                body_part=asked.body_part,
                accession_number=asked.accession_number,
                request={name: text for name, text in asked.request.items() if text},
                flags=(UNKNOWN_PATIENT,) if asked.unknown else (),
                actor=form.account,
            )
            sent = {"id": new_id(), "account": form.account, "draft": form.key, "digest": digest,
                    "exam": exam.id, "sent_at": now()}  # fmt: skip
            if not await ledger.insert_rows(tables.RequestSent, [sent], on_conflict="nothing"):
                raise _SentError
            await _attach(ledger, form, exam, documents)
            await drop_draft(ledger, form.account, form.key)
    except _SentError:
        # What the second one has kept meanwhile is of a request that is made.
        await drop_draft(ledger, form.account, form.key)
        await drop_documents(engine, form, documents)
        found = await sent_exam(ledger, form, digest)
        assert found is not None
        return found, False
    return exam, True


async def _attach(ledger: Ledger, form: Form, exam: Exam, documents: Sequence[str]) -> None:
    if not documents:
        return
    # Deleted first: of two who want the same rows, one gets them.
    rows = await ledger.fetch(
        f"DELETE FROM draft_document WHERE account = ? AND draft = ?"  # noqa: S608
        f" AND id IN ({_marks(documents)}) RETURNING id, name, media_type, size, digest",
        form.account,
        form.key,
        *documents,
    )
    if len(rows) < len(set(documents)):
        raise RefusedError("a document is not kept any more; please choose it again")
    about = {"exam": exam.id, "created_by": form.account, "created_at": now(), "removed_at": None}
    await ledger.insert_rows(tables.ExamDocument, [row | about for row in rows])
    for row in rows:
        await note_exam(ledger, exam, form.account, "document added", document=str(row["id"]))


async def sweep_drafts(engine: Engine) -> int:
    """Forget old drafts with their documents, of everybody; returns how many files went."""
    async with engine.ledger.transaction():
        await forget_drafts(engine.ledger)
        rows = await engine.ledger.fetch(
            "DELETE FROM draft_document WHERE kept_until < ? RETURNING id", now()
        )
    await _unlink(engine, [str(row["id"]) for row in rows])
    return len(rows)


async def _unlink(engine: Engine, keys: Iterable[str]) -> None:
    paths = [document_path(engine, key) for key in keys]

    def remove() -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    if paths:
        await asyncio.to_thread(remove)


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))
