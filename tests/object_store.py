"""An S3-compatible store on loopback: moto's server with an empty bucket."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class ObjectStore:
    """A bucket in the store at `address`, host:port, as any client but the project's sees it."""

    address: str
    bucket: str

    def objects(self) -> list[str]:
        """Return the keys of all objects, in order."""
        found = self._client().list_objects_v2(Bucket=self.bucket)
        return [one["Key"] for one in found.get("Contents", [])]

    def put(self, key: str, *, at: float) -> None:
        """Write an empty object that was last changed at `at`, epoch seconds."""
        self._client().put_object(Bucket=self.bucket, Key=key)
        (backend,) = (one["aws"] for one in s3_backends.values())
        backend.buckets[self.bucket].keys[key].last_modified = datetime.fromtimestamp(at, UTC)

    def create(self) -> None:
        """Create the bucket."""
        self._client().create_bucket(Bucket=self.bucket)

    def _client(self) -> Any:
        return boto3.client("s3", endpoint_url=f"http://{self.address}", region_name="us-east-1")


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Give a store with an empty bucket; the credentials are in the environment meanwhile."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        _, port = server.get_host_and_port()
        # The stores of one process share what is in them.
        store = ObjectStore(f"127.0.0.1:{port}", f"bucket-{uuid.uuid4().hex[:8]}")
        store.create()
        yield store
    finally:
        server.stop()
