"""Where an exam would go, and why: asked as routing asks, without an exam."""

from datetime import UTC, datetime

from msgspec import Struct

from rso.core.errors import ConfigError, PluginError
from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.routing import Route
from rso.engine.context import Engine
from rso.engine.router import attachments_of

__all__ = ["Explained", "explain_route"]

_FIRST, _LAST = 1970, 2999


class Explained(Struct, frozen=True, kw_only=True):
    """An answer to "where does an exam like this go?".

    Attributes:
        route: ``None`` where it is not known.
        decided: The plugin that decided; empty: RSO's own rule.
        problem: Why it is not known: the exam would be held.
    """

    route: Route | None
    decided: str = ""
    problem: str = ""


async def explain_route(
    engine: Engine, *, facility: str, modality: str, priority: Priority, at: datetime
) -> Explained:
    """Ask for the route of an exam like this one, at some moment.

    Raises:
        ConfigError: The moment is one that no clock of a time zone has.
    """
    if not _FIRST <= at.year <= _LAST:
        raise ConfigError(f"a time lies between {_FIRST} and {_LAST}")
    exam = Exam(
        id="",
        number="",
        facility=facility,
        origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED,
        patient=Patient(),
        modality=modality.upper(),
        priority=priority,
        created_at=datetime.now(UTC),
    )
    attachments = await attachments_of(engine.ledger, facility)
    try:
        decided, route = engine.plugins.explain_route(exam, attachments, at)
    except PluginError as exc:
        return Explained(route=None, problem=str(exc))
    return Explained(route=route, decided=decided)
