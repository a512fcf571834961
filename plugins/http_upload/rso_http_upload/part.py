"""One part of an upload on its way into the spool: Part 10 in, flat memory, one answer."""

import asyncio

from rso.dicom.deposit import refuse_dicomdir
from rso.dicom.part10 import read_file_meta
from rso.plugins import Batch, Receipt, RsoError, Sink
from rso_http_upload.answer import Result, failure

__all__ = ["Part"]

_META = 1 << 17
_FLUSH = 4 << 20


class Part:
    """Takes a part's bytes as they come; the disk is waited for in threads."""

    def __init__(self, batch: Batch, study_instance_uid: str) -> None:
        self._batch = batch
        self._study = study_instance_uid
        self._held = bytearray()
        self._sink: Sink | None = None
        self._class = self._instance = ""
        self._error: Exception | None = None

    async def feed(self, data: bytes | bytearray) -> None:
        """Take the next bytes; after an error the rest is dropped."""
        if self._error is not None:
            return
        self._held += data
        if self._sink is None and len(self._held) >= _META:
            self._begin()
        if self._sink is not None and len(self._held) >= _FLUSH:
            await self._flush()

    def _begin(self) -> None:
        try:
            meta = read_file_meta(self._held)
            refuse_dicomdir(meta)
        except RsoError as exc:
            self._error = exc
            self._held = bytearray()
            return
        self._class, self._instance = meta.sop_class_uid, meta.sop_instance_uid
        del self._held[: meta.dataset_offset]
        # The file meta announces nothing: what counts is the dataset itself.
        self._sink = self._batch.open(transfer_syntax_uid=meta.transfer_syntax_uid)

    async def _flush(self) -> None:
        assert self._sink is not None
        held, self._held = self._held, bytearray()
        try:
            await asyncio.to_thread(self._sink.write, held)
        except Exception as exc:
            self._error = exc
            self._sink.abort()
            self._sink = None

    async def finish(self) -> Result:
        """Return once the instance is durable, or say why not."""
        if self._sink is None and self._error is None:
            self._begin()
        receipt: Receipt | None = None
        if self._error is None:
            assert self._sink is not None
            try:
                receipt = await asyncio.to_thread(self._commit)
            except Exception as exc:
                self._error = exc
        if self._error is not None or receipt is None:
            return failure(self._error, self._class, self._instance)
        header = receipt.header
        if self._study and header.study_instance_uid != self._study:
            # Kept all the same: nothing that arrived whole is thrown away.
            return Result(
                sop_class_uid=header.sop_class_uid,
                sop_instance_uid=header.sop_instance_uid,
                failure=0xA900,
                reason="of another Study than the address says; it is kept",
            )
        return Result(sop_class_uid=header.sop_class_uid, sop_instance_uid=header.sop_instance_uid)

    def _commit(self) -> Receipt:
        assert self._sink is not None
        try:
            self._sink.write(self._held)
            return self._sink.commit()
        except BaseException:
            self._sink.abort()
            raise

    def abort(self) -> None:
        """The client went away."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None
