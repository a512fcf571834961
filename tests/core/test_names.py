"""Comparing names, dates and sexes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rso.core.names import Likeness, compare_birth_dates, compare_names, compare_sexes

EXACT = [
    ("DOE^JANE", "Doe^Jane"),
    ("DOE^JANE", "DOE JANE"),
    ("DOE^JANE", "jane doe"),
    ("Müller^Jörg", "MULLER^JORG"),
    ("O'BRIEN^PAT", "OBRIEN^PAT"),
    ("DOE^JANE^MARIE", "DOE^JANE"),
    ("DOE^JANE MARIE", "DOE^JANE^M"),
    ("SMITH-JONES^ANN", "SMITH JONES^ANN"),
    ("Yamada^Tarou=山田^太郎", "YAMADA^TAROU"),
    ("=山田^太郎", "Yamada^Tarou=山田^太郎"),
]
CLOSE = [("DOE^JANE", "JANE^DOE"), ("DOE^JOHN^^^JR", "DOE^JOHN")]
DIFF = [
    ("DOE^JANE", "DOE^JOAN"),
    ("DOE^JANE", "DOE^J"),
    ("DOE^JOHN^^^JR", "DOE^JOHN^^^SR"),
    ("DOE^JANE^MARIE", "DOE^JANE^ROSE"),
    ("DOE^JANE", "ROE^JANE"),
    ("=山田^太郎", "YAMADA^TAROU"),
    ("हरि^राम", "हरा^राम"),
]


@pytest.mark.parametrize(
    ("pairs", "likeness"), [(EXACT, "exact"), (CLOSE, "close"), (DIFF, "differs")]
)
def test_pairs(pairs: list[tuple[str, str]], likeness: str) -> None:
    """Each pair compares as it should, from either side."""
    for one, other in pairs:
        assert compare_names(one, other).value == likeness, (one, other)
        assert compare_names(other, one).value == likeness, (other, one)


def test_one_edit_needs_a_long_family_name_and_the_same_birth_date() -> None:
    """A typing error in the family name is close only with an equal birth date."""
    assert compare_names("SCHMIDT^ANNA", "SCHMITD^ANNA", same_birth_date=True) is Likeness.CLOSE
    assert compare_names("SCHMIDT^ANNA", "SCHMITD^ANNA") is Likeness.DIFF
    assert compare_names("DOE^ANNA", "DOR^ANNA", same_birth_date=True) is Likeness.DIFF


@pytest.mark.parametrize("nobody", ["", "UNKNOWN", "Anonymous^Patient", "TEST^PATIENT", "^^^"])
def test_nobody_is_empty(nobody: str) -> None:
    """Placeholders compare as empty."""
    assert compare_names(nobody, "DOE^JANE") is Likeness.EMPTY


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_compares_alike_from_both_sides(one: str, other: str) -> None:
    """Hostile names never raise, and the comparison is symmetric."""
    assert compare_names(one, other) is compare_names(other, one)


def test_dates_and_sexes() -> None:
    """Real days compare; impossible ones and unknown sexes are empty."""
    assert compare_birth_dates("19700131", "1970-01-31") is Likeness.EQ
    assert compare_birth_dates("19700102", "19700201") is Likeness.DIFF
    assert compare_birth_dates("19700231", "19700201") is Likeness.EMPTY
    assert compare_sexes("m", "M ") is Likeness.EQ
    assert compare_sexes("O", "M") is Likeness.EMPTY
