from datetime import UTC, datetime

import pyarrow as pa
import pytest

from udfs.rows import RowEncoder, iso

SCHEMA = """{"type": "record", "name": "r", "fields": [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "page", "type": "string"}, {"name": "n", "type": "long"}]}"""


def _encoded(*rows: tuple[int, str, int]) -> list[bytes]:
    at, page, n = zip(*rows, strict=True)
    table = pa.table({"at": pa.array(at, pa.timestamp("ms")), "page": pa.array(page), "n": n})
    keys, _ = RowEncoder("t", SCHEMA, 1, ("at", "page", "n")).encode(table)
    return keys


def test_a_key_is_a_json_array_whose_instants_have_only_the_fraction_they_need() -> None:
    assert _encoded((0, "/", 7), (1_700_000_000_000, '/"ü', -1), (1_700_000_000_050, "", 0)) == [
        b'["1970-01-01T00:00:00Z","/",7]',
        '["2023-11-14T22:13:20Z","/\\"ü",-1]'.encode(),
        b'["2023-11-14T22:13:20.050Z","",0]',
    ]


@pytest.mark.parametrize("milliseconds", [-1, -1000, 999, 1000, 253_402_300_799_999])
def test_an_instant_is_written_as_python_writes_it(milliseconds: int) -> None:
    instants = pa.chunked_array([pa.array([milliseconds], pa.timestamp("ms"))])
    seconds, rest = divmod(milliseconds, 1000)
    instant = datetime.fromtimestamp(seconds, UTC).replace(microsecond=1000 * rest)
    text = instant.isoformat(timespec="milliseconds" if rest else "seconds")
    assert iso(instants).to_pylist() == [text.replace("+00:00", "Z")]
