"""Static files under names that change with them, so that a browser asks for each once."""

from functools import cache
from hashlib import sha256
from pathlib import Path

from litestar.datastructures import CacheControlHeader

__all__ = ["FOR_EVER", "asset"]

FOR_EVER = CacheControlHeader(public=True, max_age=31_536_000, immutable=True)
_STATIC = Path(__file__).parent / "static"


@cache
def asset(name: str) -> str:
    """Where a static file is asked for: ``/static/rso.css?v=…``."""
    digest = sha256((_STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
