"""Documents of an exam: added, handed out as downloads, taken away."""

from typing import Any
from urllib.parse import quote

from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import File, Redirect, Template

from rso.core.errors import NoSpaceError, RefusedError
from rso.core.exam import Exam
from rso.engine.documents import (
    MOST_BYTES,
    MOST_DOCUMENTS,
    add_document,
    check_document,
    check_room,
    document_of,
    document_path,
    remove_document,
)
from rso.engine.exams import find_exam, note_exam
from rso.web.auth import checked_form, engine_of, signed_in
from rso.web.exam_page import show_exam
from rso.web.seen import LOOKERS

__all__ = ["HANDLERS", "MOST_BODY", "add_documents", "chosen_documents", "hand_out"]

Ask = Request[Any, Any, Any]
MOST_BODY = 3 * MOST_BYTES + (1 << 20)
Chosen = list[tuple[str, bytes]]


async def chosen_documents(request: Ask) -> Chosen:
    """The files of a form, each checked.

    Raises:
        RefusedError: One is no document, or too large, and its name is said; or they are more
            than any exam has.
    """
    found = []
    for file in (await request.form()).getall("documents", []):
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        data = await file.read(MOST_BYTES + 1)
        try:
            check_document(data)
        except RefusedError as exc:
            raise RefusedError(f"{file.filename[:80]}: {exc}") from None
        found.append((file.filename, data))
    if len(found) > MOST_DOCUMENTS:
        raise RefusedError(f"an exam has at most {MOST_DOCUMENTS} documents")
    return found


async def add_documents(request: Ask, exam: Exam, chosen: Chosen, actor: str) -> None:
    """Keep them all with the exam.

    Raises:
        RefusedError: The exam would have too many, and none was kept.
    """
    engine = engine_of(request)
    await check_room(engine.ledger, exam, len(chosen))
    for name, data in chosen:
        await add_document(engine, exam, name, data, actor=actor)


async def hand_out(request: Ask, exam: Exam, document: str, actor: str) -> File:
    """A document as a download, noted in the audit: nothing in it runs on this site.

    Raises:
        NotFoundException: The exam has no such document.
    """
    engine = engine_of(request)
    row = await document_of(engine.ledger, exam, document)
    path = document_path(engine, str(row["id"])) if row else None
    if row is None or path is None or not path.exists():
        raise NotFoundException("no such document")
    await note_exam(engine.ledger, exam, actor, "document downloaded", document=str(row["id"]))
    disposition = f"attachment; filename*=UTF-8''{quote(row['name'], safe='')}"
    return File(
        path=path,
        media_type=row["media_type"],
        headers={
            "Content-Disposition": disposition,
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "Cache-Control": "no-store",
        },
    )


@post("/exams/{number:str}/documents", status_code=303, request_max_body_size=MOST_BODY)
async def upload_documents(request: Ask, number: FromPath[str]) -> Redirect | Template:
    """Add documents to an exam; the page says which were not taken, and why."""
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    await checked_form(request)
    problems = list[str]()
    for file in (await request.form()).getall("documents", []):
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        data = await file.read(MOST_BYTES + 1)
        try:
            await add_document(engine, exam, file.filename, data, actor=me.person.email)
        except (RefusedError, NoSpaceError) as exc:
            problems.append(f"{file.filename[:80]}: {exc}.")
    if problems:
        return await show_exam(request, me, exam, status=422, refused=problems[:MOST_DOCUMENTS])
    return Redirect(f"/exams/{exam.number}", status_code=303)


@get("/exams/{number:str}/documents/{document:str}")
async def download_document(
    request: Ask, number: FromPath[str], document: FromPath[str]
) -> Response[Any]:
    """A document as a download."""
    me = await signed_in(request)
    me.require(*LOOKERS)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    return await hand_out(request, exam, document, me.person.email)


@post("/exams/{number:str}/documents/{document:str}/remove", status_code=303)
async def take_away(request: Ask, number: FromPath[str], document: FromPath[str]) -> Redirect:
    """Take a document away."""
    me = await signed_in(request)
    me.require("technician", "coordinator")
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    await checked_form(request)
    if not await remove_document(engine, exam, document, actor=me.person.email):
        raise NotFoundException("no such document")
    return Redirect(f"/exams/{exam.number}", status_code=303)


HANDLERS = [upload_documents, download_document, take_away]
