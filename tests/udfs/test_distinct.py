"""Sets of fingerprints against Python's own, where first bits are equal too."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from udfs.distinct import first_rows, sets_of, sizes, union
from udfs.groups import Groups, groups_of

Pair = tuple[int, int] | None
HIGHS = (0, 1, 1 << 20, -1, -(1 << 63), 1 << 40)


def rows(seed: int, count: int, groups: int) -> list[tuple[int, Pair]]:
    """Return (group, member) whose halves are alike, or equal in the bits that are sorted by."""
    rng = random.Random(seed)
    members: list[Pair] = [(rng.choice(HIGHS), rng.choice(HIGHS)) for _ in range(count)]
    members = [None if rng.random() < 0.1 else member for member in members]
    return [(rng.randrange(groups), member) for member in members]


def halves(members: list[Pair]) -> tuple[pa.Array, pa.Array]:
    high = [None if member is None else member[0] for member in members]
    low = [None if member is None else member[1] for member in members]
    return pa.array(high, pa.int64()), pa.array(low, pa.int64())


def grouped(codes: list[int]) -> Groups:
    return groups_of(pa.table({"code": codes}), ["code"])


def expected(given: list[tuple[int, Pair]]) -> list[set[Pair]]:
    sets: dict[int, set[Pair]] = {}
    for code, member in given:
        found = sets.setdefault(code, set())
        if member is not None:
            found.add(member)
    return list(sets.values())


def as_sets(lists: pa.ListArray) -> list[set[Pair]]:
    found = []
    for members in lists.to_pylist():
        pairs = [tuple(np.frombuffer(member, dtype=np.int64).tolist()) for member in members]
        assert len(set(pairs)) == len(pairs)
        found.append(set(pairs))
    return found


@pytest.mark.parametrize("groups", [1, 7, 200])
def test_sets_hold_each_member_of_a_group_once(groups: int) -> None:
    given = rows(groups, 500, groups)
    codes = [code for code, _ in given]
    members = [member for _, member in given]
    sets = sets_of(grouped(codes), *halves(members))
    assert as_sets(sets) == expected(given)
    assert sizes(pa.chunked_array([sets])).to_pylist() == [len(one) for one in expected(given)]
    found = first_rows(grouped(codes), *halves(members)).tolist()
    once = [(codes[row], members[row]) for row in found]
    assert len(once) == len(set(once))
    assert set(once) == {(code, member) for code, member in given if member is not None}


def test_a_union_does_not_depend_on_how_rows_were_split() -> None:
    given = rows(3, 600, 9)
    parts = [given[begin : begin + 47] for begin in range(0, 600, 47)]
    codes: list[int] = []
    sets = []
    for part in parts:
        mine = grouped([code for code, _ in part])
        codes += [part[row][0] for row in mine.firsts.tolist()]
        # Slices, as a bucket's part of a batch is one.
        sets.append(pa.concat_arrays([sets_of(mine, *halves([m for _, m in part]))])[0:])
    whole = union(grouped(codes), pa.chunked_array(sets))
    assert as_sets(whole) == expected(given)


def test_a_slice_of_sets_has_its_own_members() -> None:
    sets = sets_of(grouped([0, 1, 2]), *halves([(1, 1), (2, 2), (3, 3)]))
    both = union(grouped([0, 0]), pa.chunked_array([sets.slice(1, 2)]))
    assert as_sets(both) == [{(2, 2), (3, 3)}]


def test_more_groups_than_stand_beside_a_member() -> None:
    codes = np.array([1 << 30, 5, 1 << 30])
    groups = Groups(codes, np.empty(0, dtype=np.int64))
    rows_found = first_rows(groups, *halves([(1, 2), (1, 2), (1, 2)]))
    assert sorted(codes[rows_found].tolist()) == [5, 1 << 30]


def test_no_rows_have_no_sets() -> None:
    sets = sets_of(grouped([]), *halves([]))
    assert (len(sets), sets.type.value_type) == (0, pa.binary(16))
    assert len(union(grouped([]), pa.chunked_array([], sets.type))) == 0
