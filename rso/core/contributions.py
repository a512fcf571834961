"""What plugins add to the web application: entries of the menu, actions on an exam, tiles."""

from collections.abc import Iterable
from typing import Literal, TypeVar

from msgspec import Struct

from rso.core.exam import Exam

__all__ = ["ExamAction", "Page", "Tile", "visible_to"]


class Page(Struct, frozen=True, kw_only=True):
    """An entry of the main menu.

    Attributes:
        title: One or two words.
        path: Of a page that the plugin's own route answers, such as ``/worklist``.
        roles: Who sees it; empty: everybody who is signed in. An admin sees all.
    """

    title: str
    path: str
    roles: tuple[str, ...] = ()


class ExamAction(Struct, frozen=True, kw_only=True):
    """A button on an exam's page.

    Attributes:
        title: A verb and its object: ``Upload images``.
        path: With ``{number}`` where the exam number belongs: ``/exams/{number}/upload``.
        method: ``post`` sends a form with its CSRF token, ``get`` follows a link.
        roles: Who sees it; empty: everybody who sees the exam. An admin sees all.
        statuses: Of exams that have it (``receiving``, …); empty: all.
        main: True makes it stand out; one a page is enough.
    """

    title: str
    path: str
    method: Literal["get", "post"] = "get"
    roles: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    main: bool = False

    def url(self, exam: Exam) -> str:
        """Where the button leads for this exam."""
        return self.path.replace("{number}", exam.number)


class Tile(Struct, frozen=True, kw_only=True):
    """A tile of the dashboard: a piece of a page that the plugin's own route answers.

    Attributes:
        title: Its heading.
        path: A route that answers with an HTML fragment for the caller, fetched again and again.
        seconds: How often.
        roles: Who sees it; empty: everybody who sees the dashboard. An admin sees all.
    """

    title: str
    path: str
    seconds: int = 30
    roles: tuple[str, ...] = ()


_Kind = TypeVar("_Kind", Page, ExamAction, Tile)


def visible_to(role: str, found: Iterable[_Kind]) -> list[_Kind]:
    """What a role sees, each path once, in the order of registration."""
    seen: dict[str, _Kind] = {}
    for item in found:
        if role == "admin" or not item.roles or role in item.roles:
            seen.setdefault(item.path, item)
    return list(seen.values())
