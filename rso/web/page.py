"""A page: a template with what every template knows."""

from typing import Any

from litestar import Request
from litestar.response import Template

from rso.core.contributions import ExamAction, Tile, visible_to
from rso.core.exam import Exam
from rso.ledger.exams import now
from rso.web.auth import Identity, engine_of
from rso.web.client import limits_of

__all__ = ["exam_actions", "page", "tiles_for"]


def page(
    request: Request[Any, Any, Any],
    template: str,
    me: Identity | None,
    *,
    template_str: str = "",
    **context: Any,
) -> Template:
    """The template for this caller; ``template_str`` is one of a plugin's own instead."""
    engine = engine_of(request)
    known: dict[str, Any] = {
        "me": me,
        "site": engine.settings.site.name,
        "path": request.url.path,
        "plugin_pages": visible_to(me.person.role, engine.plugins.pages) if me else [],
    }
    if me and me.ends_at:
        idle, left = limits_of(request).idle, me.ends_at - now()
        known["session"] = {
            "idle": int(idle.total_seconds()),
            "left": max(int(left.total_seconds()), 0),
        }
    if template_str:
        return Template(template_str=template_str, context=known | context)
    return Template(template, context=known | context)


def exam_actions(request: Request[Any, Any, Any], me: Identity, exam: Exam) -> list[ExamAction]:
    """The buttons that plugins add to this exam's page."""
    return [
        action
        for action in visible_to(me.person.role, engine_of(request).plugins.exam_actions)
        if not action.statuses or exam.status.value in action.statuses
    ]


def tiles_for(request: Request[Any, Any, Any], me: Identity) -> list[Tile]:
    """The tiles that plugins add to the dashboard, as ``tiles.html`` shows them."""
    return visible_to(me.person.role, engine_of(request).plugins.tiles)
