"""Every template of every event, channel and language, tried with a sample: shown and checked."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct, structs

from rso.core.errors import ConfigError
from rso.core.exam import Exam, ExamStatus, Origin, Patient, Priority
from rso.core.notifying import EVENTS
from rso.engine.notices import OWN_TEMPLATES, notice_of, template_file, write_message
from rso.settings import Settings

__all__ = ["Sample", "languages_of", "sample_messages", "template_problems"]

_BESIDE = ("verify", "reset", "test")  # written for one person, about no exam


class Sample(Struct, frozen=True, kw_only=True):
    """One message as it would be; ``problem`` says why there is none.

    Attributes:
        file: The template, from the deployer's folder or RSO's.
        own: It is the deployer's.
    """

    event: str
    channel: str
    language: str
    file: str
    own: bool
    subject: str = ""
    text: str = ""
    problem: str = ""


def languages_of(settings: Settings) -> list[str]:
    """RSO's languages, and the deployer's."""
    found = {path.name for path in OWN_TEMPLATES.iterdir() if path.is_dir()}
    own = Path(settings.notify.templates) if settings.notify.templates else None
    if own is not None and own.is_dir():
        found |= {path.name for path in own.iterdir() if path.is_dir()}
    return sorted(found)


def sample_messages(settings: Settings, language: str, channels: Sequence[str]) -> list[Sample]:
    """A sample of each event on each channel in a language."""
    settings = structs.replace(settings, notify=structs.replace(settings.notify, language=language))
    events = [*EVENTS, *_BESIDE]
    return [
        _sample(settings, event, channel)
        for event in events
        for channel in channels
        if event != "reset" or channel == "email"  # a new password goes by email only
    ]


def template_problems(settings: Settings, channels: Sequence[str]) -> list[Sample]:
    """What cannot be written: broken templates of the deployer, of every language and channel."""
    return [
        sample
        for language in languages_of(settings)
        for sample in sample_messages(settings, language, channels)
        if sample.problem
    ]


def _exam() -> Exam:
    return Exam(
        id="", number="7Q2KM4TX9C", facility="NORTH", origin=Origin.REQUEST,
        status=ExamStatus.REQUESTED, patient=Patient(), priority=Priority.STAT,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def _sample(settings: Settings, event: str, channel: str) -> Sample:
    file = template_file(settings, event, channel)
    found = Sample(
        event=event, channel=channel, language=settings.notify.language,
        file=file.name if file else "", own=bool(file and OWN_TEMPLATES not in file.parents),
    )  # fmt: skip
    exam = None if event in _BESIDE else _exam()
    notice = notice_of(settings, event, exam, code="123456")
    try:
        message = write_message(settings, notice, channel=channel, address="", key="")
    except ConfigError as exc:
        return structs.replace(found, problem=str(exc))
    return structs.replace(found, subject=message.subject, text=message.text)
