"""The exam number catches what people do to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rso.core.errors import ExamError
from rso.core.number import (
    ALPHABET,
    format_number,
    is_valid,
    looks_like_number,
    make_number,
    nearby,
    parse_number,
    read_prefix,
)

symbols = st.sampled_from(ALPHABET)


@given(st.integers(0, 9), st.integers(0, 9), symbols, symbols)
def test_two_wrong_symbols_are_caught(i: int, j: int, a: str, b: str) -> None:
    """Any one or two changed symbols make a number invalid."""
    number = make_number()
    changed = list(number)
    changed[i], changed[j] = a, b
    wrong = "".join(changed)
    assert wrong == number or not is_valid(wrong)


def test_every_swap_is_caught() -> None:
    """Two symbols that changed places are noticed, neighbours or not."""
    number = make_number()
    for i in range(10):
        for j in range(i):
            swapped = list(number)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            assert number[i] == number[j] or not is_valid("".join(swapped))


def test_is_read_back_as_people_write_it() -> None:
    """Case, dashes, spaces and look-alike letters do not matter."""
    number = make_number()
    shown = format_number(number)
    sloppy = shown.lower().replace("0", "o").replace("1", "l").replace("-", " ")
    assert parse_number(shown) == parse_number(sloppy) == number


@pytest.mark.parametrize("text", ["", "123", "7Q2K-M4TX-9", "UUUUUUUUUU", "a" * 500])
def test_other_texts_are_refused(text: str) -> None:
    """What is no number raises with a reason."""
    with pytest.raises(ExamError, match="ten letters"):
        parse_number(text)


def test_shape_and_neighbours() -> None:
    """A mistyped number still has the shape, and finds the one it was meant to be."""
    number = make_number()
    wrong = ("Z" if number[0] != "Z" else "Y") + number[1:]
    assert looks_like_number(wrong)
    assert looks_like_number(format_number(wrong))
    assert not looks_like_number("PAT-00001")
    assert nearby(wrong, [number, make_number()]) == [number]


def test_the_beginning_of_a_number() -> None:
    """Read as tolerantly as a whole one; what cannot begin a number is none."""
    assert read_prefix("7q2k-mo") == "7Q2KM0"
    assert read_prefix(" 7Q 2i") == "7Q21"
    assert read_prefix("") == read_prefix("DOE^") == read_prefix("7Q2KM4TX9CA") == ""
