"""A modality for tests and the demo: sends files and tells what was answered."""

import base64
import http.client
from collections.abc import Sequence
from pathlib import Path

from rso.core.transport import Piece
from rso.dicom.part10 import FileMeta, read_file_meta
from rso.dicom.requestor import Requestor

__all__ = ["send_files", "stow"]


def _meta(path: Path) -> FileMeta:
    with path.open("rb") as file:
        return read_file_meta(file.read(1 << 17))


def send_files(
    paths: Sequence[Path],
    *,
    host: str,
    port: int,
    calling_ae_title: str,
    called_ae_title: str,
    answers: dict[str, int] | None = None,
) -> dict[str, int]:
    """C-STORE each file over one association; status by SOP Instance UID.

    A SOP Class that the peer does not take counts as ``0x0122``. What was answered before the
    association broke is in ``answers``, where given.

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
    answers = {} if answers is None else answers
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


def stow(paths: Sequence[Path], *, port: int, account: tuple[str, str]) -> bool:
    """STOW-RS of files in one request, as a gateway does; whether all are said to be stored."""
    secret = base64.b64encode(":".join(account).encode()).decode()
    parts = (b"--X\r\nContent-Type: application/dicom\r\n\r\n" + p.read_bytes() for p in paths)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            "POST", "/dicomweb/studies", b"\r\n".join(parts) + b"\r\n--X--\r\n",
            {"Authorization": f"Basic {secret}",
             "Content-Type": 'multipart/related; type="application/dicom"; boundary=X'},
        )  # fmt: skip
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
