"""What RSO knows of an instance without its pixel data."""

from msgspec import Struct

from rso.core.exam import Patient

__all__ = ["Header"]


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The elements used for matching, the ledger and routing; empty when absent.

    Attributes:
        patient: Name decoded by Specific Character Set; the rest as sent, stripped.
        undecodable: True when the name's bytes do not fit its declared character set.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    patient: Patient
    accession_number: str = ""
    modality: str = ""
    body_part: str = ""
    study_date: str = ""
    study_description: str = ""
    series_description: str = ""
    series_number: str = ""
    instance_number: str = ""
    number_of_frames: str = ""
    undecodable: bool = False
