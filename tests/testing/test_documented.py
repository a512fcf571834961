"""The plugins that docs/plugins.md shows whole keep the contracts."""

import asyncio
import re
import shutil
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rso.dicom.part10 import read_file_meta
from rso.plugins import Message, Notifier, Receiver, ReceiverContext, Sender
from rso.testing.contracts import (
    NotifierContract,
    ReceiverContract,
    SenderContract,
    sample_file,
)

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text("utf-8")


def documented(hook: str) -> ModuleType:
    """The code block that ends with this hook, as a module."""
    blocks = re.findall(r"```python\n(.+?)```", TEXT, re.S)
    (code,) = [b for b in blocks if f"def {hook}()" in b and "class " in b]
    made = ModuleType(hook)
    exec(compile(code, f"docs/plugins.md: {hook}", "exec"), made.__dict__)
    return made


INCOMING, OUTGOING, PAGER = (
    documented(f"rso_register_{kind}") for kind in ("receivers", "senders", "notifiers")
)


class TestFolderIn(ReceiverContract):
    """The watched folder."""

    def channel(self) -> str:
        return "folder_in"

    def make(self, context: ReceiverContext) -> Receiver:
        self.root = context.data_dir / "in"
        self.root.mkdir(exist_ok=True)
        config = INCOMING.FolderInConfig(folder=str(self.root), seconds=0.02)
        made: Receiver = INCOMING.FolderIn(config, context)
        return made

    def deposit(self, receiver: Receiver, file: Path, *, known: bool = True) -> bool:
        folder = self.root / ("KNOWN" if known else "STRANGER")
        folder.mkdir(exist_ok=True)
        shutil.copy(file, folder / "one.part")
        target = (folder / "one.part").rename(folder / "one.dcm")
        until = time.monotonic() + (10 if known and not self.refuses(receiver) else 0.3)
        while target.exists() and time.monotonic() < until:
            time.sleep(0.02)
        kept = not target.exists()
        target.unlink(missing_ok=True)
        return kept

    async def test_goes_on_behind_a_folder_that_goes(self, receiver: Receiver) -> None:
        """A file that is gone when it is opened, or a share that is away, ends nothing."""
        folder = self.root / "KNOWN"
        folder.mkdir()
        (folder / "gone.dcm").symlink_to(folder / "nothing")
        await asyncio.sleep(0.2)
        (folder / "gone.dcm").unlink()
        assert (await receiver.health()).ok
        assert await asyncio.to_thread(self.deposit, receiver, sample_file())

    def refuses(self, receiver: Receiver) -> bool:
        """Whether the spool was told to keep nothing now."""
        return getattr(receiver.context.spool, "fault", None) is not None


class Folder:
    """A destination that is a folder."""

    port = 0

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self) -> int:
        """It is there."""
        self.path.mkdir()
        return self.port

    def stop(self) -> None:
        """It is not there any more."""
        shutil.rmtree(self.path, ignore_errors=True)

    def by_uid(self) -> dict[str, Any]:
        """What it has."""
        found = {}
        for file in self.path.iterdir():
            data = file.read_bytes()
            meta = read_file_meta(data)
            found[meta.sop_instance_uid] = SimpleNamespace(dataset=data[meta.dataset_offset :])
        return found


class TestFolderOut(SenderContract):
    """The folder that copies go to."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """A folder of this test's own."""
        self.path = tmp_path / "out"

    def make(self, port: int) -> Sender:
        options = OUTGOING.FolderOutOptions(folder=str(self.path))
        made: Sender = OUTGOING.FolderOut(OUTGOING.FolderOutConfig(), options)
        return made

    def destination(self) -> Folder:
        return Folder(self.path)


class TestPager(NotifierContract):
    """The pager."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """A folder of this test's own."""
        self.path = tmp_path

    def make(self) -> Notifier:
        made: Notifier = PAGER.Pager(PAGER.PagerConfig(file=str(self.path / "pages.txt")))
        return made

    def make_broken(self) -> Notifier:
        made: Notifier = PAGER.Pager(PAGER.PagerConfig(file=str(self.path / "no" / "pages.txt")))
        return made

    def message(self) -> Message:
        return Message(key="k", event="exam_created", address="7", subject="s", text="t")
