"""Documents of an exam as JSON and files: list, add, hand out, take away."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from litestar import Request, delete, get, post
from litestar.exceptions import ClientException, NotFoundException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath
from litestar.response import File
from msgspec import Struct

from rso.core.exam import Exam
from rso.engine.documents import KINDS, documents_of, remove_document
from rso.engine.exams import find_exam
from rso.web.auth import Identity, engine_of, signed_in
from rso.web.documents import MOST_BODY, add_documents, chosen_documents, hand_out
from rso.web.seen import LOOKERS, exam_seen

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class DocumentView(Struct, frozen=True, kw_only=True):
    """A document of an exam, without its bytes.

    Attributes:
        name: As whoever added it called it.
        media_type: By its content.
        size: In bytes.
        digest: BLAKE3 of its bytes, hex.
    """

    id: str
    name: str
    media_type: str
    size: int
    digest: str
    created_by: str
    created_at: datetime


class Documents(Struct, frozen=True, kw_only=True):
    """An exam's documents, the first first."""

    documents: list[DocumentView]


@dataclass
class _Upload(Operation):
    """Describes the form of an upload: it is read from the request after the caller is known."""

    def __post_init__(self) -> None:
        file = Schema(type=OpenAPIType.STRING, content_media_type="application/octet-stream")
        form = Schema(
            type=OpenAPIType.OBJECT,
            properties={"documents": Schema(type=OpenAPIType.ARRAY, items=file, min_items=1)},
            required=["documents"],
        )
        self.request_body = RequestBody(
            content={"multipart/form-data": OpenAPIMediaType(schema=form)},
            description="PDF, PNG or JPEG files, at most 20 MB each and 61 MB together.",
            required=True,
        )


@dataclass
class _Download(Operation):
    """Describes the bytes of a download, each kind of document as its own media type."""

    def __post_init__(self) -> None:
        if self.responses and (found := self.responses.get("200")):
            binary = OpenAPIMediaType(schema=Schema())
            found.content = dict.fromkeys((kind for _, kind in KINDS), binary)  # type: ignore[union-attr]


async def _exam(request: Ask, number: str, *roles: str) -> tuple[Identity, Exam]:
    me = await signed_in(request)
    if roles:
        me.require(*roles)
    ledger = engine_of(request).ledger
    return me, await find_exam(ledger, number, facilities=me.person.facilities)


async def _views(request: Ask, exam: Exam) -> Documents:
    rows = await documents_of(engine_of(request).ledger, exam)
    names = [name for name in DocumentView.__struct_fields__ if name != "id"]
    return Documents(
        documents=[
            DocumentView(id=str(row["id"]), **{name: row[name] for name in names}) for row in rows
        ]
    )


@get("/api/exams/{number:str}/documents")
async def api_documents(request: Ask, number: FromPath[str]) -> Documents:
    """List the documents that came with a request."""
    me, exam = await _exam(request, number)
    await exam_seen(request, me, exam, "documents")
    return await _views(request, exam)


@post("/api/exams/{number:str}/documents", request_max_body_size=MOST_BODY, operation_class=_Upload)
async def api_add_documents(request: Ask, number: FromPath[str]) -> Documents:
    """Add documents: all that are sent, or none; answers with all of the exam's."""
    me, exam = await _exam(request, number, "customer", "technician", "coordinator")
    chosen = await chosen_documents(request)
    if not chosen:
        raise ClientException("send files as multipart/form-data, in the field documents")
    await add_documents(request, exam, chosen, me.person.email)
    return await _views(request, exam)


@get(
    "/api/exams/{number:str}/documents/{document:str}",
    operation_class=_Download,
    responses={200: ResponseSpec(data_container=bytes, description="The file as it was added.")},
)
async def api_document(request: Ask, number: FromPath[str], document: FromPath[str]) -> File:
    """Download a document; it stands in the audit."""
    me, exam = await _exam(request, number, *LOOKERS)
    return await hand_out(request, exam, document, me.person.email)


@delete("/api/exams/{number:str}/documents/{document:str}", status_code=204)
async def api_remove_document(request: Ask, number: FromPath[str], document: FromPath[str]) -> None:
    """Take a document away, such as another patient's."""
    me, exam = await _exam(request, number, "technician", "coordinator")
    if not await remove_document(engine_of(request), exam, document, actor=me.person.email):
        raise NotFoundException("no such document")


HANDLERS = [api_documents, api_add_documents, api_document, api_remove_document]
