"""Who is told what, and when: pure rules. A message says no more than it may.

What a template may say is in ``Notice``, and there is no patient in it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from rso.core.errors import ConfigError

__all__ = [
    "EVENTS",
    "Notice",
    "QuietHours",
    "always_told",
    "breaks_quiet",
    "fit_sms",
    "is_awake",
    "is_gsm7",
    "mask",
    "parse_quiet",
    "wants",
]

# Each event with the roles that are told unless a person says otherwise.
EVENTS = {
    "exam_created": frozenset({"technician"}),
    "exam_matched": frozenset[str](),
    "exam_settled": frozenset[str](),
    "study_held": frozenset({"coordinator"}),
    "exam_overdue": frozenset({"technician", "coordinator"}),
    "delivery_failed": frozenset({"coordinator"}),
    "release_recalled": frozenset({"radiologist", "coordinator"}),
    "exam_delivered": frozenset({"radiologist"}),
    "manual": frozenset({"customer", "technician", "coordinator", "admin", "radiologist"}),
}
# These may break quiet hours: somebody waits, or may be harmed.
_URGENT_EVENTS = frozenset({"study_held", "delivery_failed", "release_recalled"})
# Another patient's images may be read meanwhile: those told by default cannot decline it.
_ALWAYS = frozenset({"release_recalled"})

_GSM7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM7_EXTENDED = frozenset("^{}\\[~]|€")


class Notice(Struct, frozen=True, kw_only=True):
    """Everything a template may use.

    Attributes:
        tail: The exam number's last four characters.
        exam_number: As people write it; for the sheet of a fax and for links.
    """

    event: str
    site: str
    link: str = ""
    tail: str = ""
    exam_number: str = ""
    priority: str = ""
    facility: str = ""
    code: str = ""


class QuietHours(Struct, frozen=True, kw_only=True):
    """Hours of a person's day, by the clock on their wall; empty when ``begin == end``."""

    begin: time
    end: time
    timezone: str = "UTC"

    def until(self, at: datetime) -> datetime | None:
        """When quiet hours that hold at ``at`` end (UTC); ``None`` outside of them."""
        local = at.astimezone(ZoneInfo(self.timezone))
        clock = local.time().replace(tzinfo=None)
        if self.begin == self.end:
            return None
        if self.begin < self.end:
            if not self.begin <= clock < self.end:
                return None
            day = local.date()
        else:
            if self.end <= clock < self.begin:
                return None
            day = local.date() + timedelta(days=1 if clock >= self.begin else 0)
        ends = datetime.combine(day, self.end, ZoneInfo(self.timezone)).astimezone(UTC)
        # In the hour that a clock change repeats, the wall shows the end twice.
        return ends if ends > at else at + timedelta(minutes=1)


def parse_quiet(text: str, timezone: str) -> QuietHours | None:
    """Quiet hours as people write them: ``22:00-07:00``; ``None`` for none.

    Raises:
        ConfigError: Not written like that, or no such time zone.
    """
    if not text.strip():
        return None
    begin, _, end = text.partition("-")
    try:
        ZoneInfo(timezone or "UTC")
        return QuietHours(
            begin=time.fromisoformat(begin.strip()),
            end=time.fromisoformat(end.strip()),
            timezone=timezone or "UTC",
        )
    except (ValueError, ZoneInfoNotFoundError, OSError) as exc:
        raise ConfigError(f"quiet hours are written as 22:00-07:00: {exc}") from exc


def wants(role: str, event: str, chosen: Sequence[str], priority: str = "") -> bool:
    """Whether a person of this role is told of an event; ``chosen`` replaces the default.

    By default a radiologist hears of a delivery only when it is not routine; of a recall always.
    """
    if event == "manual" or always_told(role, event):
        return True
    if chosen:
        return event in chosen
    if role == "radiologist" and priority not in {"stat", "urgent"}:
        return False
    return role in EVENTS.get(event, frozenset[str]())


def always_told(role: str, event: str) -> bool:
    """Whether a person of this role is told whatever they chose."""
    return event in _ALWAYS and role in EVENTS[event]


def breaks_quiet(event: str, priority: str, consent: str = "", *, on_call: bool = False) -> bool:
    """Whether it does not wait for the morning.

    Args:
        event: What happened.
        priority: Of the exam.
        consent: ``yes``: STAT, holds, stopped deliveries and recalls may come at any hour;
            ``no``: nothing does; empty: only what one is told as the one on call.
        on_call: Whether it is told to the one on call.
    """
    if on_call:
        return consent != "no"
    return consent == "yes" and (event in _URGENT_EVENTS or priority == "stat")


def is_awake(quiet: str, timezone: str, consent: str, at: datetime) -> bool:
    """Whether a contact takes what is told to the one on call at a moment."""
    hours = parse_quiet(quiet, timezone)
    return hours is None or hours.until(at) is None or consent != "no"


def is_gsm7(text: str) -> bool:
    """Whether an SMS carries it in 7 bits a character (GSM 03.38)."""
    return all(letter in _GSM7 or letter in _GSM7_EXTENDED for letter in text)


def fit_sms(text: str, keep: str = "") -> str:
    """The text within one SMS: 160 characters of GSM 03.38, or 70 of anything else.

    Args:
        text: What to say.
        keep: What is not cut, where it stands at the end (a link): the words before it are.
    """
    most = 160 if is_gsm7(text) else 70

    def size(part: str) -> int:
        return sum(2 if c in _GSM7_EXTENDED and most == 160 else 1 for c in part)

    if size(text) <= most:
        return text
    end = f"... {keep}" if keep and text.endswith(keep) else "..."
    if size(end) > most:
        end = "..."
    text = text.removesuffix(keep) if end != "..." else text
    while size(text) + size(end) > most:
        text = text[:-1]
    return text + end


def mask(address: str) -> str:
    """An address that its owner recognises and nobody else learns."""
    name, at, domain = address.partition("@")
    if at:
        return f"{name[:1]}***@{domain}"
    return f"***{address[-3:]}"
