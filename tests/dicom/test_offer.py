"""An A-ASSOCIATE-RQ is counted before it is decoded: real offers pass, endless ones do not."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import AE, AllStoragePresentationContexts, StoragePresentationContexts
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.pdu import A_ASSOCIATE_RQ

from rso.dicom.offer import MOST_CONTEXTS, MOST_SYNTAXES, excess
from rso.dicom.wire import WireError


def item(kind: int, value: bytes) -> bytes:
    """An item or sub-item."""
    return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value


def context(number: int, *syntaxes: bytes) -> bytes:
    """A presentation context."""
    inner = item(0x30, b"1.2.840.10008.1.1") + b"".join(item(0x40, s) for s in syntaxes)
    return item(0x20, bytes((number & 255, 0, 0, 0)) + inner)


APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")
USER = item(0x50, item(0x51, bytes(4)) + item(0x52, b"1.2.3"))
UIDS = st.integers(0, 10**6).map(lambda n: b"1.%d" % n)
OFFERS = st.lists(st.lists(UIDS, max_size=150), max_size=140)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(OFFERS, st.integers(0, 500))
def test_what_passes_is_within_the_bounds(offer: list[list[bytes]], users: int) -> None:
    """An offer passes exactly when it has no more than is allowed, whatever it consists of."""
    contexts = b"".join(context(2 * i + 1, *syntaxes) for i, syntaxes in enumerate(offer))
    user = item(0x50, item(0x54, b"\0\0\0\0") * users)
    most = max(map(len, offer), default=0)
    passes = len(offer) <= MOST_CONTEXTS and most <= MOST_SYNTAXES and users <= 400
    assert (not excess(APPLICATION + contexts + user)) == passes


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.binary(max_size=200))
def test_noise_is_told_from_items(noise: bytes) -> None:
    """Whatever the bytes are, the answer is words or a WireError."""
    try:
        assert isinstance(excess(noise), str)
    except WireError:
        assert noise


@pytest.mark.parametrize(
    "items",
    [
        item(0x20, bytes(4) + item(0x20, bytes(4) + item(0x40, b"1.2"))),
        item(0x50, context(1, b"1.2")),
        item(0x21, bytes(4) + item(0x40, b"1.2")),
        item(0x50, item(0x50, b"")),
    ],
    ids=["context in context", "context in user information", "answer", "user in user"],
)
def test_items_stand_where_they_belong(items: bytes) -> None:
    """What would be decoded at another depth, uncounted, is not let through."""
    with pytest.raises(WireError):
        excess(APPLICATION + items + USER)


def test_the_fullest_offers_of_real_peers_pass() -> None:
    """Every storage SOP Class that fits, each with every Transfer Syntax that is known."""
    for classes in (StoragePresentationContexts, AllStoragePresentationContexts):
        application = AE()
        for one in classes[:128]:
            application.add_requested_context(one.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(b"\1\0" + bytes(4) + b"\0\1\0\0" + b"RSO".ljust(16) + b"CT".ljust(16)
                   + bytes(32) + APPLICATION + USER)  # fmt: skip
        primitive = pdu.to_primitive()
        offered = application.requested_contexts
        for number, one in enumerate(offered):
            one.context_id = 2 * number + 1
        primitive.presentation_context_definition_list = offered
        full = A_ASSOCIATE_RQ()
        full.from_primitive(primitive)
        assert len(offered) == min(len(classes), 128)
        assert excess(full.encode()[74:]) == ""


def test_the_count_ends_where_the_bound_is_passed() -> None:
    """256 KiB of the smallest items cost no more than a few."""
    syntaxes = item(0x40, b"")
    hostile = [
        APPLICATION + context(1, b"1") + item(0x50, item(0x52, b"") * 16_000) * 4,
        item(0x20, bytes(4) + syntaxes * 16_000) * 4,
        item(0x20, bytes(4)) * 32_000,
        item(0x10, b"") * 64_000,
    ]
    for items in hostile:
        began = time.process_time()
        assert excess(items)
        assert time.process_time() - began < 0.2
