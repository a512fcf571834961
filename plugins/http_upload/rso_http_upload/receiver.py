"""The receiver object: configuration, callers, and the uploads under way."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from rso.plugins import Health, Receiver, ReceiverContext

if TYPE_CHECKING:
    from litestar import Request

__all__ = ["HttpUpload", "HttpUploadConfig", "receiver_of"]


class HttpUploadConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.http_upload]``."""

    most_parts: Annotated[int, Meta(ge=1, description="instances in one request")] = 5000
    most_bytes: Annotated[int, Meta(ge=1, description="bytes of one request or instance")] = (
        16 << 30
    )
    expire_hours: Annotated[
        float, Meta(gt=0, description="an instance sent in pieces waits so long for the next")
    ] = 24.0
    open_instances: Annotated[
        int, Meta(ge=1, description="instances in pieces that wait, of one account")
    ] = 100
    open_bytes: Annotated[
        int, Meta(ge=1, description="bytes that these are announced to have, together")
    ] = 64 << 30


class HttpUpload(Receiver):
    """Uploads over HTTP; its routes are the web application's."""

    name = "http_upload"
    config_type = HttpUploadConfig
    role = "web"
    config: HttpUploadConfig

    def __init__(self, config: HttpUploadConfig, context: ReceiverContext) -> None:
        # Only the web process makes one; every command loads this module.
        from rso_http_upload.callers import Callers  # noqa: PLC0415
        from rso_http_upload.pieces import Pieces  # noqa: PLC0415

        super().__init__(config, context)
        self.callers = Callers(context)
        self.pieces = Pieces(context, config)

    async def start(self) -> Sequence[str]:
        """Nothing of its own listens; what a crash left half written is removed."""
        await asyncio.to_thread(self._clean)
        return []

    def _clean(self) -> None:
        for path in self.context.data_dir.glob("*.zip"):
            path.unlink(missing_ok=True)
        self.pieces.expire()

    async def health(self) -> Health:
        """As well as the web application."""
        return Health(ok=True)

    async def close(self) -> None:
        """Requests end with the web application."""


def receiver_of(request: "Request[Any, Any, Any]") -> HttpUpload:
    """The receiver of the application that serves this request; 503 when it is not configured."""
    from litestar.exceptions import HTTPException  # noqa: PLC0415

    found = request.app.state.receivers.get("http_upload")
    if not isinstance(found, HttpUpload):
        raise HTTPException("uploads are not configured", status_code=503)
    return found
