"""Who a command acts as: run by root, as the account that RSO itself runs as.

What root wrote below ``data_dir`` the service could neither read nor replace.
"""

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from rso.settings import Settings

__all__ = ["acting_as_service"]

_LOCKS = ("work-0.lock", "receive-0.lock", "web-0.lock")


@contextlib.contextmanager
def acting_as_service(settings: Settings) -> Iterator[None]:
    """Inside, files are made and opened as the account that RSO's files belong to.

    Nothing changes for anybody but root, nor where the files are root's.
    """
    owner = _owner(settings) if os.geteuid() == 0 else None
    if owner is None or owner.st_uid == 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        name = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:  # an account of another container
        os.setgroups([])
    else:
        os.initgroups(name, owner.st_gid)
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _owner(settings: Settings) -> os.stat_result | None:
    """Of what RSO wrote when it served; before its first start, of its database or its folder."""
    kind, _, file = settings.database.url.partition(":")
    base = Path(file) if kind == "sqlite" else settings.data_dir
    for path in (*(settings.data_dir / lock for lock in _LOCKS), base):
        with contextlib.suppress(OSError):
            return path.stat()
    return None
