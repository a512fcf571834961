"""Delivery policy: what an answer means, when to try again, when to leave a destination alone."""

import re

from rso.core.transport import Outcome

__all__ = ["BACKOFF_CAP_SECONDS", "backoff", "classify_dimse", "reason_words"]

BACKOFF_CAP_SECONDS = 900.0
_FIRST_SECONDS = 1.0

# C-STORE answers that waiting may mend: out of resources, resource limitation, processing failure.
_RETRY = frozenset({0x0110, 0x0213})
# Success, and the duplicate that shows an earlier, lost acknowledgement.
_ACKNOWLEDGED = frozenset({0x0000, 0x0111})
# By the beginning of a status, the longest first.
_MEANINGS = {
    "0000": "success",
    "0110": "processing failed there",
    "0111": "was there already",
    "0117": "the SOP Instance UID is not taken there",
    "0122": "this SOP Class is not taken there",
    "0124": "not authorized there",
    "0213": "out of resources there",
    "A7": "out of resources there",
    "A9": "the dataset does not match its SOP Class there",
    "B": "taken with a warning",
    "C": "cannot understand this image",
}


def classify_dimse(status: int) -> Outcome:
    """What a C-STORE response status means for its instance (PS3.4 B.2.3, PS3.7 C).

    Warnings (``B0xx``) mean stored; ``A7xx`` may pass; everything else needs a person.
    """
    if status in _ACKNOWLEDGED or status & 0xFF00 == 0xB000:
        return Outcome.ACKNOWLEDGED
    if status in _RETRY or status & 0xFF00 == 0xA700:
        return Outcome.RETRY
    return Outcome.STOPPED


def reason_words(code: str, reason: str = "") -> str:
    """Why an instance got this answer: in its peer's own words, else what the code's class means.

    Empty where there are no words and the code is no C-STORE status (PS3.4 B.2.3, PS3.7 C).
    """
    if reason or not re.fullmatch("[0-9A-F]{4}", code):
        return reason
    return next((words for begins, words in _MEANINGS.items() if code.startswith(begins)), "")


def backoff(attempts: int, chance: float = 0.5) -> float:
    """Seconds to wait after so many failed attempts: doubling, capped, spread by a third.

    Args:
        attempts: 1 after the first failure.
        chance: A random number of 0 to 1, so that many do not come back at once.
    """
    seconds = min(_FIRST_SECONDS * 2.0 ** min(max(attempts - 1, 0), 20), BACKOFF_CAP_SECONDS)
    return seconds * (2 + chance) / 3
