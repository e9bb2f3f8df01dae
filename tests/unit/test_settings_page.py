"""The page of all settings is the one that they give, and what is in effect shows no secret."""

from __future__ import annotations

from pathlib import Path

from deploy.settings import PROJECT_ROOT, Settings
from deploy.settings_page import in_effect, page


def test_the_page_is_of_now() -> None:
    written = (PROJECT_ROOT / "docs" / "SETTINGS.md").read_text()
    assert written == page(), "run: kappa settings --markdown > docs/SETTINGS.md"


def test_every_setting_says_what_it_is() -> None:
    assert [one["variable"] for one in in_effect(Settings()) if not one["description"]] == []


def test_what_is_in_effect_names_the_embedded_stack_and_hides_secrets() -> None:
    given = Settings(
        home=Path("/data"),
        port_base=20000,
        registry_url="https://kappa:hush@registry",
        flink_url="http://kappa:hush@a:8081, https://kappa:hush@b/flink",
        postgres_dsn="postgresql://kappa:hush@postgres/kappa",
        early_fire_seconds=0,
        clickhouse_password="hush",
        registry_password="",
    )
    found = {one["variable"]: one["value"] for one in in_effect(given)}
    assert found["KAPPA_HOME"] == "/data"
    assert found["KAPPA_KAFKA_BOOTSTRAP"] == "127.0.0.1:20092"
    assert found["KAPPA_REGISTRY_URL"] == "https://registry"
    assert found["KAPPA_CLICKHOUSE_PORT"] == "20123"
    assert found["KAPPA_CLICKHOUSE_TLS"] == "False"
    assert found["KAPPA_CLICKHOUSE_PASSWORD"] == "***"
    assert found["KAPPA_REGISTRY_PASSWORD"] == ""
    assert found["KAPPA_POSTGRES_DSN"] == "***"
    assert found["KAPPA_EARLY_FIRE_SECONDS"] == "0.0"
    assert found["KAPPA_FLINK_URL"] == "http://a:8081,https://b/flink"
    assert "hush" not in str(in_effect(given))
