"""Forms of what is there already: whether somebody else changed it since the form was shown."""

from collections.abc import Mapping
from typing import Any

import msgspec
from blake3 import blake3

__all__ = ["is_stale", "version_of"]


def version_of(there: Mapping[str, Any]) -> str:
    """What a form carries of that which it shows; the same as long as nobody changes it."""
    return blake3(msgspec.json.encode(there, order="sorted")).hexdigest(length=16)


def is_stale(form: Mapping[str, str], version: str) -> bool:
    """Whether a form shows what is no more; one that does not say is taken as it is."""
    return bool(form.get("shown")) and form["shown"] != version
