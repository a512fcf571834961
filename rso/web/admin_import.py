"""Import of a site.toml: first what it would change, then the change."""

from typing import Any

import tomli
from litestar import Request, Response, get, post
from litestar.datastructures import UploadFile
from litestar.response import Redirect, Template

from rso.core.errors import ConfigError
from rso.engine.site import apply_site, plan_site
from rso.ledger.site_preview import SitePreview
from rso.web.auth import Identity, checked_form, engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

Ask = Request[Any, Any, Any]
_MOST_BYTES = 4 << 20


async def _admin(request: Ask) -> Identity:
    me = await signed_in(request)
    me.require()
    return me


def _parse(text: str) -> dict[str, Any]:
    """Secrets by ``env`` or ``file`` stay what they are: no page reads files of the server."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        raise ConfigError(f"this is no TOML: {exc}") from exc


async def _text(request: Ask) -> str:
    form = await checked_form(request)
    file = (await request.form()).get("file")
    if isinstance(file, UploadFile) and file.filename:
        data = await file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError("the file is too large for a site.toml")
        return data.decode("utf-8", "replace")
    return form.get("text", "")


def _show(
    request: Ask, me: Identity, *, text: str = "", problem: str = "",
    preview: SitePreview | None = None,
) -> Template:  # fmt: skip
    made = page(request, "admin_import.html", me, text=text, problem=problem, preview=preview)
    if problem:
        made.status_code = 422
    return made


@get("/admin/import")
async def import_page(request: Ask) -> Template:
    """Paste or choose a site.toml."""
    return _show(request, await _admin(request))


@post("/admin/import", status_code=200)
async def import_site(request: Ask) -> Response[Any]:
    """Show what it would change; with ``apply`` change it."""
    me = await _admin(request)
    engine = engine_of(request)
    text = ""
    try:
        text = await _text(request)
        document = _parse(text)
        if (await checked_form(request)).get("apply"):
            await apply_site(engine, document, actor=me.person.email)
            return Redirect("/admin?done=site.toml", status_code=303)
        preview = await plan_site(engine, document)
    except ConfigError as exc:
        return _show(request, me, text=text, problem=str(exc))
    return _show(request, me, text=text, preview=preview)


HANDLERS = [import_page, import_site]
