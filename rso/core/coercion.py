"""Which header elements an instance leaves with, if not its own."""

from msgspec import Struct

__all__ = ["Coercion"]


class Coercion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Header elements to replace on the way out; ``None`` leaves an element as received.

    The replaced values are kept in an item of the Original Attributes Sequence (0400,0561)
    (PS3.3 C.12.1); pixel data is never touched.

    Attributes:
        reason: ``COERCE`` for a destination's egress identity, ``CORRECT`` for a released mismatch.
    """

    patient_name: str | None = None
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    birth_date: str | None = None
    sex: str | None = None
    accession_number: str | None = None
    reason: str = "COERCE"
