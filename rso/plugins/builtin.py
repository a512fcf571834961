"""RSO's own behaviour, registered through the same hooks as everybody else's."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rso.core.exam import Exam
from rso.core.hookspecs import hookimpl
from rso.core.number import make_number
from rso.core.routing import Attachment, Route, route_exam
from rso.core.source import identify_source
from rso.core.transport import Connection, Source

__all__ = ["rso_identify_source", "rso_make_exam_number", "rso_route_exam"]


@hookimpl(trylast=True)
def rso_make_exam_number() -> str:
    """Eight random symbols and their two check symbols."""
    return make_number()


@hookimpl(trylast=True)
def rso_identify_source(connection: Connection, sources: Sequence[Source]) -> Source | None:
    """Name, network, certificate and encryption must all fit one declared source."""
    return identify_source(connection, sources)


@hookimpl(trylast=True)
def rso_route_exam(exam: Exam, attachments: Sequence[Attachment]) -> Route:
    """Every attached radiologist whose conditions fit now."""
    return route_exam(exam, attachments, datetime.now(UTC))
