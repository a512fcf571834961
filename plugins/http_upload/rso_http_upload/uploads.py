"""What is about to be sent to an exam, what is there already, and instances in pieces."""

import asyncio
import base64
import binascii
import contextlib
import hashlib
from typing import Annotated, Any

from litestar import Request, Response, patch, post
from litestar.exceptions import HTTPException
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from rso.core.errors import StateError
from rso.engine.context import Engine
from rso.engine.exams import complete_exam
from rso.ledger.rejected import REJECTED
from rso.plugins import IntakeError
from rso.web.auth import engine_of
from rso_http_upload.answer import failure
from rso_http_upload.callers import exam_of
from rso_http_upload.pieces import CrowdedError, OffsetError
from rso_http_upload.receiver import receiver_of

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_MOST_PIECE = 64 << 20
_MOST_IDENTITY = 128
Uid = Annotated[str, Meta(max_length=64)]


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file: its SOP Instance UID and what is known of its bytes.

    Attributes:
        size: Bytes of the whole file; tells how far it has come where it comes in pieces.
        sha256: Of its dataset, hex: of all after the file meta (group 0002), which is each
            writer's own. What is stored counts as kept only if its bytes have the same.
        identity: The ``Upload-Identity`` with which it comes in pieces.
    """

    sop_instance_uid: Uid
    size: Annotated[int, Meta(ge=1)]
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")] = ""
    identity: Annotated[str, Meta(max_length=_MOST_IDENTITY)] = ""


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody is about to send to an exam.

    Attributes:
        instances: SOP Instance UIDs.
        files: What is known of some of them, or of all.
        complete: The exam has no others: it is complete once all are here. Nothing is said by it
            of an exam that has ended.
    """

    instances: Annotated[list[Uid], Meta(max_length=100_000)]
    files: Annotated[list[File], Meta(max_length=100_000)] = []
    complete: bool = False


class Kept(Struct, frozen=True, kw_only=True):
    """Which of them are safely stored already, and how far the others in pieces have come.

    Attributes:
        differs: Stored with other bytes: sent again they are kept too, and held.
    """

    kept: list[str]
    total: int
    offsets: dict[str, int]
    differs: list[str] = []


class Progress(Struct, frozen=True, kw_only=True):
    """How far an instance in pieces has come."""

    offset: int
    stored: bool


@post("/api/exams/{number:str}/uploads", status_code=200)
async def manifest(request: Ask, number: FromPath[str], data: JSONBody[Manifest]) -> Kept:
    """Say what will be sent; the answer is what need not be."""
    receiver = receiver_of(request)
    exam, provenance = await exam_of(receiver.callers, request, number)
    engine = engine_of(request)
    rows = await engine.ledger.fetch(
        # What a person rejected is looked at again when it comes again, so it may come.
        "SELECT i.id, i.sop_instance_uid, i.dataset_offset, i.purged_at FROM instance i"  # noqa: S608
        " JOIN study s ON s.id = i.study"
        " WHERE i.facility = ? AND (s.exam = ? OR s.exam_number = ?) AND s.state <> 'rejected'"
        f" AND NOT {REJECTED.format('i')}",
        exam.facility,
        exam.id,
        exam.number,
    )
    known = {row["sop_instance_uid"] for row in rows}
    # What was purged and is sent again is kept again.
    have = {row["sop_instance_uid"] for row in rows if row["purged_at"] is None}
    wanted = list(dict.fromkeys(data.instances))
    if data.complete:
        expected = len(known | set(wanted))
        actor = provenance.user or provenance.source
        # What is stored stays so, also of an exam that was closed meanwhile, or of no instances.
        with contextlib.suppress(StateError):
            await complete_exam(engine, exam, actor=actor, expected=expected)
    claimed = {file.sop_instance_uid: file.sha256 for file in data.files if file.sha256}
    differs = have & claimed.keys() - await asyncio.to_thread(_same, engine, rows, claimed)
    have -= differs
    offsets = {
        file.sop_instance_uid: offset
        for file in data.files
        if file.sop_instance_uid not in have
        and (
            offset := receiver.pieces.offset(
                provenance, file.sop_instance_uid, file.size, file.identity
            )
        )
    }
    return Kept(
        kept=[uid for uid in wanted if uid in have],
        total=len(wanted),
        offsets=offsets,
        differs=[uid for uid in wanted if uid in differs],
    )


def _same(engine: Engine, rows: list[dict[str, Any]], claimed: dict[str, str]) -> set[str]:
    """The instances of which a stored dataset has the SHA-256 that somebody claims."""
    same = set()
    for row in rows:
        uid = row["sop_instance_uid"]
        if row["purged_at"] is None and uid in claimed and uid not in same:
            found = engine.archive.dataset_sha256(row["id"], row["dataset_offset"])
            if found == claimed[uid]:
                same.add(uid)
    return same


@patch("/api/exams/{number:str}/uploads/{uid:str}", status_code=200, request_max_body_size=None)
async def piece(request: Ask, number: FromPath[str], uid: FromPath[str]) -> Response[Any]:
    """Go on with a large instance: ``Upload-Offset`` and ``Upload-Length`` in bytes.

    ``Content-Digest: sha-256=:…:`` (RFC 9530) is checked when it is there. ``Upload-Identity``
    (of the sender's choice, such as a digest of the whole file) tells the file from others of
    its UID and length: pieces of one never join another's.
    """
    receiver = receiver_of(request)
    _, provenance = await exam_of(receiver.callers, request, number)
    offset, length = _number(request, "upload-offset"), _number(request, "upload-length")
    if length > receiver.config.most_bytes:
        raise HTTPException("the instance is too large", status_code=413)
    identity = request.headers.get("upload-identity", "")
    if len(identity) > _MOST_IDENTITY:
        raise HTTPException(
            f"an Upload-Identity has at most {_MOST_IDENTITY} characters", status_code=400
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_PIECE:
            raise HTTPException(f"a piece has at most {_MOST_PIECE} bytes", status_code=413)
    _check_digest(request, body)
    try:
        size, receipt = await receiver.pieces.add(
            provenance, uid, bytes(body), offset=offset, length=length, identity=identity
        )
    except OffsetError as exc:
        return Response(
            {"type": "about:blank", "title": "Conflict", "status": 409, "detail": str(exc),
             "offset": exc.offset},
            status_code=409, media_type="application/problem+json",
        )  # fmt: skip
    except CrowdedError as exc:
        raise HTTPException(str(exc), status_code=429) from exc
    except IntakeError as exc:
        failed = failure(exc, sop_instance_uid=uid)
        status = 507 if failed.failure == 0xA700 else 409
        raise HTTPException(failed.reason, status_code=status) from exc
    return Response(Progress(offset=size, stored=receipt is not None))


def _number(request: Ask, name: str) -> int:
    text = request.headers.get(name, "")
    if not text.isdecimal() or len(text) > 18:
        raise HTTPException(f"the header {name} holds no number of bytes", status_code=400)
    return int(text)


def _check_digest(request: Ask, body: bytearray) -> None:
    for entry in request.headers.get("content-digest", "").split(","):
        name, _, value = entry.strip().partition("=")
        if name != "sha-256":
            continue
        try:
            wanted = base64.b64decode(value.strip(":"), validate=True)
        except binascii.Error as exc:
            raise HTTPException("broken Content-Digest", status_code=400) from exc
        if wanted != hashlib.sha256(body).digest():
            raise HTTPException("the piece differs from its Content-Digest", status_code=400)


HANDLERS = [manifest, piece]
