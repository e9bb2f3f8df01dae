from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyflink.fn_execution.beam.beam_coders import FlinkCoder
from pyflink.fn_execution.coders import ArrowCoder, coder_impl
from pyflink.table import DataTypes
from pyflink.table.types import create_arrow_schema

from udfs.arrow_frames import arrow_column, arrow_frame, take_arrow_frames

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = {
    "text": pa.array(["a", None, "日本"]),
    "octets": pa.array([None, b"\x00\xff", b""]),
    "count": pa.array([1, None, -(2**60)]),
    "small": pa.array([1, None, 3], pa.int32()),
    "share": pa.array([0.5, None, float("nan")]),
    "flag": pa.array([True, None, False]),
    "at": pa.array([NOON.replace(tzinfo=None), None, None], pa.timestamp("ms")),
    "day": pa.array([date(2026, 3, 1), None, None]),
    "tags": pa.array([["x", "y"], None, []], pa.list_(pa.string())),
}
VERDICT = DataTypes.ROW(
    [
        DataTypes.FIELD("text", DataTypes.STRING()),
        DataTypes.FIELD("octets", DataTypes.BYTES()),
        DataTypes.FIELD("count", DataTypes.BIGINT()),
        DataTypes.FIELD("small", DataTypes.INT()),
        DataTypes.FIELD("share", DataTypes.DOUBLE()),
        DataTypes.FIELD("flag", DataTypes.BOOLEAN()),
        DataTypes.FIELD("at", DataTypes.TIMESTAMP(3)),
        DataTypes.FIELD("day", DataTypes.DATE()),
        DataTypes.FIELD("tags", DataTypes.ARRAY(DataTypes.STRING())),
    ]
)


@pytest.fixture
def told() -> Iterator[None]:
    before = coder_impl.pandas_to_arrow, coder_impl.arrow_to_pandas
    take_arrow_frames()
    yield
    coder_impl.pandas_to_arrow, coder_impl.arrow_to_pandas = before


def _sent(result: Any, kind: Any) -> pa.Table:
    """Return what Flink gets from a function with this result."""
    row = DataTypes.ROW([DataTypes.FIELD("f0", kind)])
    schema = create_arrow_schema(["f0"], [kind])
    sent = FlinkCoder(ArrowCoder(schema, row, "UTC")).get_impl().encode([result])
    return pa.ipc.open_stream(sent).read_all()


def test_columns_of_arrow_arrive_as_they_are(told: None) -> None:
    sent = _sent(arrow_frame(COLUMNS), VERDICT)

    verdict = sent["f0"].combine_chunks()
    # What is no number compares equal to nothing.
    share = verdict.field("share").to_pylist()
    assert share[:2] == [0.5, None]
    assert share[2] != share[2]
    found = {name: verdict.field(name).to_pylist() for name in COLUMNS if name != "share"}
    expected = {name: c.to_pylist() for name, c in COLUMNS.items() if name != "share"}
    assert found == expected


def test_a_slice_of_columns_arrives_as_that_slice(told: None) -> None:
    sliced = {name: column[1:] for name, column in COLUMNS.items()}

    sent = _sent(arrow_frame(sliced), VERDICT)["f0"].combine_chunks()

    assert sent.field("text").to_pylist() == [None, "日本"]
    assert sent.field("octets").to_pylist() == [b"\x00\xff", b""]


def test_what_pandas_has_itself_still_goes_through_pyflink(told: None) -> None:
    frame = pd.DataFrame({"text": ["a", None], "count": [1, 2]})
    kind = DataTypes.ROW(
        [
            DataTypes.FIELD("text", DataTypes.STRING()),
            DataTypes.FIELD("count", DataTypes.BIGINT()),
        ]
    )

    assert _sent(frame, kind)["f0"].to_pylist() == [
        {"text": "a", "count": 1},
        {"text": None, "count": 2},
    ]


def test_pyflink_alone_refuses_columns_of_arrow() -> None:
    """Where this no longer fails, the frames need nobody's help any more."""
    with pytest.raises((ValueError, RuntimeError)):
        _sent(arrow_frame(COLUMNS), VERDICT)


def _given(columns: dict[str, tuple[Any, pa.Array]]) -> list[pd.Series[Any]]:
    """Return the series that a function is given for columns of these types."""
    names, kinds = list(columns), [kind for kind, _ in columns.values()]
    schema = create_arrow_schema(names, kinds)
    row = DataTypes.ROW([DataTypes.FIELD(n, k) for n, k in zip(names, kinds, strict=True)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(pa.table([column for _, column in columns.values()], schema=schema))
    coder = FlinkCoder(ArrowCoder(schema, row, "UTC")).get_impl()
    series: list[pd.Series[Any]] = coder.decode(sink.getvalue().to_pybytes())
    return series


MIXED = {
    "k": (DataTypes.BYTES(), pa.array([b"a", None, b""])),
    "n": (DataTypes.BIGINT(), pa.array([1, 2, 3])),
    "v": (DataTypes.BYTES(), pa.array([None, b"\x00\xff", b"b"])),
    "at": (DataTypes.TIMESTAMP(3), pa.array([NOON.replace(tzinfo=None)] * 3, pa.timestamp("ms"))),
}


def test_columns_of_bytes_come_as_they_are(told: None) -> None:
    keys, numbers, values, times = _given(MIXED)

    assert [keys.dtype, values.dtype] == [pd.ArrowDtype(pa.binary())] * 2
    assert arrow_column(keys).to_pylist() == [b"a", None, b""]
    assert arrow_column(values).to_pylist() == [None, b"\x00\xff", b"b"]
    assert (numbers.dtype, numbers.tolist()) == ("int64", [1, 2, 3])
    assert [time.to_pydatetime() for time in times] == [NOON.replace(tzinfo=None)] * 3


def test_columns_of_bytes_alone(told: None) -> None:
    keys, values = _given({name: MIXED[name] for name in "kv"})

    assert [arrow_column(keys)[0].as_py(), arrow_column(values)[2].as_py()] == [b"a", b"b"]


def test_objects_become_a_column_too() -> None:
    keys, *_ = _given(MIXED)

    assert keys.dtype == object
    assert arrow_column(keys).to_pylist() == [b"a", None, b""]
