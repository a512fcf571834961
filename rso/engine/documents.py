"""Documents that come with a request: checked by content, kept under opaque names, not sent."""

import asyncio
import contextlib
import errno
import os
import re
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from blake3 import blake3

from rso.core.errors import NoSpaceError, RefusedError
from rso.core.exam import Exam
from rso.engine.context import Engine
from rso.engine.disk import volumes
from rso.engine.exams import note_exam
from rso.ledger import Ledger, new_id, tables
from rso.ledger.exams import now

__all__ = [
    "DOCUMENTS",
    "KINDS",
    "MOST_BYTES",
    "MOST_DOCUMENTS",
    "add_document",
    "check_document",
    "check_room",
    "document_of",
    "document_path",
    "documents_of",
    "let_documents_go",
    "remove_document",
    "shown_name",
    "sweep_documents",
    "write_document",
]

DOCUMENTS = "documents"  # the folder below data_dir
MOST_BYTES = 20 << 20
MOST_DOCUMENTS = 20
_KEY_LENGTH = 32  # hex digits
_ORPHAN_SECONDS = 86_400.0
_GROUP = 500  # files looked up at once
KINDS = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
)
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def check_document(data: bytes) -> str:
    """The media type of a document, by its content.

    Raises:
        RefusedError: It is no PDF, PNG or JPEG, or it is too large.
    """
    if len(data) > MOST_BYTES:
        raise RefusedError(f"a document has at most {MOST_BYTES >> 20} MB")
    for magic, media_type in KINDS:
        if data.startswith(magic):
            return media_type
    raise RefusedError("a document is a PDF, a PNG or a JPEG file")


async def check_room(ledger: Ledger, exam: Exam, more: int = 1) -> None:
    """Raise RefusedError where the exam would have too many documents with ``more``."""
    if len(await documents_of(ledger, exam)) + more > MOST_DOCUMENTS:
        raise RefusedError(f"an exam has at most {MOST_DOCUMENTS} documents")


def document_path(engine: Engine, document: str) -> Path:
    """Where a document's bytes are; its key alone names the file."""
    key = UUID(document).hex
    return engine.settings.data_dir / DOCUMENTS / key[-2:] / key


async def add_document(engine: Engine, exam: Exam, name: str, data: bytes, *, actor: str) -> str:
    """Keep a document with an exam; returns its key.

    Raises:
        RefusedError: Its kind, its size, or one too many.
        NoSpaceError: The volume is full.
    """
    media_type = check_document(data)
    key = new_id()
    # The file first: a row always has its bytes, and a file without a row is swept.
    await write_document(engine, key, data)
    try:
        async with engine.ledger.transaction():
            await check_room(engine.ledger, exam)
            await engine.ledger.insert_rows(tables.ExamDocument, [{
                "id": key, "exam": exam.id, "name": shown_name(name),
                "media_type": media_type, "size": len(data), "digest": blake3(data).hexdigest(),
                "created_by": actor, "created_at": now(), "removed_at": None,
            }])  # fmt: skip
            await note_exam(engine.ledger, exam, actor, "document added", document=key)
    except RefusedError:
        document_path(engine, key).unlink(missing_ok=True)
        raise
    return key


def shown_name(name: str) -> str:
    """A document's name as it may be shown: its end, without what turns or breaks a line."""
    return _UNSHOWN.sub("", name)[-120:] or "document"


async def write_document(engine: Engine, document: str, data: bytes) -> None:
    """Write the bytes of a document that has no row yet, to the disk and not only to its cache.

    Raises:
        NoSpaceError: The volume is below its low-water mark, or full; nothing is left of it.
    """
    await asyncio.to_thread(_write, engine, document_path(engine, document), data)


def _write(engine: Engine, path: Path, data: bytes) -> None:
    room = next(v for v in volumes(engine.settings) if "data" in v.holds)
    if room.free - len(data) < room.low_water:
        raise NoSpaceError("there is no room for documents right now")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpaceError("there is no room for documents right now") from exc
        raise
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def documents_of(ledger: Ledger, exam: Exam) -> list[dict[str, Any]]:
    """An exam's documents, the first first."""
    return await ledger.fetch(
        "SELECT * FROM exam_document WHERE exam = ? AND removed_at IS NULL ORDER BY id", exam.id
    )


async def document_of(ledger: Ledger, exam: Exam, document: str) -> dict[str, Any] | None:
    """One of an exam's documents."""
    return next((d for d in await documents_of(ledger, exam) if str(d["id"]) == document), None)


async def remove_document(engine: Engine, exam: Exam, document: str, *, actor: str) -> bool:
    """Take a document away, such as another patient's; False when the exam has no such one."""
    if await document_of(engine.ledger, exam, document) is None:
        return False
    async with engine.ledger.transaction():
        await engine.ledger.execute(
            "UPDATE exam_document SET removed_at = ?, name = '' WHERE id = ?", now(), document
        )
        await note_exam(engine.ledger, exam, actor, "document removed", document=document)
    await asyncio.to_thread(document_path(engine, document).unlink, missing_ok=True)
    return True


async def let_documents_go(ledger: Ledger, exam_id: str) -> int:
    """Say that an exam's documents are gone; the next sweep removes their files."""
    return await ledger.execute(
        "UPDATE exam_document SET removed_at = ?, name = '' WHERE exam = ? AND removed_at IS NULL",
        now(),
        exam_id,
    )


async def sweep_documents(engine: Engine) -> int:
    """Remove the files of documents that are gone, and those that a crash left without a row.

    Returns how many files were removed.
    """
    removed = 0
    files = await asyncio.to_thread(_files, engine)
    for start in range(0, len(files), _GROUP):
        found = {str(UUID(path.name)): path for path in files[start : start + _GROUP]}
        marks = ",".join("?" * len(found))
        # One statement: a document of a draft that becomes an exam's meanwhile is seen as either.
        rows = await engine.ledger.fetch(
            "SELECT id, CASE WHEN removed_at IS NULL THEN 1 ELSE 0 END AS kept FROM exam_document"  # noqa: S608
            f" WHERE id IN ({marks}) UNION ALL SELECT id, 1 FROM draft_document"
            f" WHERE id IN ({marks})",
            *found,
            *found,
        )
        known = {str(row["id"]): bool(row["kept"]) for row in rows}
        gone = [path for key, path in found.items() if not known.get(key, False)]
        forgotten = {path for key, path in found.items() if key in known}
        removed += await asyncio.to_thread(_remove, gone, forgotten)
    return removed


def _remove(paths: Sequence[Path], at_once: Collection[Path]) -> int:
    removed = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            # One that has just been written gets its row in a moment.
            if path in at_once or time.time() - path.stat().st_mtime > _ORPHAN_SECONDS:
                path.unlink()
                removed += 1
    return removed


def _files(engine: Engine) -> list[Path]:
    folder = engine.settings.data_dir / DOCUMENTS
    return [path for path in sorted(folder.glob("*/*")) if len(path.name) == _KEY_LENGTH]
