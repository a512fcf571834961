"""Small words of the pages."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import rso.web
from rso.web.words import clock_words, when

TEMPLATES = Path(rso.web.__file__).parent / "templates"


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "0 min left"), (59, "59 min left"), (80, "1 h 20 min left"), (-5, "5 min over"),
     (-125, "2 h 5 min over"), (60 * 72, "3 days left")],
)  # fmt: skip
def test_the_clock_in_words(minutes: int, words: str) -> None:
    """Counts down, then up."""
    assert clock_words(minutes) == words


def test_a_moment_says_its_zone() -> None:
    """Of a text or a datetime, in any zone: the same moment, in UTC, for people and for programs."""
    shown = '<time datetime="2026-11-25T18:12:03+00:00">25 Nov 2026 18:12:03 UTC</time>'
    at = datetime(2026, 11, 25, 18, 12, 3, tzinfo=UTC)
    for same in (at, at.isoformat(), at.astimezone(timezone(timedelta(hours=5)))):
        assert when(same) == shown


# An hour of a diagram's table, and the end of quiet hours, today's or tomorrow's.
_WITHOUT_A_DATE = ('strftime("%d %b %H:00") }} UTC', 'strftime("%H:%M") }} UTC')


@pytest.mark.parametrize("file", sorted(TEMPLATES.glob("*.html")), ids=lambda file: file.name)
def test_every_moment_on_a_page_is_written_the_same_way(file: Path) -> None:
    """With its date and its zone, beside the moment itself: a heading above is not on a phone."""
    text = file.read_text()
    for told in _WITHOUT_A_DATE:
        text = text.replace(told, "")
    assert "strftime" not in text, "write it with when()"
