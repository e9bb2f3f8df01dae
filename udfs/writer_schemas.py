"""Ask the registry for writers' schemas, patiently where one may only be on its way."""

from __future__ import annotations

import time
from typing import Any

from deploy.settings import Settings
from schemas.registry import Registry, UnknownSchemaId
from udfs.patience import Patience

# A producer may register its schema a moment after an impatient consumer asked for it.
_UNKNOWN_ID_SECONDS, _UNKNOWN_ID_PAUSE_SECONDS = 5.0, 120.0


class WriterSchemas:
    """Callable (schema id) → parsed schema, or None where the registry knows no such id.

    A registry that does not answer is waited for.
    """

    def __init__(self, registry_url: str) -> None:
        # Secrets are this process's own; the job carries none.
        access = {**Settings().registry_access, "url": registry_url}
        self._registry = Registry(**access, retry_for=None)
        self._patience = Patience(_UNKNOWN_ID_SECONDS, _UNKNOWN_ID_PAUSE_SECONDS)

    def __call__(self, schema_id: int) -> dict[str, Any] | None:
        """Return the schema of `schema_id`."""
        while True:
            try:
                return self._registry.schema_by_id(schema_id)
            except UnknownSchemaId:
                if not self._patience.left(time.monotonic()):
                    return None
                time.sleep(0.5)
