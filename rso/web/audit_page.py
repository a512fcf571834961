"""The audit: who did what, found by exam, person and action; never changed."""

import csv
import io
from collections.abc import Mapping
from typing import Any, TypedDict
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Template

from rso.core.number import looks_like_number
from rso.ledger.lists import audit_actions, audit_entries
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_PAGE = 100
_MOST_EXPORTED = 100_000


class _Filter(TypedDict):
    exam: str
    actor: str
    action: str


async def _reader(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require("auditor", "coordinator")
    return me


async def _show(request: Ask, me: Identity, form: dict[str, str]) -> Template:
    ledger = engine_of(request).ledger
    before = form.get("before", "")
    rows = await audit_entries(
        ledger,
        me.person.facilities,
        **_filter(form),
        before=int(before) if before.isdecimal() else None,
        limit=_PAGE + 1,
    )
    shown = [{**row, "facts": msgspec.json.decode(row["facts"])} for row in rows[:_PAGE]]
    actions = await audit_actions(ledger)
    return page(
        request,
        "audit.html",
        me,
        rows=shown,
        more=len(rows) > _PAGE,
        form=form,
        actions=actions,
        export=_export_query(form),
    )


def _filter(form: Mapping[str, str]) -> _Filter:
    return {
        "exam": form.get("exam", "").replace("-", "").upper(),
        "actor": form.get("actor", ""),
        "action": form.get("action", ""),
    }


def _export_query(form: Mapping[str, str]) -> str:
    """The filter as the export's address carries it; only a number of an exam stands there."""
    wanted = _filter(form)
    exam = wanted["exam"] if looks_like_number(wanted["exam"]) else ""
    asked = {**wanted, "exam": exam}
    return urlencode({name: value for name, value in asked.items() if value})


@get("/audit")
async def audit_page(request: Ask) -> Template:
    """The newest entries."""
    return await _show(request, await _reader(request), {})


@post("/audit", status_code=200)
async def audit_search(request: Ask) -> Template:
    """Entries of an exam, a person or an action."""
    me = await _reader(request)
    return await _show(request, me, await checked_form(request))


@get("/audit.csv")
async def audit_export(request: Ask) -> Response[str]:
    """The newest hundred thousand entries with their hashes; filtered as the page is."""
    me = await _reader(request)
    rows = await audit_entries(
        engine_of(request).ledger,
        me.person.facilities,
        **_filter(request.query_params),
        limit=_MOST_EXPORTED,
    )
    made = io.StringIO()
    names = ["id", "at", "actor", "action", "facility", "exam", "facts", "previous", "hash"]
    writer = csv.writer(made)
    writer.writerow(names)
    for row in rows:
        # A spreadsheet takes a cell that begins like this for a formula.
        values = [str(row[name]) for name in names]
        writer.writerow([f"'{v}" if v.startswith(("=", "+", "-", "@")) else v for v in values])
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return Response(made.getvalue(), media_type="text/csv", headers=headers)


HANDLERS = [audit_page, audit_search, audit_export]
