"""What a site.toml would change: loaded in a transaction, looked at, and rolled back."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from rso.ledger.ledger import Ledger
from rso.ledger.site import load_site
from rso.ledger.site_export import export_site

__all__ = ["SiteChange", "SitePreview", "preview_site"]

_KEYS = {"facility": "code", "radiologist": "code", "user": "email"}


class SiteChange(Struct, frozen=True, kw_only=True):
    """One entry that is new or would differ.

    Attributes:
        fields: Each field that differs, with what it is and what it would be; never a password.
    """

    kind: str
    key: str
    action: Literal["added", "changed"]
    fields: dict[str, tuple[str, str]]


class SitePreview(Struct, frozen=True, kw_only=True):
    """All that loading a document would do."""

    changes: list[SiteChange]
    warnings: list[str]


class _Undo(Exception):  # noqa: N818  (it undoes, nothing is wrong)
    pass


async def preview_site(ledger: Ledger, document: Mapping[str, Any]) -> SitePreview:
    """Check a document as ``load_site`` does, and say what it would change; nothing changes.

    Raises:
        ConfigError: The document is wrong.
    """
    before = await export_site(ledger)
    after: dict[str, Any] = {}
    warnings: list[str] = []
    try:
        async with ledger.transaction():
            warnings = (await load_site(ledger, document))["warnings"]
            after = await export_site(ledger)
            raise _Undo
    except _Undo:
        pass
    return SitePreview(changes=list(_differences(before, after)), warnings=warnings)


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[SiteChange]:
    found = []
    for kind, name in _KEYS.items():
        old = {entry[name]: entry for entry in before.get(kind, [])}
        for entry in after.get(kind, []):
            known = old.get(entry[name], {})
            fields = {
                field: (_shown(field, known.get(field)), _shown(field, entry.get(field)))
                for field in [*entry, *(f for f in known if f not in entry)]
                if field != name and known.get(field) != entry.get(field)
            }
            if fields or not known:
                found.append(
                    SiteChange(
                        kind=kind,
                        key=entry[name],
                        action="changed" if known else "added",
                        fields=fields,
                    )
                )
    return found


def _shown(field: str, value: Any) -> str:
    if value is None or value == "":
        return ""
    return msgspec.json.encode(_without_secrets(field, value)).decode()


def _without_secrets(field: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets("", item) for item in value]
    if field == "password":
        # Enough of the hash to see that it differs, too little to be of use.
        return f"(hash …{str(value)[-6:]})" if str(value).startswith("$argon2") else "(new)"
    return value
