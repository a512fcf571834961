"""A modality for tests and the demo: sends files and tells what was answered."""

from collections.abc import Sequence
from pathlib import Path

from rso.core.transport import Piece
from rso.dicom.part10 import FileMeta, read_file_meta
from rso.dicom.requestor import Requestor

__all__ = ["send_files"]


def _meta(path: Path) -> FileMeta:
    with path.open("rb") as file:
        return read_file_meta(file.read(1 << 17))


def send_files(
    paths: Sequence[Path], *, host: str, port: int, calling_ae_title: str, called_ae_title: str
) -> dict[str, int]:
    """C-STORE each file over one association; status by SOP Instance UID.

    A SOP Class that the peer does not take counts as ``0x0122``.

    Raises:
        TransportError: No association, or it broke.
    """
    metas = [(path, _meta(path)) for path in paths]
    pairs = list(dict.fromkeys((m.sop_class_uid, m.transfer_syntax_uid) for _, m in metas))
    requestor = Requestor(
        host,
        port,
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        contexts=pairs,
    )
    answers: dict[str, int] = {}
    try:
        for path, meta in metas:
            if (meta.sop_class_uid, meta.transfer_syntax_uid) not in requestor.contexts:
                answers[meta.sop_instance_uid] = 0x0122
                continue
            size = path.stat().st_size - meta.dataset_offset
            piece = Piece(path=path, offset=meta.dataset_offset, length=size)
            response = requestor.store(
                meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, [piece]
            )
            answers[meta.sop_instance_uid] = response.status
    finally:
        requestor.release()
    return answers
