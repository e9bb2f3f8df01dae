"""Ask the services that the monitor reads nothing else from whether they answer."""

from __future__ import annotations

from deploy.settings import Settings
from schemas.registry import Registry, RegistryError
from sinks.clickhouse import UNKNOWN_DATABASE, ClickHouse, ClickHouseFailed
from sinks.queries import public_versions

_SECONDS = 3.0


class Asking:
    """Connections to registry and ClickHouse, kept from one look to the next."""

    def __init__(self, settings: Settings) -> None:
        self._registry = Registry(**settings.registry_access, timeout=_SECONDS, retry_for=0.0)
        self._clickhouse = ClickHouse(settings, reader=True, timeout=_SECONDS)

    def answers(self) -> dict[str, bool]:
        """Return by service whether it answers who reads it."""
        return {"registry": self._registry_answers(), "clickhouse": self._clickhouse_answers()}

    def shown(self) -> dict[str, int]:
        """Return the version that each view shows, none where ClickHouse does not say."""
        try:
            return public_versions(self._clickhouse)
        except ClickHouseFailed:
            return {}

    def close(self) -> None:
        """Give back the connections."""
        self._registry.close()
        self._clickhouse.close()

    def _registry_answers(self) -> bool:
        try:
            self._registry.versions("kappa-monitor")
        except RegistryError:
            return False
        return True

    def _clickhouse_answers(self) -> bool:
        try:
            self._clickhouse.query("SELECT 1")
        except ClickHouseFailed as error:
            # The loader makes the database.
            return error.code == UNKNOWN_DATABASE
        return True
