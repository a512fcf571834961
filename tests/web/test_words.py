"""Small words of the pages."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from rso.web.words import clock_words, when


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
