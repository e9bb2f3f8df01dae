"""What a Java Kafka client needs to reach the configured cluster; secrets stay where they are.

A password is not written into the properties, which Flink would carry in the job, but referred to:
Kafka's own configuration providers read the file or the variable in the process that connects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from deploy.settings import SECRETS_DIR, Settings

SHADED = "org.apache.flink.kafka.shaded."
"""Where Flink's SQL connector keeps its own copy of Kafka's classes."""

_PROVIDERS = "org.apache.kafka.common.config.provider"
_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_PASSWORD = "kappa_kafka_sasl_password"


class SecretError(ValueError):
    """A secret that a Java client could not read as it is."""


def java_kafka(settings: Settings, package: str = "") -> dict[str, str]:
    """Return the properties of a Java client whose Kafka classes begin with `package`.

    Raises `SecretError`.
    """
    properties = {"bootstrap.servers": settings.kafka}
    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return properties
    properties["security.protocol"] = protocol
    if protocol.endswith("SSL") and settings.ca_file:
        properties["ssl.truststore.type"] = "PEM"
        properties["ssl.truststore.location"] = settings.ca_file
    if protocol.startswith("SASL"):
        properties |= _sasl(settings, package)
    return properties


def write_properties(properties: Mapping[str, str], file: IO[str]) -> None:
    """Write `properties` as Java reads them from a file."""
    for key, value in properties.items():
        escaped = value.replace("\\", "\\\\")
        file.write(f"{key}={escaped}\n")
    file.flush()


def _sasl(settings: Settings, package: str) -> dict[str, str]:
    mechanism = settings.kafka_sasl_mechanism
    reference, provider = _password_reference()
    module = f"{package}{_MODULES[mechanism]}"
    user = settings.kafka_sasl_username.replace("\\", "\\\\").replace('"', '\\"')
    return {
        "sasl.mechanism": mechanism,
        "sasl.jaas.config": f'{module} required username="{user}" password="{reference}";',
        "config.providers": "secret",
        "config.providers.secret.class": f"{package}{_PROVIDERS}.{provider}",
    }


def _password_reference() -> tuple[str, str]:
    """Return how the password is referred to, and the class that knows what is meant."""
    folder = os.environ.get(SECRETS_DIR)
    if not folder or _PASSWORD.upper() in os.environ:
        return f"${{secret:{_PASSWORD.upper()}}}", "EnvVarConfigProvider"
    text = (Path(folder) / _PASSWORD).read_text()
    if not text.isprintable() or '"' in text or "\\" in text:
        raise SecretError(
            f"{folder}/{_PASSWORD} has a line break, quote or backslash, with which a Java client "
            "can't log in; write the bare password, as with `printf %s`."
        )
    return f"${{secret:{folder}:{_PASSWORD}}}", "DirectoryConfigProvider"
