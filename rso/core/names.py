"""Comparing people: names, birth dates and sexes, strictly enough to route by.

Names follow PS3.5 6.2.1: up to three groups (alphabetic, ideographic, phonetic) of five
components (family, given, middle, prefix, suffix).
"""

import re
import unicodedata
from datetime import date
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

__all__ = [
    "Likeness",
    "Name",
    "compare_birth_dates",
    "compare_names",
    "compare_sexes",
    "is_day_month_swap",
    "parse_birth_date",
    "read_name",
    "search_key",
]

_GENERATIONS = frozenset({"jr", "sr", "ii", "iii", "iv", "junior", "senior"})
_SAME_GENERATION = {"junior": "jr", "senior": "sr"}
_NOBODY = frozenset(
    {"unknown", "unk", "anon", "anonymous", "anonymized", "anonymised", "test", "noname", "none"}
)
_MARKS = re.compile("[\u0300-\u036f]")
_SPACES = re.compile(r"[\s_/]+")
_SHORTEST_EDITED = 5


class Likeness(StrEnum):
    """What comparing one field says."""

    EXACT = "exact"
    CLOSE = "close"
    EQ = "equal"
    DIFF = "differs"
    EMPTY = "empty"


class Name(Struct, frozen=True):
    """A normalised name of one script.

    ``typed`` holds the tokens of a name that was written without carets, in their order.
    """

    family: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    middle: tuple[str, ...] = ()
    generation: str = ""
    typed: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens, family first, without the generation."""
        return self.typed or self.family + self.given + self.middle


def _normalise(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    # Only the combining marks of alphabets: in other scripts they tell names apart.
    text = _MARKS.sub("", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", text)


def _tokens(text: str) -> list[str]:
    words = _SPACES.split(text)
    kept = ("".join(c for c in word if unicodedata.category(c)[0] in "LMN") for word in words)
    return [word for word in kept if word]


def _take_generation(tokens: list[str]) -> str:
    if len(tokens) > 1 and tokens[-1] in _GENERATIONS:
        last = tokens.pop()
        return _SAME_GENERATION.get(last, last)
    return ""


def _read_group(text: str) -> Name:
    if "^" not in text and "," in text:
        text = text.replace(",", "^", 1)
    components = [_tokens(part) for part in _normalise(text).split("^")]
    if len(components) == 1:
        tokens = components[0]
        generation = _take_generation(tokens)
        if len(tokens) > 1:
            return Name(typed=tuple(tokens), generation=generation)
        return Name(family=tuple(tokens), generation=generation)
    components += [[]] * (5 - len(components))
    family, given, middle, _, suffix = components[:5]
    family, given, middle = list(family), list(given), list(middle)
    generation = _take_generation(family) or _take_generation(given) or _take_generation(middle)
    if middle and middle[-1] in _GENERATIONS:
        last = middle.pop()
        generation = _SAME_GENERATION.get(last, last)
    written = "".join(suffix)
    generation = _SAME_GENERATION.get(written, written) or generation
    # Further given names are middle names, whichever component they were typed into.
    return Name(tuple(family), tuple(given[:1]), tuple(given[1:] + middle), generation)


@lru_cache(maxsize=4096)
def read_name(text: str) -> tuple[Name | None, Name | None, Name | None]:
    """The alphabetic, ideographic and phonetic groups of a Person Name; ``None`` when empty.

    Names that say nobody (UNKNOWN, ANON, TEST) read as empty.
    """
    groups: list[Name | None] = []
    for part in [*text.split("="), "", "", ""][:3]:
        name = _read_group(part)
        words = name.tokens
        nobody = not words or words[0] in _NOBODY or (name.given and name.given[0] in _NOBODY)
        groups.append(None if nobody else name)
    return groups[0], groups[1], groups[2]


def search_key(text: str) -> str:
    """A name's tokens in order, folded, for finding a person by any spelling of case or accent."""
    return " ".join(" ".join(n.tokens) for n in read_name(text) if n is not None)


def compare_names(one: str, other: str, *, same_birth_date: bool = False) -> Likeness:
    """EXACT, CLOSE, DIFF, or EMPTY when either says nothing."""
    ours, theirs = read_name(one), read_name(other)
    if not any(ours) or not any(theirs):
        return Likeness.EMPTY
    for a, b in zip(ours, theirs, strict=True):
        if a is not None and b is not None:
            return _compare(a, b, same_birth_date=same_birth_date)
    return Likeness.DIFF  # no script in common: nothing shows that they are one person


def _compare(a: Name, b: Name, *, same_birth_date: bool) -> Likeness:
    if a.generation and b.generation and a.generation != b.generation:
        return Likeness.DIFF
    likeness = _compare_parts(a, b, same_birth_date=same_birth_date)
    if likeness is Likeness.EXACT and a.generation != b.generation:
        return Likeness.CLOSE  # father and son share all but this
    return likeness


def _compare_parts(a: Name, b: Name, *, same_birth_date: bool) -> Likeness:
    if a.typed or b.typed:
        return _compare_typed(a, b)
    if not a.given or not b.given:
        same = not a.given and not b.given and _joined(a.family) == _joined(b.family)
        return Likeness.EXACT if same else Likeness.DIFF
    same_given = a.given == b.given and _middles_agree(a.middle, b.middle)
    same_given = same_given or _joined(a.given + a.middle) == _joined(b.given + b.middle)
    family, other = _joined(a.family), _joined(b.family)
    if same_given and family == other:
        return Likeness.EXACT
    if _swapped(a, b) or sorted(a.tokens) == sorted(b.tokens):
        return Likeness.CLOSE
    if _joined(a.tokens) == _joined(b.tokens):
        return Likeness.CLOSE
    edited = same_given and same_birth_date and min(len(family), len(other)) >= _SHORTEST_EDITED
    return Likeness.CLOSE if edited and _one_edit(family, other) else Likeness.DIFF


def _compare_typed(a: Name, b: Name) -> Likeness:
    if a.typed and b.typed:
        if a.typed == b.typed:
            return Likeness.EXACT
        return Likeness.CLOSE if sorted(a.typed) == sorted(b.typed) else Likeness.DIFF
    typed, name = (a.typed, b) if a.typed else (b.typed, a)
    if not name.given:
        return Likeness.DIFF
    orders = {
        name.family + name.given,
        name.given + name.family,
        name.family + name.given + name.middle,
        name.given + name.middle + name.family,
    }
    if typed in orders:
        return Likeness.EXACT
    return Likeness.CLOSE if sorted(typed) == sorted(name.tokens) else Likeness.DIFF


def _swapped(a: Name, b: Name) -> bool:
    return (
        _joined(a.family) == _joined(b.given)
        and _joined(a.given) == _joined(b.family)
        and _middles_agree(a.middle, b.middle)
    )


def _middles_agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether middle names do not conflict: missing ones, and initials, do not."""
    if _joined(one) == _joined(other):
        return True
    return all(
        a == b or (1 in {len(a), len(b)} and a[0] == b[0]) for a, b in zip(one, other, strict=False)
    )


def _joined(tokens: tuple[str, ...]) -> str:
    return "".join(tokens)


def _one_edit(a: str, b: str) -> bool:
    """Damerau distance 1: one symbol added, lost, changed, or two neighbours swapped."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if start is None:
        return True
    if len(a) != len(b):
        longer, shorter = (a, b) if len(a) > len(b) else (b, a)
        return longer[start + 1 :] == shorter[start:]
    if a[start + 1 :] == b[start + 1 :]:
        return True
    return a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]


def parse_birth_date(text: str) -> str:
    """``YYYYMMDD`` of a real day, else an empty string; ``YYYY.MM.DD`` and dashes are read."""
    digits = text.strip().replace("-", "").replace(".", "")
    if len(digits) != 8 or not digits.isascii() or not digits.isdecimal():
        return ""
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return ""
    return digits


def compare_birth_dates(one: str, other: str) -> Likeness:
    """EQ, DIFF, or EMPTY when either is missing or no real day."""
    a, b = parse_birth_date(one), parse_birth_date(other)
    if not a or not b:
        return Likeness.EMPTY
    return Likeness.EQ if a == b else Likeness.DIFF


def is_day_month_swap(one: str, other: str) -> bool:
    """Whether two different birth dates are one with day and month swapped: a hint, no more."""
    a, b = parse_birth_date(one), parse_birth_date(other)
    return bool(a and b and a != b and a[:4] == b[:4] and a[4:6] == b[6:] and a[6:] == b[4:6])


def compare_sexes(one: str, other: str) -> Likeness:
    """EQ, DIFF, or EMPTY when either is blank, other or unknown."""
    a, b = one.strip().upper(), other.strip().upper()
    if a not in {"M", "F"} or b not in {"M", "F"}:
        return Likeness.EMPTY
    return Likeness.EQ if a == b else Likeness.DIFF
