"""Writing an instance to the log while it comes in, so that little is left to sync at its end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rso.core.transport import Buffer
from rso.engine.spool_log import Draft, SegmentLog
from rso.engine.spool_segment import OpenRecord

if TYPE_CHECKING:
    from rso.engine.spool import LogBatch

__all__ = ["Announced", "LogAhead"]

_ANY_SIZE = 64 << 30


class Announced(NamedTuple):
    """What a sender said of a dataset before it came; empty: nothing."""

    transfer_syntax_uid: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


class LogAhead:
    """The beginning of one dataset, scanned, and written where its record is going to be.

    Nothing depends on it: where its place in the log is taken, or its header cannot be read from
    its first bytes, the instance is kept like any other when it is whole.
    """

    def __init__(self, batch: "LogBatch", log: SegmentLog, announced: Announced) -> None:
        self._batch, self._log, self._announced = batch, log, announced
        self._record: OpenRecord | None = None
        self._done = 0  # bytes of the dataset that are in the record's checksum
        self._begun = self._over = False
        self.draft: Draft | None = None

    def write(self, so_far: Buffer) -> None:
        """Take all that is there of the dataset; what was taken before is not written again."""
        if not self._begun:
            self._begun = True
            self._begin(so_far)
        if self._record is None:
            return
        new = memoryview(so_far)[self._done :]
        self._record.body.update(new)
        self._done += len(new)
        if self.draft is not None:
            self.draft.write(new)

    def _begin(self, so_far: Buffer) -> None:
        header = self._batch.scan_first(so_far, self._announced, _ANY_SIZE)
        if header is not None:
            self._record = self._batch.record(header)
            self.draft = self._log.draft(self._batch.lead(self._record))

    def finish(self, dataset: Sequence[Buffer]) -> OpenRecord | None:
        """The record of the whole dataset, or ``None`` when it has to be made from the start."""
        if self._record is None or self._over or len(dataset) != 1:
            self.forget()
            return None
        self._over = True
        self._record.body.complete(dataset[0], self._done)
        return self._record

    def forget(self) -> None:
        """Give the place in the log back; safe to call at any time."""
        self._over = True
        self._log.forget(self.draft)
