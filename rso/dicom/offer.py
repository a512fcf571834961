"""What an A-ASSOCIATE-RQ offers, counted before anything is made of it (PS3.8 9.3.2).

pynetdicom takes any number of items of any kind at any depth, and compares each Transfer Syntax
of a presentation context with all before it: a PDU of 256 KiB can cost it half a minute.
"""

from collections.abc import Iterator

from rso.dicom.wire import WireError

__all__ = ["MOST_CONTEXTS", "MOST_SYNTAXES", "excess"]

MOST_CONTEXTS = 128  # an ID is odd and one byte
# The standard knows about sixty, with all that are retired; who offers each of them may come.
MOST_SYNTAXES = 128
_MOST_USER_ITEMS = 400  # three kinds come once a SOP Class, the others once
_MOST_OTHERS = 8
_APPLICATION, _CONTEXT, _USER = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_USER_KINDS = range(0x51, 0x5A)
_CONTEXT_HEAD = 4


def excess(items: bytes) -> str:
    """What there is too much of in the variable items; empty: it may be decoded.

    Looks at no more than it allows, whatever the size.

    Raises:
        WireError: They are no items, or not of those that belong there.
    """
    contexts = others = 0
    for kind, start, end in _walk(items, 0, len(items)):
        contexts += kind == _CONTEXT
        others += kind != _CONTEXT
        if contexts > MOST_CONTEXTS:
            return f"it offers more than {MOST_CONTEXTS} presentation contexts"
        if others > _MOST_OTHERS:
            return f"it sends more than {_MOST_OTHERS} items that are no presentation context"
        if kind == _CONTEXT:
            found = _excess_of_context(items, start, end)
        elif kind == _USER:
            found = _excess_of_user(items, start, end)
        elif kind == _APPLICATION:
            found = ""
        else:
            raise WireError("the A-ASSOCIATE-RQ holds an item of another PDU")
        if found:
            return found
    return ""


def _excess_of_context(items: bytes, start: int, end: int) -> str:
    for number, (kind, _, _) in enumerate(_walk(items, start + _CONTEXT_HEAD, end)):
        if kind not in {_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX}:
            raise WireError("a presentation context holds an item that is no syntax")
        if number > MOST_SYNTAXES:  # one is the abstract syntax
            return f"it offers more than {MOST_SYNTAXES} Transfer Syntaxes in one context"
    return ""


def _excess_of_user(items: bytes, start: int, end: int) -> str:
    for number, (kind, _, _) in enumerate(_walk(items, start, end), 1):
        if kind not in _USER_KINDS:
            raise WireError("the user information holds an item that does not belong there")
        if number > _MOST_USER_ITEMS:
            return f"it sends more than {_MOST_USER_ITEMS} items of user information"
    return ""


def _walk(items: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Kind, and where the value begins and ends, of each item between ``start`` and ``end``."""
    while start != end:
        value = start + 4
        if value > end:
            raise WireError("an item of the A-ASSOCIATE-RQ is cut")
        stop = value + int.from_bytes(items[start + 2 : value], "big")
        if stop > end:
            raise WireError("an item of the A-ASSOCIATE-RQ is longer than what it is in")
        yield items[start], value, stop
        start = stop
