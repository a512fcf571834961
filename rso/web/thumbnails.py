"""Thumbnails over HTTP: of an exam's instances, and of what waits in a hold."""

from dataclasses import dataclass
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema
from litestar.params import FromPath

from rso.engine.exams import find_exam
from rso.engine.holds import show_hold
from rso.engine.thumbnails import Thumbnails
from rso.ledger.images import instance_of
from rso.web.auth import engine_of, signed_in
from rso.web.seen import LOOKERS, exam_seen, hold_seen

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
# What is shown where there is no picture: a plain frame, the same for every reason.
_NOTHING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96" viewBox="0 0 96 96">'
    b'<rect x="1" y="1" width="94" height="94" rx="6" fill="#8884" stroke="#8888"/>'
    b'<path d="M26 66l15-20 11 13 8-9 12 16z" fill="#8888"/><circle cx="62" cy="34" r="6"'
    b' fill="#8888"/></svg>'
)
_SPEC = {200: ResponseSpec(data_container=bytes, description="A small picture, or a neutral one.")}


@dataclass
class _Picture(Operation):
    """Describes a picture: one that was drawn, or the neutral one."""

    def __post_init__(self) -> None:
        if self.responses and (found := self.responses.get("200")):
            binary = OpenAPIMediaType(schema=Schema())
            found.content = dict.fromkeys(("image/webp", "image/svg+xml"), binary)  # type: ignore[union-attr]


async def _answer(request: Ask, row: dict[str, Any] | None) -> Response[bytes]:
    if row is None:
        raise NotFoundException("no such instance")
    engine = engine_of(request)
    kept: Thumbnails = request.app.state.thumbnails
    instance = str(row["id"])
    picture = None
    if row["purged_at"] is None:
        picture = await kept.picture(instance, engine.archive.path(instance))
    return Response(picture or _NOTHING, media_type="image/webp" if picture else "image/svg+xml")


@get(
    "/exams/{number:str}/thumbnails/{instance:str}",
    api=True,
    operation_class=_Picture,
    responses=_SPEC,
)
async def exam_thumbnail(
    request: Ask, number: FromPath[str], instance: FromPath[str]
) -> Response[bytes]:
    """A small picture of one of the exam's instances; a neutral one when there is none."""
    me = await signed_in(request)
    me.require(*LOOKERS)
    ledger = engine_of(request).ledger
    exam = await find_exam(ledger, number, facilities=me.person.facilities)
    await exam_seen(request, me, exam, "picture", part=True)
    return await _answer(request, await instance_of(ledger, instance, exam=exam.id))


@get(
    "/holds/{hold_id:str}/thumbnails/{instance:str}",
    api=True,
    operation_class=_Picture,
    responses=_SPEC,
)
async def hold_thumbnail(
    request: Ask, hold_id: FromPath[str], instance: FromPath[str]
) -> Response[bytes]:
    """A small picture of one of the instances that are held."""
    me = await signed_in(request)
    me.require(*LOOKERS)
    ledger = engine_of(request).ledger
    hold = await show_hold(ledger, hold_id, facilities=me.person.facilities)
    await hold_seen(request, me, hold, "picture", part=True)
    return await _answer(request, await instance_of(ledger, instance, study=hold.study))


HANDLERS = [exam_thumbnail, hold_thumbnail]
