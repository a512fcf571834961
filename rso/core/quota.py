"""How much a source or a facility may send."""

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Quota"]


class Quota(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Upper limits; 0 means none. A day is a day in UTC.

    Attributes:
        associations: DICOM associations at once, over all receive processes of a machine.
        instances_per_day: Instances kept, repeats among them.
        bytes_per_day: Bytes of datasets kept.
    """

    associations: Annotated[int, Meta(ge=0)] = 0
    instances_per_day: Annotated[int, Meta(ge=0)] = 0
    bytes_per_day: Annotated[int, Meta(ge=0)] = 0
