"""What a person keeps for the active list: named views of it.

No patient data: a search is not kept.
"""

import secrets
from typing import Any

import msgspec
from msgspec import Struct, structs

from rso.core.errors import ConfigError
from rso.ledger.ledger import Ledger

__all__ = ["SavedView", "Views", "choose_view", "remove_view", "save_view", "views_of"]

_MOST_VIEWS = 12
_LONGEST_NAME = 40


class SavedView(Struct, frozen=True, kw_only=True):
    """A view: its name, and what it filters and sorts by."""

    key: str
    name: str
    filters: dict[str, str]


class Views(Struct, frozen=True, kw_only=True):
    """A person's views, and the key of the one that the list opens with (empty: none)."""

    views: tuple[SavedView, ...] = ()
    view: str = ""

    def get(self, key: str) -> SavedView | None:
        """The view with this key."""
        return next((view for view in self.views if view.key == key), None)


async def views_of(ledger: Ledger, email: str) -> Views:
    """A person's views."""
    rows = await ledger.fetch("SELECT preferences FROM user_account WHERE email = ?", email)
    return msgspec.json.decode(rows[0]["preferences"] or "{}", type=Views) if rows else Views()


async def _write(ledger: Ledger, email: str, views: Views) -> None:
    rows = await ledger.fetch("SELECT preferences FROM user_account WHERE email = ?", email)
    kept: dict[str, Any] = msgspec.json.decode(rows[0]["preferences"] or "{}") if rows else {}
    text = msgspec.json.encode(kept | msgspec.to_builtins(views)).decode()
    await ledger.execute("UPDATE user_account SET preferences = ? WHERE email = ?", text, email)


async def save_view(ledger: Ledger, email: str, name: str, filters: dict[str, str]) -> str:
    """Keep a view under a name, in place of one that is called so; its key.

    Raises:
        ConfigError: There is no name, or there are too many views.
    """
    name = " ".join(name.split())[:_LONGEST_NAME]
    if not name:
        raise ConfigError("a view needs a name")
    async with ledger.transaction():
        before = await views_of(ledger, email)
        others = tuple(view for view in before.views if view.name != name)
        if len(others) >= _MOST_VIEWS:
            raise ConfigError(f"there are {_MOST_VIEWS} views already; remove one first")
        old = next((view for view in before.views if view.name == name), None)
        key = old.key if old else secrets.token_hex(4)
        made = SavedView(key=key, name=name, filters=filters)
        await _write(ledger, email, structs.replace(before, views=(*others, made)))
    return key


async def remove_view(ledger: Ledger, email: str, key: str) -> None:
    """Forget a view."""
    async with ledger.transaction():
        before = await views_of(ledger, email)
        rest = tuple(view for view in before.views if view.key != key)
        first = "" if before.view == key else before.view
        await _write(ledger, email, Views(views=rest, view=first))


async def choose_view(ledger: Ledger, email: str, key: str) -> None:
    """Open the list with this view from now on; an unknown key means with none."""
    async with ledger.transaction():
        before = await views_of(ledger, email)
        known = key if before.get(key) else ""
        await _write(ledger, email, structs.replace(before, view=known))
