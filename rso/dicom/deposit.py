"""A Part 10 stream put into the spool: the file meta is read, the dataset kept as it is."""

import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from rso.core.errors import IntakeError, NotDicomError, RefusedError
from rso.core.transport import Batch, Receipt
from rso.dicom.part10 import FileMeta, read_file_meta
from rso.dicom.zip_reader import Member, open_zip

__all__ = ["DICOMDIR", "Readable", "deposit_part10", "deposit_zip", "refuse_dicomdir"]

DICOMDIR = "1.2.840.10008.1.3.10"
_META = 1 << 17
_CHUNK = 4 << 20


class Readable(Protocol):
    """Something to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def deposit_part10(batch: Batch, stream: Readable) -> Receipt:
    """Keep one Part 10 file and return once it is durable; memory stays flat.

    Raises:
        NotDicomError: It is not Part 10, or its dataset cannot be read.
        RefusedError: It is a DICOMDIR, which is no instance.
        IntakeError: Not kept.
    """
    head = stream.read(_META)
    meta = read_file_meta(head)
    refuse_dicomdir(meta)
    # The file meta announces nothing: what counts is the dataset itself.
    sink = batch.open(transfer_syntax_uid=meta.transfer_syntax_uid)
    try:
        data: bytes | memoryview = memoryview(head)[meta.dataset_offset :]
        while data:
            sink.write(data)
            data = stream.read(_CHUNK)
        return sink.commit()
    except BaseException:
        sink.abort()
        raise


def refuse_dicomdir(meta: FileMeta) -> None:
    """Raise RefusedError for a Media Storage Directory (PS3.10 8.6)."""
    if meta.sop_class_uid == DICOMDIR:
        raise RefusedError("a DICOMDIR is no instance; it is skipped")


def deposit_zip(batch: Batch, path: Path) -> Generator[Receipt | IntakeError | None, None, None]:
    """Keep every instance of a ZIP; yields what became of each file inside.

    A receipt: it is durable. An error: it is an instance, or may be one, and is not kept.
    ``None``: it is none (another kind of file, or a DICOMDIR) and is left out.

    Raises:
        NotDicomError: It is not a ZIP, or a broken one.
        RefusedError: A limit refuses the ZIP as a whole; nothing was unpacked.
    """
    for member in open_zip(path):
        try:
            yield _deposit_member(batch, member)
        except IntakeError as exc:
            yield exc
        except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
            yield NotDicomError(f"file {member.position} of the ZIP is broken: {exc}")


def _deposit_member(batch: Batch, member: Member) -> Receipt | None:
    with member.open() as stream:
        head = stream.read(_META)
        if head[128:132] != b"DICM":
            return None
        if read_file_meta(head).sop_class_uid == DICOMDIR:
            return None
    with member.open() as stream:
        return deposit_part10(batch, stream)
