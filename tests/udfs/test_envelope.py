"""Parcels and state pages survive their bytes, and foreign pages are refused."""

import pytest

from udfs.envelope import BookPage, Parcel, pack, unpack

LAYOUT, OTHER = b"12345678", b"abcdefgh"


def test_a_packet_holds_its_parcels_in_order() -> None:
    parcels = [Parcel(7, 60_000, b"abc"), Parcel(-1, 0, b""), Parcel(2**31 - 1, 2**53, b"x" * 9)]

    assert list(unpack(pack(parcels))) == parcels
    assert list(unpack(b"")) == []


@pytest.mark.parametrize(
    "page",
    [BookPage(-(2**63), [], []), BookPage(1_750_000_000_000, [0, 60_000, 120_000], [60_000])],
)
def test_a_page_is_read_as_it_was_written(page: BookPage) -> None:
    assert BookPage.from_bytes(page.to_bytes(LAYOUT), LAYOUT) == page


def test_a_page_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="another declaration"):
        BookPage.from_bytes(BookPage(0, [], []).to_bytes(OTHER), LAYOUT)
