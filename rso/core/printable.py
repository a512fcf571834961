"""What a peer says, fit for a row, a log and a page."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """The text without what nobody can read: control characters, NUL, halves of surrogate pairs.

    No text of PostgreSQL holds NUL, so one in an answer would lose the answer.
    """
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    return text.strip()
