"""STOW-RS (PS3.18 10.5) and uploads bound to an exam."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import multipart
from litestar import Request, Response, post
from litestar.exceptions import HTTPException, PermissionDeniedException
from msgspec import Struct

from rso.engine.exams import complete_exam, find_exam
from rso.plugins import Batch, Kind, Provenance
from rso.web.auth import Identity, engine_of, signed_in
from rso_http_upload.part import Part, Result

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody is about to send to an exam.

    Attributes:
        instances: SOP Instance UIDs.
        complete: The exam has no others: it is complete once all are here.
    """

    instances: list[str]
    complete: bool = False


class Kept(Struct, frozen=True, kw_only=True):
    """Which of them are safely stored already."""

    kept: list[str]
    total: int


def _provenance(request: Ask, me: Identity, facility: str, exam_number: str = "") -> Provenance:
    return Provenance(
        channel="http_upload",
        facility=facility,
        source=me.person.email,
        kind=Kind.TECHNICIAN,
        peer_address=request.client.host if request.client else "",
        opened_at=datetime.now(UTC),
        exam_number=exam_number,
        user=me.person.email,
    )


async def _uploader(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require("customer", "technician", "coordinator")
    return me


@post("/dicomweb/studies", status_code=200)
async def store(request: Ask, facility: str = "") -> Response[dict[str, Any]]:
    """Store instances of any Study (STOW-RS)."""
    return await _store_for(request, facility, "")


@post("/dicomweb/studies/{study:str}", status_code=200)
async def store_study(request: Ask, study: str, facility: str = "") -> Response[dict[str, Any]]:
    """Store instances of one Study (STOW-RS)."""
    return await _store_for(request, facility, study)


async def _store_for(request: Ask, facility: str, study: str) -> Response[dict[str, Any]]:
    me = await _uploader(request)
    own = me.person.facilities
    if not facility and own is not None and len(own) == 1:
        facility = own[0]
    if not facility:
        raise HTTPException("say for which facility: ?facility=CODE", status_code=400)
    if own is not None and facility not in own:
        raise PermissionDeniedException("not your facility")
    if not await engine_of(request).ledger.fetch(
        "SELECT code FROM facility WHERE code = ?", facility
    ):
        raise HTTPException("no facility has this code", status_code=404)
    return await _receive(request, _provenance(request, me, facility), study)


@post("/api/exams/{number:str}/studies", status_code=200)
async def store_exam(request: Ask, number: str) -> Response[dict[str, Any]]:
    """Store instances that belong to an exam, whatever their Patient ID says (STOW-RS)."""
    me = await _uploader(request)
    exam = await find_exam(engine_of(request).ledger, number, facilities=me.person.facilities)
    return await _receive(request, _provenance(request, me, exam.facility, exam.number), "")


@post("/api/exams/{number:str}/uploads", status_code=200)
async def manifest(request: Ask, number: str, data: Manifest) -> Kept:
    """Say what will be sent; the answer is what need not be."""
    me = await _uploader(request)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    rows = await engine.ledger.fetch(
        "SELECT DISTINCT i.sop_instance_uid FROM instance i JOIN study s ON s.id = i.study"
        " WHERE i.facility = ? AND (s.exam = ? OR s.exam_number = ?)",
        exam.facility,
        exam.id,
        exam.number,
    )
    have = {row["sop_instance_uid"] for row in rows}
    wanted = list(dict.fromkeys(data.instances))
    if data.complete:
        expected = len(have | set(wanted))
        await complete_exam(engine, exam, actor=me.person.email, expected=expected)
    return Kept(kept=[uid for uid in wanted if uid in have], total=len(wanted))


def _boundary(request: Ask) -> str:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException("a compressed body is not accepted", status_code=415)
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    inner = options.get("type", "application/dicom")
    if kind != "multipart/related" or inner != "application/dicom":
        raise HTTPException('send multipart/related; type="application/dicom"', status_code=415)
    boundary = options.get("boundary", "")
    if not 0 < len(boundary) <= 200:
        raise HTTPException("the boundary is missing", status_code=400)
    return str(boundary)


async def _receive(request: Ask, provenance: Provenance, study: str) -> Response[dict[str, Any]]:
    boundary = _boundary(request)
    receiver = request.app.state.receivers.get("http_upload")
    if receiver is None:
        raise HTTPException("uploads are not configured", status_code=503)
    config = receiver.config
    size = request.headers.get("content-length", "")
    if size.isdecimal() and int(size) > config.most_bytes:
        raise HTTPException("the request is too large", status_code=413)
    batch = request.app.state.spool.open_batch(provenance)
    parser = _Related(boundary, max_segment_count=config.most_parts, max_header_count=16)
    try:
        results = [r async for r in _parts(request, parser, batch, study, config.most_bytes)]
    except multipart.ParserLimitReached as exc:
        raise HTTPException(f"too much in one request: {exc}", status_code=413) from exc
    except multipart.ParserError as exc:
        raise HTTPException(f"the multipart body is broken: {exc}", status_code=400) from exc
    finally:
        await asyncio.to_thread(batch.close)
    return _answer(results)


async def _parts(
    request: Ask, parser: Any, batch: Batch, study: str, most: int
) -> AsyncIterator[Result]:
    part: Part | None = None
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise HTTPException("the request is too large", status_code=413)
            for event in parser.parse(chunk):
                if isinstance(event, multipart.MultipartSegment):
                    part = Part(batch, study)
                elif event is None:
                    assert part is not None
                    yield await part.finish()
                    part = None
                elif event:
                    assert part is not None
                    await part.feed(event)
        parser.close()
    finally:
        if part is not None:
            part.abort()


def _answer(results: list[Result]) -> Response[dict[str, Any]]:
    """The Store Instances Response Module as DICOM JSON (PS3.18 I.2)."""
    stored = [_reference(r) for r in results if not r.failure]
    failed = [
        {**_reference(r), "00081197": {"vr": "US", "Value": [r.failure]}}
        for r in results
        if r.failure
    ]
    body: dict[str, Any] = {}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": stored}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": failed}
        body["reasons"] = sorted({r.reason for r in results if r.failure})
    status = 200
    if failed:
        full = all(r.failure == 0xA700 for r in results)
        status = 202 if stored else 507 if full else 409
    if not results:
        status = 400
        body["reasons"] = ["the request holds no part"]
    return Response(body, status_code=status, media_type="application/dicom+json")


def _reference(result: Result) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [result.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [result.sop_instance_uid]},
    }


class _Related(multipart.PushMultipartParser):  # type: ignore[misc]
    """multipart/related: its parts have no Content-Disposition (RFC 2387)."""

    def _create_segment(self, headerlist: Any) -> Any:
        return multipart.MultipartSegment(headerlist)


HANDLERS = [store, store_study, store_exam, manifest]
