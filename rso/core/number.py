"""The exam number: eight random symbols and two that catch every error of up to two.

Crockford's base 32 (no I, L, O, U), read tolerantly. The check is a Reed-Solomon code over GF(32)
of distance 3: any one or two wrong symbols, and so every swap, are noticed.
"""

import secrets
from collections.abc import Iterable

from rso.core.errors import ExamError

__all__ = [
    "ALPHABET",
    "format_number",
    "is_valid",
    "looks_like_number",
    "make_number",
    "nearby",
    "parse_number",
    "read_prefix",
]

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 10
_DATA = 8
_VALUE = {symbol: value for value, symbol in enumerate(ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_DASHES = "-\u2010\u2011\u2012\u2013\u2212"
_DROP = {ord(c): None for c in f" \t\u00a0{_DASHES}"}


def _tables() -> tuple[list[int], list[int]]:
    power, log = [0] * 62, [0] * 32
    value = 1
    for exponent in range(31):
        power[exponent] = power[exponent + 31] = value
        log[value] = exponent
        value <<= 1
        if value & 32:
            value ^= 0b100101  # x^5 + x^2 + 1, primitive over GF(2)
    return power, log


_POWER, _LOG = _tables()


def _times(a: int, b: int) -> int:
    return _POWER[_LOG[a] + _LOG[b]] if a and b else 0


# The generator (x - a)(x - a^2), without its leading 1.
_G1, _G0 = _POWER[1] ^ _POWER[2], _times(_POWER[1], _POWER[2])


def _check(values: Iterable[int]) -> tuple[int, int]:
    """Remainder of the values, times x^2, by the generator."""
    high = low = 0
    for value in values:
        factor = value ^ high
        high, low = low ^ _times(factor, _G1), _times(factor, _G0)
    return high, low


def make_number() -> str:
    """A new number from the system's random source; the caller sees that it is unused."""
    values = [secrets.randbelow(32) for _ in range(_DATA)]
    return "".join(ALPHABET[v] for v in (*values, *_check(values)))


def format_number(number: str) -> str:
    """``7Q2KM4TX9C`` as people read it: ``7Q2K-M4TX-9C``."""
    return f"{number[:4]}-{number[4:8]}-{number[8:]}"


def is_valid(number: str) -> bool:
    """Whether ten plain symbols carry the right check."""
    if len(number) != _LENGTH or any(symbol not in ALPHABET for symbol in number):
        return False
    values = [_VALUE[symbol] for symbol in number]
    return _check(values[:_DATA]) == (values[8], values[9])


def read_prefix(text: str) -> str:
    """The beginning of a number, as tolerantly read as a whole one; empty if it cannot be one."""
    symbols = text.translate(_DROP).upper()
    if len(symbols) > _LENGTH or any(symbol not in _VALUE for symbol in symbols):
        return ""
    return "".join(ALPHABET[_VALUE[symbol]] for symbol in symbols)


def _plain(text: str) -> str | None:
    number = read_prefix(text)
    return number if len(number) == _LENGTH else None


def parse_number(text: str) -> str:
    """The number that a person or a header means, without dashes.

    Raises:
        ExamError: Not ten symbols, or the check shows that some are wrong.
    """
    number = _plain(text)
    if number is None:
        raise ExamError("an exam number has ten letters and digits, such as 7Q2K-M4TX-9C")
    if not is_valid(number):
        raise ExamError("the exam number has a wrong symbol: its check does not fit")
    return number


def looks_like_number(text: str) -> bool:
    """Whether a text has the shape of a number as RSO writes it, right or wrong.

    Ten symbols, plain or with both dashes in their places; any case, O, I and L for 0, 1 and 1.
    """
    symbols = text.strip().upper()
    if len(symbols) == _LENGTH + 2:
        if symbols[4] != "-" or symbols[9] != "-":
            return False
        symbols = symbols[:4] + symbols[5:9] + symbols[10:]
    return len(symbols) == _LENGTH and all(symbol in _VALUE for symbol in symbols)


def nearby(text: str, issued: Iterable[str]) -> list[str]:
    """Issued numbers that one wrong, or two swapped neighbouring, symbols make of ``text``."""
    number = _plain(text)
    if number is None:
        return []
    return sorted(other for other in issued if _is_near(number, other))


def _is_near(one: str, other: str) -> bool:
    wrong = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(wrong) == 1:
        return True
    if len(wrong) != 2 or wrong[1] - wrong[0] != 1:
        return False
    i, j = wrong
    return one[i] == other[j] and one[j] == other[i]
