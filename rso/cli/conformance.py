"""``rso conformance``: the DICOM Conformance Statement, from the tables the code works with."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from rso.cli.shared import NoConfig

__all__ = ["register", "write_conformance"]

_BEHAVIOUR = {
    "acknowledged": "Delivered; not sent again.",
    "retry": "Sent again later, until acknowledged or a person stops it.",
    "stopped": "This instance stops, and a person is told.",
}
_ANSWERS = {
    "NoSpaceError": "Out of resources: no room, or a quota is used up; send again later.",
    "IdentifierError": "Dataset and SOP Class or Instance UID of the command differ.",
    "NotDicomError": "Cannot be understood; a copy is kept for evidence.",
    "RefusedError": "Refused by a limit or policy.",
    "VolumeError": "Processing failure: the disk failed; send again later.",
}
_RECEIVED = (0x0000, 0x0107, 0x0110, 0x0111, 0x0213, 0xA700, 0xA900, 0xB000, 0xB006, 0xB007, 0xC000)


def register(app: App) -> None:
    """Add the command."""
    app.command(conformance)


def conformance(
    *,
    out: Annotated[Path | None, Parameter(help="a file instead of standard output")] = None,
    config: NoConfig = None,  # noqa: ARG001
) -> None:
    """Write the DICOM Conformance Statement as Markdown."""
    text = write_conformance()
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, "utf-8")


def write_conformance() -> str:
    """The statement as Markdown."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    template = Path(__file__).with_suffix(".md").read_text("utf-8")
    made = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  (Markdown)
    return made.from_string(template).render(_both() | _scp() | _scu())


def _both() -> dict[str, Any]:
    from importlib.metadata import version  # noqa: PLC0415

    from pydicom.charset import python_encoding  # noqa: PLC0415

    from rso.dicom import elements, part10, wire  # noqa: PLC0415
    from rso.dicom.association import Limits  # noqa: PLC0415

    return {
        "version": version("rso"),
        "wire": wire,
        "limits": Limits(),
        "class_uid": part10.IMPLEMENTATION_CLASS_UID,
        "version_name": part10.IMPLEMENTATION_VERSION_NAME,
        "most_elements": elements.MOST_ELEMENTS,
        "deepest": elements.DEEPEST,
        "character_sets": sorted(term for term in python_encoding if term),
    }


def _scp() -> dict[str, Any]:
    from pydicom.uid import UID, AllTransferSyntaxes  # noqa: PLC0415
    from pynetdicom.sop_class import _STORAGE_CLASSES  # noqa: PLC0415
    from rso_dicom_scp.plugin import STATUSES, DicomScpConfig, accepted_syntax  # noqa: PLC0415
    from rso_dicom_scp.tls import CIPHER_SUITES, Tls  # noqa: PLC0415

    little = "1.2.840.10008.1.2.1"
    answers = [("0000", "Kept on disk, also when a person has to decide where it belongs.")]
    answers += [(f"{status:04X}", _ANSWERS[kind.__name__]) for kind, status in STATUSES]
    answers.append(("0211", "An operation other than C-STORE and C-ECHO."))
    classes = sorted({str(uid) for uid in _STORAGE_CLASSES.values()}, key=_by_number)
    taken = [uid for uid in classes if accepted_syntax(uid, [little])]
    syntaxes = [uid for uid in AllTransferSyntaxes if accepted_syntax(taken[0], [str(uid)])]
    return {
        "scp": DicomScpConfig(),
        "tls_port": Tls(certificate="", key="").port,
        "suites": CIPHER_SUITES,
        "answers": answers,
        "classes": [(UID(uid).name, uid) for uid in taken],
        "syntaxes": [(uid.name, str(uid)) for uid in syntaxes],
    }


def _scu() -> dict[str, Any]:
    from rso_dicom_scu.plugin import DicomScuConfig  # noqa: PLC0415

    from rso.core.delivery import BACKOFF_CAP_SECONDS, classify_dimse  # noqa: PLC0415
    from rso.core.egress import EGRESS_MODES  # noqa: PLC0415
    from rso.dicom.coerce import TAGS  # noqa: PLC0415
    from rso.dicom.requestor import MOST_CONTEXTS  # noqa: PLC0415

    return {
        "scu": DicomScuConfig(),
        "most_contexts": MOST_CONTEXTS,
        "egress": EGRESS_MODES,
        "backoff_minutes": round(BACKOFF_CAP_SECONDS / 60),
        "behaviour": [(f"{s:04X}", _BEHAVIOUR[classify_dimse(s).value]) for s in _RECEIVED],
        "otherwise": _BEHAVIOUR["stopped"],
        "coerced": [
            (f"({tag >> 16:04X},{tag & 0xFFFF:04X})", name.replace("_", " "), vr.decode())
            for name, (tag, vr) in sorted(TAGS.items(), key=lambda item: item[1][0])
        ],
    }


def _by_number(uid: str) -> tuple[int, ...]:
    return tuple(map(int, uid.split(".")))
