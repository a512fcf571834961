"""The upload page of an exam, and its scripts."""

from pathlib import Path
from typing import Any

from litestar import Request, get
from litestar.params import FromPath
from litestar.response import Template
from litestar.static_files import create_static_files_router

from rso.core.number import format_number
from rso.engine.exams import find_exam
from rso.web.auth import engine_of, signed_in
from rso.web.page import page
from rso.web.seen import exam_seen

__all__ = ["HANDLERS"]

_HERE = Path(__file__).parent
_PAGE = (_HERE / "upload.html").read_text("utf-8")


@get("/exams/{number:str}/upload")
async def upload_page(request: Request[Any, Any, Any], number: FromPath[str]) -> Template:
    """Choose or drop files, see whose they are, send them to the exam."""
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "upload")
    return page(
        request,
        "",
        me,
        template_str=_PAGE,
        exam=exam,
        shown=format_number(exam.number),
        born=str(exam.patient.birth_date or "").replace("-", ""),
    )


HANDLERS = [
    upload_page,
    create_static_files_router(
        path="/upload-static", directories=[_HERE / "static"], include_in_schema=False
    ),
]
