"""The plugin: the receiver, and the routes it adds to the web application."""

from typing import Any

from rso.plugins import ExamAction, Receiver, hookimpl
from rso_http_upload.receiver import HttpUpload, HttpUploadConfig

__all__ = [
    "HttpUpload",
    "HttpUploadConfig",
    "rso_register_exam_actions",
    "rso_register_receivers",
    "rso_register_routes",
]


@hookimpl
def rso_register_receivers() -> list[type[Receiver]]:
    """The uploader."""
    return [HttpUpload]


@hookimpl
def rso_register_routes() -> list[Any]:
    """STOW-RS, manifests and pieces, and the upload page."""
    from rso_http_upload import page, stow, uploads  # noqa: PLC0415  (only the web needs them)

    return [*stow.HANDLERS, *uploads.HANDLERS, *page.HANDLERS]


@hookimpl
def rso_register_exam_actions() -> list[ExamAction]:
    """The button to the upload page."""
    return [
        ExamAction(
            title="Upload images",
            path="/exams/{number}/upload",
            roles=("customer", "technician", "coordinator"),
            statuses=("requested", "receiving", "settled", "delivered"),
            main=True,
        )
    ]
