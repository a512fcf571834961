"""The web application, wired: handlers, templates, static files, plugins' routes, headers."""

from collections.abc import Sequence
from pathlib import Path

from litestar import Litestar
from litestar.config.compression import CompressionConfig
from litestar.datastructures import MutableScopeHeaders
from litestar.middleware import DefineMiddleware
from litestar.middleware.compression import CompressionMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig
from litestar.types import Message, Scope

from rso.core.delivery import reason_words
from rso.core.number import format_number
from rso.core.transport import Receiver, Spool
from rso.engine.audit_sightings import Sightings
from rso.engine.context import Engine
from rso.engine.thumbnails import THUMBNAILS, Thumbnails
from rso.web import (
    acknowledge,
    active_list,
    admin,
    admin_import,
    admin_messages,
    admin_people,
    admin_retention,
    api,
    api_active,
    api_candidates,
    api_documents,
    api_exams,
    api_figures,
    api_me,
    api_messages,
    api_owners,
    api_people,
    api_site,
    api_timeline,
    api_tokens,
    audit_page,
    dashboard,
    deliveries_page,
    documents,
    download,
    drafts,
    exam_page,
    hold_pages,
    holds_api,
    monitoring,
    notifying,
    owners,
    refusals_page,
    request_form,
    reset,
    security,
    sign_in,
    thumbnails,
)
from rso.web.assets import FOR_EVER, asset
from rso.web.client import session_limits
from rso.web.errors import answer_error
from rso.web.live import Live
from rso.web.monitoring import HTTP_METRICS
from rso.web.problem import describe
from rso.web.words import notice_words, when

__all__ = ["create_app"]

_WEB = Path(__file__).parent / "web"
_GZIP = CompressionConfig(backend="gzip")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self'; img-src 'self' data:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


async def _secure(message: Message, scope: Scope) -> None:  # noqa: ARG001  (Litestar hands it over)
    """Headers of every answer, errors included."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        # A page with patients on it is nobody's to keep.
        headers.setdefault("Cache-Control", "no-store")


def create_app(engine: Engine, spool: Spool | None, receivers: Sequence[Receiver]) -> Litestar:
    """The application over an open engine."""
    plugged = [route for _, call in engine.plugins.calls("rso_register_routes") for route in call()]
    live = Live(engine.ledger, session_limits(engine.settings.web))
    app = Litestar(
        route_handlers=[
            *sign_in.HANDLERS,
            *active_list.HANDLERS,
            *dashboard.HANDLERS,
            *monitoring.HANDLERS,
            *owners.HANDLERS,
            *hold_pages.HANDLERS,
            *request_form.HANDLERS,
            *drafts.HANDLERS,
            *documents.HANDLERS,
            *exam_page.HANDLERS,
            *admin.HANDLERS,
            *admin_import.HANDLERS,
            *admin_messages.HANDLERS,
            *admin_people.HANDLERS,
            *admin_retention.HANDLERS,
            *audit_page.HANDLERS,
            *deliveries_page.HANDLERS,
            *refusals_page.HANDLERS,
            *download.HANDLERS,
            *holds_api.HANDLERS,
            *notifying.HANDLERS,
            *acknowledge.HANDLERS,
            *security.HANDLERS,
            *reset.HANDLERS,
            *thumbnails.HANDLERS,
            *api.HANDLERS,
            *api_active.HANDLERS,
            *api_candidates.HANDLERS,
            *api_documents.HANDLERS,
            *api_exams.HANDLERS,
            *api_figures.HANDLERS,
            *api_me.HANDLERS,
            *api_messages.HANDLERS,
            *api_owners.HANDLERS,
            *api_people.HANDLERS,
            *api_site.HANDLERS,
            *api_timeline.HANDLERS,
            *api_tokens.HANDLERS,
            *plugged,
            create_static_files_router(
                path="/static",
                directories=[_WEB / "static"],
                cache_control=FOR_EVER,
                # Here only: the length of a page, compressed, would tell of the secrets in it.
                middleware=[DefineMiddleware(CompressionMiddleware, config=_GZIP)],
                include_in_schema=False,
            ),
        ],
        template_config=TemplateConfig(
            directory=_WEB / "templates",
            engine=JinjaTemplateEngine,
            engine_callback=lambda engine: engine.engine.globals.update(
                asset=asset,
                notice_words=notice_words,
                number_words=format_number,
                reason_words=reason_words,
                when=when,
            ),
        ),
        openapi_config=OpenAPIConfig(
            title="RSO",
            version="0.1.0",
            path="/schema",
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            components=Components(
                security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}
            ),
        ),
        on_app_init=[describe],
        exception_handlers={Exception: answer_error},
        before_send=[_secure],
        middleware=[HTTP_METRICS.middleware],
        debug=False,
    )
    app.state.engine = engine
    app.state.live = live
    app.state.spool = spool
    app.state.sightings = Sightings(engine.ledger)
    app.state.thumbnails = Thumbnails(engine.settings.data_dir / THUMBNAILS)
    app.state.receivers = {receiver.name: receiver for receiver in receivers}
    return app
