"""The plugin: the receiver, and the routes it adds to the web application."""

from typing import Any

from rso.plugins import Receiver, hookimpl
from rso_http_upload.receiver import HttpUpload, HttpUploadConfig

__all__ = ["HttpUpload", "HttpUploadConfig", "rso_register_receivers", "rso_register_routes"]


@hookimpl
def rso_register_receivers() -> list[type[Receiver]]:
    """The uploader."""
    return [HttpUpload]


@hookimpl
def rso_register_routes() -> list[Any]:
    """STOW-RS, manifests and pieces, and the upload page."""
    from rso_http_upload import page, stow, uploads  # noqa: PLC0415  (only the web needs them)

    return [*stow.HANDLERS, *uploads.HANDLERS, *page.HANDLERS]
