"""Administration: every message as it would be, and where its words come from."""

from itertools import groupby
from typing import Any

from litestar import Request, get
from litestar.response import Template

from rso.engine.notice_check import languages_of, sample_messages, template_problems
from rso.web.auth import engine_of, signed_in
from rso.web.page import page

__all__ = ["HANDLERS"]

_CHANNELS = ("email", "fax", "sms")


@get("/admin/messages")
async def messages_page(request: Request[Any, Any, Any]) -> Template:
    """A sample of each event on each channel, in one language; what is broken in any."""
    me = await signed_in(request)
    me.require()
    engine = engine_of(request)
    settings = engine.settings
    languages = languages_of(settings)
    asked = request.query_params.get("language", "")
    language = asked if asked in languages else settings.notify.language
    channels = sorted({*_CHANNELS, *engine.plugins.notifiers})
    samples = sample_messages(settings, language, channels)
    return page(
        request, "admin_messages.html", me,
        events=[(name, list(rows)) for name, rows in groupby(samples, key=lambda s: s.event)],
        problems=template_problems(settings, channels), languages=languages, language=language,
        used=settings.notify.language, folder=settings.notify.templates,
    )  # fmt: skip


HANDLERS = [messages_page]
