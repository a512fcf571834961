"""How much room there is: the volumes of spool and archive, and what the spool holds."""

import os
import shutil
from pathlib import Path

from msgspec import Struct

from rso.settings import Settings

__all__ = ["Volume", "spool_bytes", "volumes"]


class Volume(Struct, frozen=True, kw_only=True):
    """A volume that RSO writes to; sizes in bytes.

    Attributes:
        holds: What is on it: ``data``, ``archive`` or both.
        low_water: Below it nothing is taken in (a fiftieth of the volume, 16 MB to 1 GB).
    """

    holds: str
    free: int
    size: int
    low_water: int


def volumes(settings: Settings) -> list[Volume]:
    """The volumes of ``data_dir`` and of the archive; one, where both are on the same."""
    found: dict[int, tuple[list[str], Path]] = {}
    for name, folder in (("data", settings.data_dir), ("archive", settings.archive_dir)):
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        names, _ = found.setdefault(existing.stat().st_dev, ([], existing))
        names.append(name)
    made = []
    for names, folder in found.values():
        usage = shutil.disk_usage(folder)
        low = min(max(usage.total // 50, 16 << 20), 1 << 30)
        made.append(
            Volume(holds=" and ".join(names), free=usage.free, size=usage.total, low_water=low)
        )
    return made


def spool_bytes(settings: Settings) -> int:
    """Bytes that the spool takes on disk, space laid out ahead included."""
    total = 0
    for folder, _, files in os.walk(settings.data_dir / "spool"):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH116, PTH118
            except FileNotFoundError:
                continue  # released meanwhile
    return total
