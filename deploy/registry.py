"""The embedded schema registry: Apicurio on an H2 file, with the Confluent API."""

from __future__ import annotations

from deploy.java import jar_folder, java_command
from deploy.java_options import START_QUICKLY
from deploy.loopback import ask
from deploy.parts import Folders, Part, folders
from deploy.settings import Settings

PORT, MANAGEMENT_PORT = 81, 82
# WRITE_DELAY=0: a commit is in the file before it is answered, so a kill loses no schema id.
_H2_OPTIONS = "WRITE_DELAY=0;DB_CLOSE_ON_EXIT=FALSE"


def registry(settings: Settings) -> Part:
    """Return the registry as a part of the stack."""
    place = folders(settings)
    port = settings.port(PORT)
    return Part(
        name="registry",
        title="Schema registry",
        ports=(port, settings.port(MANAGEMENT_PORT)),
        command=lambda: _command(place, port, settings.port(MANAGEMENT_PORT)),
        healthy=lambda: _answers(f"http://127.0.0.1:{port}/apis/ccompat/v7"),
    )


def _command(place: Folders, port: int, management: int) -> list[str]:
    database = place.data("registry") / "registry"
    properties = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": str(port),
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": str(management),
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.datasource.url": f"jdbc:h2:file:{database};{_H2_OPTIONS}",
        "apicurio.datasource.username": "sa",
        "apicurio.datasource.password": "sa",
        "apicurio.rest.deletion.artifact.enabled": "true",
        "quarkus.http.access-log.enabled": "false",
        "quarkus.log.level": "WARN",
        'quarkus.log.category."io.apicurio".level': "WARN",
        "quarkus.log.console.json.enabled": "false",
        "quarkus.banner.enabled": "false",
    }
    # It serves a few requests a minute: what counts is the start, and that memory stays small.
    options = ["-Xmx384m", *START_QUICKLY]
    options += [f"-D{name}={value}" for name, value in properties.items()]
    return java_command(
        ["-jar", str(jar_folder("registry") / "quarkus-run.jar")],
        options=options,
        temporary=place.temporary("registry"),
    )


def _answers(url: str) -> bool:
    return ask(f"{url}/subjects").status_code == 200
