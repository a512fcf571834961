"""What became of each instance, as STOW-RS answers it (PS3.18 10.5.3, I.2)."""

from collections.abc import Sequence
from typing import Any

from litestar import Response
from msgspec import Struct

from rso.plugins import (
    IdentifierError,
    NoSpaceError,
    NotDicomError,
    RefusedError,
    RsoError,
    VolumeError,
)

__all__ = ["Result", "failure", "store_response"]

# Failure Reason (0008,1197) of each error (PS3.18 10.5.3, PS3.3 C.12-1).
_REASONS: tuple[tuple[type[RsoError], int], ...] = (
    (NoSpaceError, 0xA700),
    (IdentifierError, 0xA900),
    (NotDicomError, 0xC000),
    (RefusedError, 0x0122),
    (VolumeError, 0x0110),
)


class Result(Struct, frozen=True, kw_only=True):
    """One instance; ``failure`` is 0 when it is on disk."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    failure: int = 0
    reason: str = ""


def failure(exc: Exception | None, sop_class_uid: str = "", sop_instance_uid: str = "") -> Result:
    """An instance that was not kept."""
    return Result(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        failure=next((code for kind, code in _REASONS if isinstance(exc, kind)), 0x0110),
        reason=str(exc) if isinstance(exc, RsoError) else "processing failure",
    )


def store_response(results: Sequence[Result], *, skipped: int = 0) -> Response[dict[str, Any]]:
    """The Store Instances Response Module as DICOM JSON, and the reasons in words."""
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
    if skipped:
        body["skipped"] = skipped
    status = 200
    if failed:
        full = all(r.failure == 0xA700 for r in results if r.failure)
        status = 202 if stored else 507 if full else 409
    if not results:
        status = 400
        body["reasons"] = ["the request holds no DICOM instance"]
    return Response(body, status_code=status, media_type="application/dicom+json")


def _reference(result: Result) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [result.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [result.sop_instance_uid]},
    }
