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
        # Chunks as they came: joining them would cost more than all the rest.
        self._held: list[bytes | bytearray] = []
        self._size = self._in_sink = 0
        self._sink: Sink | None = None
        self._class = self._instance = ""
        self._error: Exception | None = None

    @property
    def held(self) -> int:
        """Bytes that it has in memory."""
        return self._in_sink + self._size

    async def feed(self, data: bytes | bytearray) -> None:
        """Take the next bytes; after an error the rest is dropped."""
        if self._error is not None:
            return
        self._held.append(data)
        self._size += len(data)
        if self._sink is None and self._size >= _META:
            self._begin()
        if self._sink is not None and self._size >= _FLUSH:
            await self._flush()

    def _begin(self) -> None:
        head = b"".join(self._held)
        try:
            meta = read_file_meta(head)
            refuse_dicomdir(meta)
        except RsoError as exc:
            self._error = exc
            self._take()
            return
        self._class, self._instance = meta.sop_class_uid, meta.sop_instance_uid
        self._held = [head[meta.dataset_offset :]]
        self._size = len(self._held[0])
        # The file meta announces nothing: what counts is the dataset itself.
        self._sink = self._batch.open(transfer_syntax_uid=meta.transfer_syntax_uid)

    def _take(self) -> list[bytes | bytearray]:
        self._in_sink += self._size
        held, self._held, self._size = self._held, [], 0
        return held

    def _write(self, chunks: list[bytes | bytearray]) -> None:
        assert self._sink is not None
        for chunk in chunks:
            self._sink.write(chunk)

    async def _flush(self) -> None:
        assert self._sink is not None
        try:
            await asyncio.to_thread(self._write, self._take())
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
            self._write(self._take())
            return self._sink.commit()
        except BaseException:
            self._sink.abort()
            raise

    def abort(self) -> None:
        """The client went away."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None
