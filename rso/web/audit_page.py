"""The audit: who did what, found by exam, person and action; never changed."""

import csv
import io
from collections.abc import Mapping
from typing import Any, TypedDict

import msgspec
from litestar import Request, Response, get, post
from litestar.response import Template

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
    )


def _filter(form: Mapping[str, str]) -> _Filter:
    return {
        "exam": form.get("exam", "").replace("-", "").upper(),
        "actor": form.get("actor", ""),
        "action": form.get("action", ""),
    }


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
    """The newest hundred thousand entries with their hashes."""
    return await _export(request, await _reader(request), {})


@post("/audit.csv", status_code=200)
async def audit_export_found(request: Ask) -> Response[str]:
    """The same, filtered as the page is; posted, so that nothing typed stands in a URL."""
    me = await _reader(request)
    return await _export(request, me, await checked_form(request))


async def _export(request: Ask, me: Identity, form: Mapping[str, str]) -> Response[str]:
    rows = await audit_entries(
        engine_of(request).ledger, me.person.facilities, **_filter(form), limit=_MOST_EXPORTED
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


HANDLERS = [audit_page, audit_search, audit_export, audit_export_found]
