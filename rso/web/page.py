"""A page: a template with what every template knows."""

from typing import Any

from litestar import Request
from litestar.response import Template

from rso.web.auth import Identity, engine_of

__all__ = ["page"]


def page(
    request: Request[Any, Any, Any], template: str, me: Identity | None, **context: Any
) -> Template:
    """The template for this caller."""
    return Template(
        template, context={"me": me, "site": engine_of(request).settings.site.name, **context}
    )
