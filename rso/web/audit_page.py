"""The audit: who did what, found by exam, person, action and time; never changed."""

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromQuery
from litestar.response import Stream, Template

from rso.ledger.audit_search import Wanted, audit_actions, audit_chunks, audit_entries
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page
from rso.web.typed import time_in, whole_number

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_PAGE = 100
_COLUMNS = ("id", "at", "actor", "action", "facility", "exam", "facts", "previous", "hash")


async def _reader(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require("auditor", "coordinator")
    return me


async def _show(request: Ask, me: Identity, form: dict[str, str]) -> Template:
    ledger = engine_of(request).ledger
    rows = await audit_entries(ledger, me.person.facilities, _wanted(form), limit=_PAGE + 1)
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


def _wanted(form: Mapping[str, str]) -> Wanted:
    """What a form asks for; its times are in UTC.

    Raises:
        ConfigError: A time is none.
    """
    return Wanted(
        exam=form.get("exam", "").replace("-", "").upper(),
        actor=form.get("actor", ""),
        action=form.get("action", ""),
        since=time_in(form.get("since", "")),
        until=time_in(form.get("until", "")),
        before=whole_number(form.get("before", "")),
    )


@get("/audit")
async def audit_page(request: Ask, exam: FromQuery[str] = "") -> Template:
    """The newest entries; of one exam, to which its own page leads."""
    form = {"exam": exam[:20]} if exam else {}
    return await _show(request, await _reader(request), form)


@post("/audit", status_code=200)
async def audit_search(request: Ask) -> Template:
    """Entries of an exam, a person, an action or a time."""
    me = await _reader(request)
    return await _show(request, me, await checked_form(request))


@get("/audit.csv")
async def audit_export(request: Ask) -> Stream:
    """Every entry with its hash, the newest first."""
    return _export(request, await _reader(request), Wanted())


@post("/audit.csv", status_code=200)
async def audit_export_found(request: Ask) -> Stream:
    """The same, filtered as the page is; posted, so that nothing typed stands in a URL."""
    me = await _reader(request)
    return _export(request, me, _wanted({**await checked_form(request), "before": ""}))


def _export(request: Ask, me: Identity, wanted: Wanted) -> Stream:
    chunks = audit_chunks(engine_of(request).ledger, me.person.facilities, wanted)
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    return Stream(_lines(chunks), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(chunks: AsyncIterator[Sequence[Mapping[str, Any]]]) -> AsyncIterator[str]:
    """The whole of it, a part at a time: however long, none of it is left out or kept here."""
    yield _csv([_COLUMNS])
    async for rows in chunks:
        # A spreadsheet takes a cell that begins like this for a formula.
        cells = [[str(row[name]) for name in _COLUMNS] for row in rows]
        yield _csv(
            [[f"'{v}" if v.startswith(("=", "+", "-", "@")) else v for v in line] for line in cells]
        )


def _csv(lines: Sequence[Sequence[str]]) -> str:
    made = io.StringIO()
    csv.writer(made).writerows(lines)
    return made.getvalue()


HANDLERS = [audit_page, audit_search, audit_export, audit_export_found]
