"""The receiver: STOW-RS, and uploads bound to an exam, served by the web application."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from rso.plugins import Health, Receiver, hookimpl

__all__ = ["HttpUpload", "HttpUploadConfig", "rso_register_receivers", "rso_register_routes"]


class HttpUploadConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.http_upload]``."""

    most_parts: Annotated[int, Meta(ge=1, description="instances in one request")] = 5000
    most_bytes: Annotated[int, Meta(ge=1, description="bytes of one request")] = 16 << 30


class HttpUpload(Receiver):
    """Uploads over HTTP; its routes use the web process' spool."""

    name = "http_upload"
    config_type = HttpUploadConfig
    role = "web"
    config: HttpUploadConfig

    async def start(self) -> Sequence[str]:
        """Nothing of its own listens."""
        return []

    async def health(self) -> Health:
        """As well as the web application."""
        return Health(ok=True)

    async def close(self) -> None:
        """Requests end with the web application."""


@hookimpl
def rso_register_receivers() -> list[type[Receiver]]:
    """The uploader."""
    return [HttpUpload]


@hookimpl
def rso_register_routes() -> list[Any]:
    """STOW-RS and the manifest of a bound upload."""
    from rso_http_upload.stow import HANDLERS  # noqa: PLC0415  (only the web process needs it)

    return HANDLERS
