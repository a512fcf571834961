"""Quiet hours by the wall clock, texts that fit, and messages without patients."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rso.core.errors import ConfigError
from rso.core.notifying import (
    EVENTS,
    QuietHours,
    breaks_quiet,
    fit_sms,
    is_awake,
    is_gsm7,
    mask,
    parse_quiet,
    wants,
)


def quiet(text: str, zone: str = "Europe/Berlin") -> QuietHours:
    """Quiet hours that are written rightly."""
    found = parse_quiet(text, zone)
    assert found is not None
    return found


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-01-10T20:59", None),  # 21:59 in Berlin
        ("2026-01-10T21:00", "2026-01-11T06:00"),
        ("2026-01-11T05:59", "2026-01-11T06:00"),
        ("2026-01-11T06:00", None),
        ("2026-03-28T23:00", "2026-03-29T05:00"),  # the night that loses an hour
        ("2026-10-24T22:00", "2026-10-25T06:00"),  # the night that gains one
    ],
)
def test_quiet_hours_follow_the_wall_clock(now: str, until: str | None) -> None:
    """Also in the nights when the clocks change."""
    assert quiet("22:00-07:00").until(at(now)) == (at(until) if until else None)


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 12, 31)),
    st.times(), st.times(), st.sampled_from(["UTC", "Europe/Berlin", "America/New_York",
                                             "Australia/Lord_Howe", "Asia/Kathmandu"]),
)  # fmt: skip
def test_quiet_hours_always_end(now: datetime, begin: object, end: object, zone: str) -> None:
    """Within a day and an hour, and never in the past."""
    hours = QuietHours(begin=begin, end=end, timezone=zone)  # type: ignore[arg-type]
    moment = now.replace(tzinfo=UTC)
    until = hours.until(moment)
    if until is not None:
        assert moment < until <= moment + timedelta(hours=25, minutes=1)


def test_what_cannot_wait() -> None:
    """STAT, holds and stopped deliveries."""
    assert breaks_quiet("manual", "stat", "yes")
    assert breaks_quiet("study_held", "", "yes")
    assert breaks_quiet("release_recalled", "routine", "yes")
    assert not breaks_quiet("release_recalled", "routine")
    assert not breaks_quiet("exam_created", "routine", "yes")


def test_who_is_not_asked_is_not_woken() -> None:
    """Without consent only as the one on call, and not even then against one's word."""
    assert not breaks_quiet("manual", "stat")
    assert breaks_quiet("exam_overdue", "routine", on_call=True)
    assert not breaks_quiet("manual", "stat", "no", on_call=True)
    night = at("2026-01-10T23:00")
    assert is_awake("22:00-07:00", "UTC", "", night)
    assert not is_awake("22:00-07:00", "UTC", "no", night)
    assert is_awake("22:00-07:00", "UTC", "no", at("2026-01-10T12:00"))


@pytest.mark.parametrize("text", ["22-25", "aa-bb", "22:00", "22:00-07:00"])
def test_wrong_quiet_hours_are_said(text: str) -> None:
    """Hours, and the zone."""
    zone = "Mars/Olympus" if text == "22:00-07:00" else "UTC"
    with pytest.raises(ConfigError, match="22:00-07:00"):
        parse_quiet(text, zone)


@given(st.text(max_size=400))
def test_a_text_message_is_one(text: str) -> None:
    """At most 160 of GSM 03.38 or 70 of anything else; cut where it was longer."""
    fitted = fit_sms(text)
    if is_gsm7(text):
        assert sum(2 if c in "^{}\\[~]|€" else 1 for c in fitted) <= 160
    else:
        assert len(fitted) <= 70
    assert fitted == text or fitted.endswith("...")


@given(st.text(max_size=400), st.sampled_from(["https://rso.example.org/exams/7Q2KM4TX9C", ""]))
def test_a_text_message_keeps_its_link(words: str, link: str) -> None:
    """The words before it are cut, the link is not."""
    fitted = fit_sms(words + link, keep=link)
    assert fitted.endswith(link)
    assert fitted == words + link or "... " in fitted or not link


def test_who_wants_what() -> None:
    """A role's default, and what a person chose instead."""
    assert wants("technician", "exam_created", [])
    assert not wants("technician", "study_held", [])
    assert wants("technician", "study_held", ["study_held"])
    assert not wants("technician", "exam_created", ["study_held"])
    assert wants("radiologist", "exam_delivered", [], "stat")
    assert not wants("radiologist", "exam_delivered", [], "routine")
    assert wants("customer", "manual", ["study_held"])
    for role in ("radiologist", "coordinator"):  # this cannot be declined
        assert wants(role, "release_recalled", ["exam_delivered"], "routine")
    assert not wants("technician", "release_recalled", [])


def test_addresses_are_masked() -> None:
    """Known to their owner only."""
    assert mask("tech@example.org") == "t***@example.org"
    assert mask("+12025550100") == "***100"


def test_every_event_has_its_templates() -> None:
    """In every language."""
    notices = Path(__file__).parents[2] / "rso" / "notices"
    for language in notices.iterdir():
        names = {path.stem for path in language.iterdir()}
        assert names == {*EVENTS, "verify", "test", "reset"}, language.name
