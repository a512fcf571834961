"""An exam's images as one ZIP file, written while it is sent."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from litestar import Request, get
from litestar.exceptions import NotFoundException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from litestar.response import Stream

from rso.dicom.part10 import build_file_meta
from rso.engine.exams import find_exam
from rso.ledger import audit
from rso.ledger.lists import exam_instances
from rso.web.auth import engine_of, signed_in
from rso.web.seen import LOOKERS

__all__ = ["HANDLERS"]

_CHUNK = 1 << 20


class _Pipe:
    """What zipfile writes into: bytes that are fetched again at once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _zip(files: Sequence[tuple[str, bytes, Path, int]]) -> Iterator[bytes]:
    """Chunks of a ZIP: name, file meta, archive file and where its dataset begins, of each."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, meta, path, offset in files:
            with archive.open(name, "w", force_zip64=True) as entry, path.open("rb") as file:
                entry.write(meta)
                file.seek(offset)
                while data := file.read(_CHUNK):
                    entry.write(data)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        if chunk:
            yield chunk


@get(
    "/exams/{number:str}/images.zip",
    api=True,
    responses={
        200: ResponseSpec(
            data_container=bytes,
            media_type="application/zip",
            description="The instances as files of DICOM (Part 10), a folder for each Series.",
        )
    },
)
async def download(request: Request[Any, Any, Any], number: FromPath[str]) -> Stream:
    """Every instance as it was received, under names of RSO's own."""
    me = await signed_in(request)
    me.require(*LOOKERS)
    engine = engine_of(request)
    exam = await find_exam(engine.ledger, number, facilities=me.person.facilities)
    rows = [r for r in await exam_instances(engine.ledger, exam) if r["purged_at"] is None]
    if not rows:
        raise NotFoundException("no images of this exam are in the archive")
    series: dict[str, int] = {}
    files = []
    for index, row in enumerate(rows, 1):
        place = series.setdefault(row["series_instance_uid"], len(series) + 1)
        meta = build_file_meta(
            sop_class_uid=row["sop_class_uid"],
            sop_instance_uid=row["sop_instance_uid"],
            transfer_syntax_uid=row["transfer_syntax_uid"],
        )
        path = engine.archive.path(str(row["id"]))
        files.append((f"S{place:03}/I{index:05}.dcm", meta, path, row["dataset_offset"]))
    await audit.append(
        engine.ledger, actor=me.person.email, action="images downloaded", facility=exam.facility,
        exam=exam.number, facts={"instances": str(len(files))},
    )  # fmt: skip
    headers = {"Content-Disposition": f'attachment; filename="{exam.number}.zip"'}
    return Stream(_in_threads(_zip(files)), media_type="application/zip", headers=headers)


HANDLERS = [download]
