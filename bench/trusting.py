"""A decode that believes every record: what dead letters cost is what it saves.

No frame, length, text, field or rule is looked at. A record that is not as it should be ends the
job, or counts for what it is not: for measurements only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro

from schemas.framing import split
from schemas.streams import Stream
from udfs.avro_columns import column_of
from udfs.decode import Batch, SchemaOf, Values
from udfs.decode_events import DecodeEvents
from udfs.writer_schemas import WriterSchemas

Objects = npt.NDArray[np.object_]


@dataclass
class TrustingDecoder:
    """Reads all values of a batch with the schema of the first, and finds no fault in any."""

    stream: Stream
    schema_of: SchemaOf
    fields: tuple[str, ...]

    def decode(self, values: Any, timestamps: npt.NDArray[np.int64]) -> Batch:
        """Return the columns of all `values`, in their order."""
        found = Values.of(values)
        schema_id, _ = split(found.octets[found.starts[0] : found.ends[0]])
        bodies = found.bodies(np.arange(len(values)))
        batch = pyruhvro.deserialize_array(bodies, json.dumps(self.schema_of(schema_id)))
        by_name = {field["name"]: field for field in self.stream.schema["fields"]}
        columns = [column_of(batch, by_name[name]) for name in self.fields]
        nothing = np.full(len(values), None, dtype=object)
        return Batch(
            nothing,
            nothing.copy(),
            np.full(len(values), schema_id),
            np.arange(len(values)),
            pa.table(columns, names=list(self.fields)),
        )


class TrustingEvents(DecodeEvents):
    """The decode function of a job, with the decoder above."""

    def open(self, function_context: Any) -> None:
        """Connect as the true one does."""
        super().open(function_context)
        schemas = WriterSchemas(self.spec.registry_url)
        self._decoder: Any = TrustingDecoder(self.spec.stream, schemas, self.spec.fields)


def trusting(stream: Stream) -> Stream:
    """Return `stream` without its rules, whose fields then need not be read."""
    return replace(stream, required=(), rules=())
