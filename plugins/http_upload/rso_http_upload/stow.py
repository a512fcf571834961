"""STOW-RS (PS3.18 10.5): multipart/related as a stream, and ZIP files."""

import asyncio
import os
from pathlib import Path
from typing import Any

import multipart
from litestar import Request, Response, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery

from rso.dicom.deposit import deposit_zip
from rso.ledger import new_id
from rso.plugins import Batch, NoSpaceError, NotDicomError, Provenance, Receipt, RefusedError
from rso_http_upload.answer import Result, failure, store_response
from rso_http_upload.callers import exam_of, facility_of
from rso_http_upload.part import Part
from rso_http_upload.receiver import HttpUpload, receiver_of

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_SPACE_STEP = 64 << 20
_PARTS_AT_ONCE = 12
_BYTES_AT_ONCE = 24 << 20


@post("/dicomweb/studies", status_code=200, request_max_body_size=None)
async def store(request: Ask, facility: FromQuery[str] = "") -> Response[dict[str, Any]]:
    """Store instances of any Study (STOW-RS)."""
    receiver = receiver_of(request)
    provenance = await facility_of(receiver.callers, request, facility)
    return await _receive(request, receiver, provenance, "")


@post("/dicomweb/studies/{study:str}", status_code=200, request_max_body_size=None)
async def store_study(
    request: Ask, study: FromPath[str], facility: FromQuery[str] = ""
) -> Response[dict[str, Any]]:
    """Store instances of one Study (STOW-RS)."""
    receiver = receiver_of(request)
    provenance = await facility_of(receiver.callers, request, facility)
    return await _receive(request, receiver, provenance, study)


@post("/api/exams/{number:str}/studies", status_code=200, request_max_body_size=None)
async def store_exam(request: Ask, number: FromPath[str]) -> Response[dict[str, Any]]:
    """Store instances that belong to an exam, whatever their Patient ID says (STOW-RS)."""
    receiver = receiver_of(request)
    _, provenance = await exam_of(receiver.callers, request, number)
    return await _receive(request, receiver, provenance, "")


async def _receive(
    request: Ask, receiver: HttpUpload, provenance: Provenance, study: str
) -> Response[dict[str, Any]]:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException("a compressed body is not accepted", status_code=415)
    size = request.headers.get("content-length", "")
    if size.isdecimal() and int(size) > receiver.config.most_bytes:
        raise HTTPException("the request is too large", status_code=413)
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    batch = receiver.context.spool.open_batch(provenance)
    try:
        if kind == "application/zip":
            return await _receive_zip(request, receiver, batch)
        if kind != "multipart/related" or options.get("type", "application/dicom") != (
            "application/dicom"
        ):
            raise HTTPException(
                'send multipart/related; type="application/dicom", or application/zip',
                status_code=415,
            )
        return await _receive_parts(request, receiver, batch, study, options.get("boundary", ""))
    finally:
        await asyncio.to_thread(batch.close)


async def _receive_parts(
    request: Ask, receiver: HttpUpload, batch: Batch, study: str, boundary: str
) -> Response[dict[str, Any]]:
    if not 0 < len(boundary) <= 200:
        raise HTTPException("the boundary is missing", status_code=400)
    config = receiver.config
    parser = _Related(boundary, max_segment_count=config.most_parts, max_header_count=16)
    keeping = _Keeping()
    try:
        await _read_parts(request, parser, batch, study, config.most_bytes, keeping)
        return store_response(await keeping.results())
    except multipart.ParserLimitReached as exc:
        raise HTTPException(f"too much in one request: {exc}", status_code=413) from exc
    except multipart.ParserError as exc:
        raise HTTPException(f"the multipart body is broken: {exc}", status_code=400) from exc
    finally:
        await keeping.settle()


async def _read_parts(
    request: Ask, parser: Any, batch: Batch, study: str, most: int, keeping: "_Keeping"
) -> None:
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
                    await keeping.add(part)
                    part = None
                elif event:
                    assert part is not None
                    await part.feed(event)
        parser.close()
    finally:
        if part is not None:
            part.abort()


class _Keeping:
    """Parts that wait for the disk while the next ones are read: they share its syncs."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Result]] = []
        self._waiting: dict[asyncio.Task[Result], int] = {}

    async def add(self, part: Part) -> None:
        """Keep a whole part; waits while too many, or too large ones, do."""
        while len(self._waiting) >= _PARTS_AT_ONCE or sum(self._waiting.values()) > _BYTES_AT_ONCE:
            await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
            # Their callbacks run in the next turn of the loop.
            await asyncio.sleep(0)
        size = part.held
        task = asyncio.create_task(part.finish())
        self._waiting[task] = size
        task.add_done_callback(lambda done: self._waiting.pop(done, None))
        self._tasks.append(task)

    async def results(self) -> list[Result]:
        """What became of each, in order."""
        return list(await asyncio.gather(*self._tasks))

    async def settle(self) -> None:
        """Wait for all, also after an error."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Related(multipart.PushMultipartParser):  # type: ignore[misc]
    """multipart/related: its parts have no Content-Disposition (RFC 2387)."""

    def _create_segment(self, headerlist: Any) -> Any:
        return multipart.MultipartSegment(headerlist)


async def _receive_zip(
    request: Ask, receiver: HttpUpload, batch: Batch
) -> Response[dict[str, Any]]:
    # The directory of a ZIP is at its end, so it has to be on disk before it can be read.
    path = receiver.context.data_dir / f"{new_id()}.zip"
    try:
        await _to_disk(request, receiver, path)
        results, skipped = await asyncio.to_thread(_unpack, batch, path)
    except (NotDicomError, RefusedError) as exc:
        raise HTTPException(str(exc), status_code=400) from exc
    finally:
        path.unlink(missing_ok=True)
    return store_response(results, skipped=skipped)


async def _to_disk(request: Ask, receiver: HttpUpload, path: Path) -> None:
    size, promised = 0, 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > receiver.config.most_bytes:
                raise HTTPException("the request is too large", status_code=413)
            if size > promised:
                promised = size + _SPACE_STEP
                receiver.context.spool.require_space(_SPACE_STEP)
            try:
                await asyncio.to_thread(file.write, chunk)
            except OSError as exc:
                raise NoSpaceError("out of space, try again later") from exc


def _unpack(batch: Batch, path: Path) -> tuple[list[Result], int]:
    results, skipped = [], 0
    for result in deposit_zip(batch, path):
        if isinstance(result, Receipt):
            header = result.header
            results.append(
                Result(sop_class_uid=header.sop_class_uid, sop_instance_uid=header.sop_instance_uid)
            )
        elif result is not None:
            results.append(failure(result))
        else:
            skipped += 1
    return results, skipped


HANDLERS = [store, store_study, store_exam]
