"""Small words of the pages."""

import pytest

from rso.web.words import clock_words


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0, "0 min left"), (59, "59 min left"), (80, "1 h 20 min left"), (-5, "5 min over"),
     (-125, "2 h 5 min over"), (60 * 72, "3 days left")],
)  # fmt: skip
def test_the_clock_in_words(minutes: int, words: str) -> None:
    """Counts down, then up."""
    assert clock_words(minutes) == words
