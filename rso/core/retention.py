"""When an exam's images may leave the archive: proven delivered, and kept long enough."""

from datetime import datetime, timedelta

from msgspec import Struct

from rso.core.exam import ExamStatus

__all__ = ["Standing", "kept_because"]

_UNDER_WAY = frozenset({"pending", "sending", "waiting"})
_DONE = frozenset({ExamStatus.DELIVERED, ExamStatus.CLOSED})


class Standing(Struct, frozen=True, kw_only=True):
    """What decides about an exam's images.

    Attributes:
        retention_days: Of the facility; ``None`` keeps everything.
        cancelled_at: When a person cancelled the exam; ``None`` when nobody did.
        deliveries: (state, acknowledged, total) of each that has something to send.
        instances: How many images the archive holds of it.
        unproven: How many of them no destination acknowledged, or one still owes an answer for.
        unmatched: How many of its Studies are not plainly matched (stopped, in question).
        holds: How many open holds touch its Studies, its images, or name it as a suspect.
        missing: How many announced images have not come.
        last_at: The last delivery, or the last image if that is later.
    """

    status: ExamStatus
    retention_days: int | None
    cancelled_at: datetime | None
    deliveries: tuple[tuple[str, int, int], ...]
    instances: int
    unproven: int
    unmatched: int
    holds: int
    missing: int
    last_at: datetime | None


def kept_because(standing: Standing, at: datetime) -> str:
    """Why an exam's images stay, in words; empty when they may go.

    Every condition is asked on its own: a status alone is never believed.
    """
    cancelled = standing.status is ExamStatus.CANCELLED
    ended = _not_cancelled(standing) if cancelled else _not_delivered(standing)
    return _in_dispute(standing) or ended or _not_over(standing, at)


def _in_dispute(standing: Standing) -> str:
    if standing.retention_days is None:
        return "its facility keeps everything"
    if not standing.instances:
        return "nothing of it is in the archive"
    if standing.holds:
        return f"{standing.holds} open holds touch it"
    return "a Study of it is in question" if standing.unmatched else ""


def _not_cancelled(standing: Standing) -> str:
    if standing.cancelled_at is None:
        return "nobody is known to have cancelled it"
    sending = any(state in _UNDER_WAY for state, _, _ in standing.deliveries)
    return "it is being sent" if sending else ""


def _not_delivered(standing: Standing) -> str:
    if standing.status not in _DONE:
        return f"it is {standing.status}"
    if standing.missing > 0 and standing.status is not ExamStatus.CLOSED:
        return f"{standing.missing} announced images have not come"
    if not standing.deliveries:
        return "it was sent nowhere"
    for state, acknowledged, total in standing.deliveries:
        if state != "delivered" or acknowledged != total or not total:
            return f"{acknowledged} of {total} are delivered"
    return f"{standing.unproven} images are not proven delivered" if standing.unproven else ""


def _not_over(standing: Standing, at: datetime) -> str:
    known = [standing.last_at]
    if standing.status is ExamStatus.CANCELLED:
        known.append(standing.cancelled_at)
    moments = [moment for moment in known if moment is not None]
    if not moments or (standing.last_at is None and standing.status in _DONE):
        return "nobody knows when it was delivered"
    until = max(moments) + timedelta(days=standing.retention_days or 0)
    return f"it is kept until {until:%Y-%m-%d %H:%M}" if at < until else ""
