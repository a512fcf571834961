"""The page of the request form: what is typed, and the documents that are kept with it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from blake3 import blake3
from litestar import Request
from litestar.datastructures import UploadFile
from litestar.response import Template
from msgspec import Struct

from rso.core.errors import NoSpaceError, RefusedError
from rso.engine.documents import MOST_BYTES
from rso.engine.draft_documents import Form, draft_documents, keep_document
from rso.engine.notify import naming_channels, reachable_at
from rso.engine.requests import FIELDS, MOST, SIDES
from rso.ledger import new_id
from rso.ledger.drafts import DRAFT_DAYS, save_draft
from rso.ledger.lists import facilities_of
from rso.web.auth import Identity, engine_of
from rso.web.page import page

__all__ = ["WRITERS", "Given", "form_of", "keep_all", "keep_typed", "show_form"]

Ask = Request[Any, Any, Any]
WRITERS = ("customer", "technician", "coordinator")
_OWN = ("family", "given", "middle", "birth_date", "sex", "patient_id", "unknown", "facility",
        "modality", "body_part", "accession_number", "priority", "note")  # fmt: skip
_DRAFTED = frozenset({*_OWN, *(field.name for field in FIELDS)})
_MOST_SAID = 20  # refused documents that are named
_UNNAMED = "A document is not kept any more; please choose it again."


class Given(Struct, frozen=True, kw_only=True):
    """The documents of a form as it was sent.

    Attributes:
        listed: Keys of those that the page showed, and that are kept.
        chosen: Keys of those that came with it, and are kept now.
        digest: Of everything that makes the request: the same again is the same request.
        problems: A sentence for each that is not kept, its name in it.
    """

    listed: list[str]
    chosen: list[str]
    digest: str
    problems: list[str]


def form_of(me: Identity, form: Mapping[str, str]) -> Form:
    """Which form it is; one that does not say gets a key of its own."""
    try:
        key = str(UUID(form.get("draft", "")))
    except ValueError:
        key = new_id()
    return Form(account=me.person.email, key=key)


def _is_typed(name: str) -> bool:
    """Whether a field is what somebody typed or ticked: of the request, or who is to be told."""
    return name in _DRAFTED or name.startswith("notify:")


async def keep_typed(request: Ask, of: Form, form: Mapping[str, str], facility: str) -> bool:
    """Keep what is typed, as of this facility; False when it is too long, or there is none."""
    typed = {name: text for name, text in form.items() if _is_typed(name) and text}
    if not facility:
        return False
    typed["facility"] = facility
    return await save_draft(engine_of(request).ledger, of.account, typed, of.key)


async def keep_all(request: Ask, me: Identity, of: Form, form: Mapping[str, str]) -> Given:
    """Keep a form: what is typed, and each of the chosen documents that can be kept."""
    engine = engine_of(request)
    mine = [f["code"] for f in await facilities_of(engine.ledger, me.person.facilities)]
    facility = form.get("facility", "")
    kept = await keep_typed(request, of, form, facility if facility in mine else "".join(mine[:1]))
    there = {str(row["id"]) for row in await draft_documents(engine.ledger, of)}
    shown = {name[5:]: name_ for name, name_ in form.items() if name.startswith("kept:")}
    problems = [
        f"{name[:120]} is not kept any more; please choose it again." if name else _UNNAMED
        for key, name in shown.items()
        if key not in there and key != form.get("remove")
    ]
    chosen, digests = [], []
    for file in (await request.form()).getall("documents", []):
        if not isinstance(file, UploadFile) or not file.filename:
            continue
        try:
            if not kept:
                raise RefusedError("what is typed is too long to be kept with documents")
            # One at a time: no more than one of them is in memory.
            data = await file.read(MOST_BYTES + 1)
            key, digest = await keep_document(engine, of, file.filename, data)
        except (RefusedError, NoSpaceError) as exc:
            problems.append(f"{file.filename[:80]}: {exc}.")
        else:
            chosen.append(key)
            digests.append(digest)
    if len(problems) > _MOST_SAID:
        problems = [*problems[:_MOST_SAID], f"And {len(problems) - _MOST_SAID} more."]
    said = sorted(
        (name, text) for name, text in form.items() if _is_typed(name) or name.startswith("kept:")
    )
    content = msgspec.json.encode([said, sorted(digests)])
    return Given(
        listed=[key for key in shown if key in there],
        chosen=chosen,
        digest=blake3(content).hexdigest(),
        problems=problems,
    )


async def show_form(
    request: Ask,
    me: Identity,
    of: Form,
    form: Mapping[str, str],
    *,
    problems: Mapping[str, str | Sequence[str]] | None = None,
    **more: Any,
) -> Template:
    """The request form; with problems it is answered with 422."""
    engine = engine_of(request)
    facilities = await facilities_of(engine.ledger, me.person.facilities)
    people = await reachable_at(engine, [facility["code"] for facility in facilities])
    made = page(
        request, "new.html", me, facilities=facilities, form=form, problems=problems or {},
        reachable=people, naming=await naming_channels(engine), sides=SIDES, most=MOST,
        days=DRAFT_DAYS, key=of.key,
        kept=await draft_documents(engine.ledger, of), at_once=3 * MOST_BYTES >> 20, **more,
    )  # fmt: skip
    if problems or more.get("duplicates"):
        made.status_code = 422
    return made
