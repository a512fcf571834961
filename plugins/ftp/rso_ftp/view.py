"""What an account sees: the names it gave, and no disk."""

import os
import stat
from pathlib import PurePosixPath
from typing import Any

from msgspec import structs
from pyftpdlib.exceptions import FilesystemError
from pyftpdlib.filesystems import AbstractedFS

from rso_ftp.names import Name, Names

__all__ = ["View", "allowed_name"]

_MOST_SEGMENT = 255


def allowed_name(path: str) -> None:
    """Raise FilesystemError for a name that cannot be listed again as it is."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise FilesystemError("The name holds control characters")
    if any(len(part) > _MOST_SEGMENT for part in path.split("/")):
        raise FilesystemError(f"A part of the name is longer than {_MOST_SEGMENT} characters")


class View(AbstractedFS):  # type: ignore[misc]
    """A tree of names; its paths are virtual, so nothing can lead out of it."""

    def __init__(self, root: str, cmd_channel: Any) -> None:
        super().__init__(root, cmd_channel)
        self._names: Names = cmd_channel.names
        self._account: str = cmd_channel.account

    def ftp2fs(self, ftppath: str) -> str:
        return str(self.ftpnorm(ftppath))

    def fs2ftp(self, fspath: str) -> str:
        return fspath

    def validpath(self, path: str) -> bool:  # noqa: ARG002
        return True

    def realpath(self, path: str) -> str:
        return path

    def _find(self, path: str) -> Name:
        found = self._names.find(self._account, path)
        if found is None:
            raise FilesystemError("No such file or directory")
        return found

    def lexists(self, path: str) -> bool:
        return self._names.find(self._account, path) is not None

    def isfile(self, path: str) -> bool:
        found = self._names.find(self._account, path)
        return found is not None and found.kind != "folder"

    def isdir(self, path: str) -> bool:
        found = self._names.find(self._account, path)
        return found is not None and found.kind == "folder"

    def islink(self, path: str) -> bool:  # noqa: ARG002
        return False

    def getsize(self, path: str) -> int:
        return self._find(path).size

    def getmtime(self, path: str) -> float:
        return self._find(path).modified

    def stat(self, path: str) -> os.stat_result:
        found = self._find(path)
        mode = stat.S_IFDIR | 0o700 if found.kind == "folder" else stat.S_IFREG | 0o200
        when = int(found.modified)
        return os.stat_result((mode, 0, 0, 1, 0, 0, found.size, when, when, when))

    lstat = stat

    def get_user_by_uid(self, uid: int) -> str:  # noqa: ARG002
        return "rso"

    get_group_by_gid = get_user_by_uid

    def chdir(self, path: str) -> None:
        if not self.isdir(path):
            raise FilesystemError("No such directory")
        self.cwd = path

    def listdir(self, path: str) -> list[str]:
        if not self.isdir(path):
            raise FilesystemError("No such directory")
        return [PurePosixPath(n.path).name for n in self._names.children(self._account, path)]

    listdirinfo = listdir

    def mkdir(self, path: str) -> None:
        allowed_name(path)
        if self.lexists(path):
            raise FilesystemError("It exists already")
        if not self.isdir(str(PurePosixPath(path).parent)):
            raise FilesystemError("No such directory to make it in")
        self._names.put(self._account, Name(path=path, kind="folder"))

    def rename(self, src: str, dst: str) -> None:
        """Give a file another name, as clients do that upload under a temporary one."""
        allowed_name(dst)
        found = self._find(src)
        if found.kind == "folder":
            raise FilesystemError("Folders keep their names")
        if self.lexists(dst):
            raise FilesystemError("The name is taken")
        if not self.isdir(str(PurePosixPath(dst).parent)):
            raise FilesystemError("No such directory")
        self._names.put(self._account, structs.replace(found, path=dst))
        self._names.remove(self._account, src)

    def chmod(self, path: str, mode: int) -> None:  # noqa: ARG002
        """A label has no mode; clients that set one after each upload are let go on."""
        self._find(path)

    def utime(self, path: str, timeval: float) -> None:
        self._names.put(self._account, structs.replace(self._find(path), modified=timeval))
