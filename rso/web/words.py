"""Times and events as people say them: relative, or in UTC and saying so."""

from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

__all__ = ["ago_words", "clock_words", "event_words", "notice_words", "span_words", "when"]

_NOTICES = {
    "exam_created": "exam requested",
    "exam_matched": "images received",
    "exam_settled": "no more images expected",
    "study_held": "images held",
    "exam_overdue": "exam overdue",
    "delivery_failed": "delivery stopped",
    "release_recalled": "images taken back",
    "exam_delivered": "exam delivered",
    "manual": "told by a person",
    "verify": "code that proves an address",
    "reset": "new password",
    "test": "test of a channel",
}

_EVENTS = {
    "exam created": "requested",
    "exam claimed": "claimed",
    "exam assigned": "assigned",
    "exam released by its owner": "let go",
    "exam complete": "said to be complete",
    "exam edited": "edited",
}


def clock_words(minutes: int) -> str:
    """Time left, or over, as people say it: ``1 h 20 min left``."""
    word = "left" if minutes >= 0 else "over"
    hours, rest = divmod(abs(minutes), 60)
    if hours >= 48:
        return f"{hours // 24} days {word}"
    return f"{hours} h {rest} min {word}" if hours else f"{rest} min {word}"


def ago_words(past: timedelta) -> str:
    """How long ago: ``now``, ``5 min ago``, ``3 h ago``, ``2 days ago``."""
    minutes = int(past.total_seconds() // 60)
    if minutes < 1:
        return "now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 48 * 60:
        return f"{minutes // 60} h ago"
    return f"{minutes // (24 * 60)} days ago"


def event_words(row: dict[str, Any]) -> tuple[str, datetime]:
    """The last thing that happened to an exam of the active list, and when."""
    said = row["said"]
    found: list[tuple[datetime, str]] = [(row["created_at"], "requested")]
    if said is not None:
        who = said["actor"].split("@")[0].split(":")[0]
        found.append((said["at"], f"{_EVENTS.get(said['action'], said['action'])} by {who}"))
    for column, word in (
        ("last_instance_at", "image came in"),
        ("settled_at", "no more images"),
        ("delivered_at", "delivered"),
    ):
        if row[column] is not None:
            found.append((row[column], word))
    at, word = max(found)
    return word, at


def span_words(minutes: float) -> str:
    """A length of time: ``45 s``, ``12 min``, ``3 h 5 min``, ``4 days``."""
    if minutes < 1:
        return f"{round(minutes * 60)} s"
    hours, rest = divmod(round(minutes), 60)
    if hours >= 72:
        return f"{hours // 24} days"
    if not hours:
        return f"{rest} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def notice_words(event: str) -> str:
    """What a message tells of, as people say it."""
    return _NOTICES.get(event, event.replace("_", " "))


def when(at: datetime | str) -> Markup:
    """A moment of this or another year, an ISO 8601 text too: ``25 Nov 2026 18:12:03 UTC``."""
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    moment = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%d %b %Y %H:%M:%S")
    )
