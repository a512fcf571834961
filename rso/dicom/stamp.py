"""Stamping: a copy of a file with the exam number as its Patient ID, all else byte for byte."""

import shutil
from pathlib import Path

from rso.core.errors import NotDicomError
from rso.dicom.coerce import element_bytes
from rso.dicom.elements import encoding_of, iterate
from rso.dicom.mapping import mapped
from rso.dicom.part10 import read_file_meta

__all__ = ["stamp_file"]

_PATIENT_ID = 0x00100020


def stamp_file(source: Path, target: Path, number: str) -> None:
    """Copy ``source`` to ``target`` with Patient ID (0010,0020) set to ``number``.

    Raises:
        NotDicomError, RefusedError: The file cannot be read as DICOM, or is deflated.
    """
    with mapped(source) as view:
        if len(view) < 132:
            raise NotDicomError("not a DICOM file: too short")
        meta = read_file_meta(view[: 1 << 17])
        encoding = encoding_of(meta.transfer_syntax_uid)
        start = end = meta.dataset_offset
        with view[meta.dataset_offset :] as dataset:
            for element in iterate(dataset, encoding, stop=_PATIENT_ID):
                if element.tag == _PATIENT_ID:
                    start = meta.dataset_offset + element.start
                    end = meta.dataset_offset + element.end
                else:
                    start = end = meta.dataset_offset + element.end
        head = bytes(view[:start])
    with source.open("rb") as file, target.open("xb") as out:
        file.seek(end)
        out.write(head)
        out.write(element_bytes(encoding, _PATIENT_ID, b"LO", number.encode()))
        shutil.copyfileobj(file, out, 1 << 20)
