"""Waiting for unknown schema ids, with time passed in."""

from udfs.patience import Patience


def test_one_wait_then_a_pause_whatever_is_asked_for() -> None:
    patience = Patience(5, 120)

    assert [patience.left(now) for now in (100, 104.9, 105, 106, 224.9)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_after_the_pause_there_is_patience_again() -> None:
    patience = Patience(5, 120)
    patience.left(100)

    assert patience.left(225)
    assert not patience.left(230)
