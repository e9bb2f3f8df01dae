"""The Kubernetes resources: valid by the schemas, and fitting each other and the code."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from deploy.java_options import COMPILED_LATE
from deploy.rules import ALERTS, prometheus_rule
from deploy.services import LOADER_METRICS_PORT, MONITOR_METRICS_PORT
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import JOBS
from tests.deployment.overlays import Resource, build, documents

ROOT = PROJECT_ROOT / "deploy" / "kubernetes"
COMPONENT = "components/monitoring"
FOLDERS = ("base", "overlays/development", "overlays/production")
# The names that labels, selectors and network policies go by.
NAME = "app.kubernetes.io/name"

NAME_META = "__meta_kubernetes_pod_label_app_kubernetes_io_name"
FLINK_COMPONENTS = ("jobmanager", "taskmanager")

Schema = dict[str, Any]


@pytest.fixture(params=FOLDERS)
def resources(request: pytest.FixtureRequest) -> list[Resource]:
    return build(ROOT / request.param)


def of_kind(resources: list[Resource], kind: str) -> list[Resource]:
    return [one for one in resources if one["kind"] == kind]


def applications(resources: list[Resource]) -> dict[str, dict[str, Any]]:
    """Return the specs, by name, of the clusters that each run one job."""
    found = {one["metadata"]["name"]: one["spec"] for one in of_kind(resources, "FlinkDeployment")}
    return {name: spec for name, spec in found.items() if "job" in spec}


def pod_specs(resources: list[Resource]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every pod template's name label and spec."""
    for one in of_kind(resources, "Deployment"):
        template = one["spec"]["template"]
        yield template["metadata"]["labels"][NAME], template["spec"]
    for one in of_kind(resources, "FlinkDeployment"):
        template = one["spec"]["podTemplate"]
        yield template["metadata"]["labels"][NAME], template["spec"]


def test_resources_are_valid(resources: list[Resource], flink_deployment_schema: Schema) -> None:
    newest = kubernetes_validate.latest_version()
    for one in resources:
        if one["kind"] == "FlinkDeployment":
            Draft202012Validator(flink_deployment_schema).validate(one)
            template = one["spec"]["podTemplate"]
            kubernetes_validate.validate(template, newest, strict=True)
        else:
            kubernetes_validate.validate(one, newest, strict=True)


def test_an_unknown_field_of_a_flink_deployment_is_seen(flink_deployment_schema: Schema) -> None:
    job, *_ = of_kind(build(ROOT / "base"), "FlinkDeployment")
    job["spec"]["job"]["paralelism"] = 3
    with pytest.raises(ValidationError, match="paralelism"):
        Draft202012Validator(flink_deployment_schema).validate(job)


def test_names_are_unique_and_every_file_is_used(resources: list[Resource]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in resources]
    assert len(names) == len(set(names))
    used: set[Path] = set()
    for folder in (*FOLDERS, COMPONENT):
        path = ROOT / folder / "kustomization.yaml"
        asked = yaml.safe_load(path.read_text())
        patches = [patch["path"] for patch in asked.get("patches", ())]
        named = asked["resources"] + patches + asked.get("configurations", [])
        used |= {path, *((ROOT / folder / name).resolve() for name in named)}
    assert set(ROOT.rglob("*.yaml")) == {path for path in used if path.is_file()}


def test_every_declared_job_is_deployed_as_its_module_says(resources: list[Resource]) -> None:
    deployed = applications(resources)
    assert set(deployed) == {name.replace("_", "-") for name in JOBS}
    for name in JOBS:
        job = deployed[name.replace("_", "-")]["job"]
        script = job["args"][job["args"].index("-py") + 1]
        assert (PROJECT_ROOT / Path(script).relative_to("/opt/kappa")).is_file()
        assert job["args"][job["args"].index("--parallelism") + 1] == str(job["parallelism"])
        assert (job["upgradeMode"], job["state"]) == ("savepoint", "running")
        assert job["parallelism"] <= min(stream.partitions for stream in JOBS[name].streams)


def test_rebuilds_have_a_cluster_and_every_job_is_found(resources: list[Resource]) -> None:
    clusters = [one["metadata"]["name"] for one in of_kind(resources, "FlinkDeployment")]
    assert set(clusters) - set(applications(resources)) == {"rebuilds"}
    (shared,) = of_kind(resources, "ConfigMap")
    known = Settings(_env_file=None, flink_url=shared["data"]["KAPPA_FLINK_URL"])
    assert known.flink == "http://rebuilds-rest:8081"
    assert sorted(known.flink_clusters) == sorted(f"http://{name}-rest:8081" for name in clusters)


def test_flink_is_open_to_those_who_ask_it(resources: list[Resource]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(resources, "NetworkPolicy")}
    from_operator_and_others = policies["flink"]["ingress"][1]
    assert [port["port"] for port in from_operator_and_others["ports"]] == [8081]
    asking = from_operator_and_others["from"][1]["podSelector"]["matchExpressions"][0]["values"]
    assert set(asking) == {"console", "monitor", "serving"}
    from_flink = policies["flink"]["ingress"][0]
    ranges = sorted((port["port"], port["endPort"]) for port in from_flink["ports"])
    assert ranges == [(1, 8080), (8082, 65535)], "a job may not send code to another's cluster"


def test_jobs_survive_their_job_manager(resources: list[Resource]) -> None:
    for one in of_kind(resources, "FlinkDeployment"):
        flink = one["spec"]["flinkConfiguration"]
        assert flink["high-availability.type"] == "kubernetes"
        for key in (
            "high-availability.storageDir",
            "execution.checkpointing.dir",
            "execution.checkpointing.savepoint-dir",
        ):
            assert flink[key].startswith("s3://")


def test_task_managers_compile_as_the_embedded_one(resources: list[Resource]) -> None:
    for one in of_kind(resources, "FlinkDeployment"):
        options = one["spec"]["flinkConfiguration"]["env.java.opts.taskmanager"]
        assert options.split() == [*COMPILED_LATE]


def test_the_checkpoint_interval_is_the_one_that_jobs_set(resources: list[Resource]) -> None:
    (shared,) = of_kind(resources, "ConfigMap")
    seconds = shared["data"]["KAPPA_CHECKPOINT_SECONDS"]
    assert Settings(_env_file=None, checkpoint_seconds=seconds).checkpoint_seconds == 10
    for one in of_kind(resources, "FlinkDeployment"):
        asked = one["spec"]["flinkConfiguration"]
        assert "execution.checkpointing.interval" not in asked, "the job's own setting hides it"
        (box,) = one["spec"]["podTemplate"]["spec"]["containers"]
        assert box["envFrom"] == [{"configMapRef": {"name": shared["metadata"]["name"]}}]


def test_only_the_development_overlay_goes_without_autoscaling() -> None:
    scaled = {
        folder: [
            spec["flinkConfiguration"]["job.autoscaler.enabled"]
            for spec in applications(build(ROOT / folder)).values()
        ]
        for folder in FOLDERS
    }
    assert scaled == {
        "base": ["true"] * len(JOBS),
        "overlays/development": ["false"] * len(JOBS),
        "overlays/production": ["true"] * len(JOBS),
    }


def test_settings_exist(resources: list[Resource]) -> None:
    known = {f"KAPPA_{name.upper()}" for name in Settings.model_fields} | {"KAPPA_SECRETS_DIR"}
    (shared,) = of_kind(resources, "ConfigMap")
    assert set(shared["data"]) <= known
    given = {name for _, spec in pod_specs(resources) for name in _variables(spec)}
    assert {name for name in given if name.startswith("KAPPA_")} <= known
    assert not any("PASSWORD" in name for name in {*shared["data"], *given})


def _variables(spec: dict[str, Any]) -> list[str]:
    return [variable["name"] for box in spec["containers"] for variable in box.get("env", ())]


def test_services_are_named_with_the_namespace_they_are_in(resources: list[Resource]) -> None:
    (shared,) = of_kind(resources, "ConfigMap")
    given = shared["data"]
    hosts = [
        given["KAPPA_KAFKA_BOOTSTRAP"].rpartition(":")[0],
        str(urlsplit(given["KAPPA_REGISTRY_URL"]).hostname),
        given["KAPPA_CLICKHOUSE_HOST"],
        str(urlsplit(given["KAPPA_POSTGRES_DSN"]).hostname),
    ]
    short = [host for host in hosts if not re.fullmatch(r"[\w-]+(\.[\w-]+)+\.svc", host)]
    assert short == [], "found in namespace kappa only, where network.yaml lets nothing in"


def test_the_archive_is_in_the_store_of_the_checkpoints(resources: list[Resource]) -> None:
    (shared,) = of_kind(resources, "ConfigMap")
    asked = parse_qs(urlsplit(shared["data"]["KAPPA_ARCHIVE_URL"]).query)
    (scheme,), (host,) = asked["scheme"], asked["endpoint_override"]
    stores = {
        one["spec"]["flinkConfiguration"]["s3.endpoint"]
        for one in of_kind(resources, "FlinkDeployment")
    }
    assert stores == {f"{scheme}://{host}"}


def test_pods_have_the_keys_of_the_store_whose_code_reads_the_state_of_jobs(
    resources: list[Resource],
) -> None:
    # People run whatever they like in the console; Flink itself writes the state.
    reading = {"console", "flink"}
    runs = {"loader": "sinks.loader", "monitor": "deploy.monitor.looking", "serving": "serving.app"}
    assert {name for name, _ in pod_specs(resources)} == reading | set(runs)
    reading |= {name for name, module in runs.items() if imports(module, "jobs.state")}
    assert "monitor" in reading
    for name, spec in pod_specs(resources):
        keys = {variable for variable in _variables(spec) if variable.startswith("AWS_")}
        expected = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} if name in reading else set()
        assert keys == expected, name


@functools.cache
def imports(module: str, other: str) -> bool:
    """Whether a process that imports `module` has `other` too."""
    code = f"import sys, {module}; sys.exit({other!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 1


def test_pods_are_restricted_and_see_the_secrets_as_files(resources: list[Resource]) -> None:
    for name, spec in pod_specs(resources):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        (box,) = spec["containers"]
        assert box["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        mounts = {mount["name"]: mount for mount in box["volumeMounts"]}
        assert mounts["secrets"]["readOnly"] is True, name
        (shared,) = of_kind(resources, "ConfigMap")
        assert mounts["secrets"]["mountPath"] == shared["data"]["KAPPA_SECRETS_DIR"], name
        assert {v["name"] for v in spec["volumes"]} == set(mounts), name


def test_services_have_probes_and_their_usual_ports(resources: list[Resource]) -> None:
    usual = Settings(_env_file=None)
    expected = {
        "loader": usual.port(LOADER_METRICS_PORT),
        "monitor": usual.port(MONITOR_METRICS_PORT),
        "serving": 18300,
    }
    found = {}
    for one in of_kind(resources, "Deployment"):
        (box,) = one["spec"]["template"]["spec"]["containers"]
        if "ports" not in box:
            assert one["metadata"]["name"] == "console"
            continue
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(box)
        assert {box[probe]["httpGet"]["port"] for probe in box if probe.endswith("Probe")} == {
            "http"
        }
        # Pods that all wait for ClickHouse must still be reached: they show what they know.
        assert box["readinessProbe"]["httpGet"]["path"] in ("/healthz", "/metrics")
        (port,) = box["ports"]
        found[one["metadata"]["name"]] = port["containerPort"]
        annotations = one["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert found == expected


def test_selectors_find_pods(resources: list[Resource]) -> None:
    names = {name for name, _ in pod_specs(resources)}
    for one in of_kind(resources, "Deployment"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for one in of_kind(resources, "PodDisruptionBudget"):
        name = one["spec"]["selector"]["matchLabels"][NAME]
        (owner,) = [d for d in of_kind(resources, "Deployment") if d["metadata"]["name"] == name]
        assert one["spec"]["minAvailable"] < owner["spec"]["replicas"], (
            "a node could not be drained"
        )
    for one in of_kind(resources, "NetworkPolicy"):
        selector = one["spec"]["podSelector"]
        chosen = {selector.get("matchLabels", {}).get(NAME)} - {None}
        for expression in selector.get("matchExpressions", ()):
            assert (expression["key"], expression["operator"]) == (NAME, "In")
            chosen |= set(expression["values"])
        assert chosen <= names


def test_metrics_ports_are_open_to_prometheus_alone(resources: list[Resource]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(resources, "NetworkPolicy")}
    assert policies["nothing-comes-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = policies["metrics"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {9249, 18251, 18252, 18300}
    (source,) = rule["from"]
    assert set(source) == {"namespaceSelector", "podSelector"}


def test_overlays_change_what_they_say() -> None:
    made = build(ROOT / "overlays/production")
    replicas = {
        one["metadata"]["name"]: one["spec"]["replicas"] for one in of_kind(made, "Deployment")
    }
    assert replicas == {"loader": 3, "serving": 3, "monitor": 1, "console": 1}
    (shared,) = of_kind(made, "ConfigMap")
    assert shared["data"]["KAPPA_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
    (base,) = documents(ROOT / "base" / "settings.yaml")
    assert "KAPPA_KAFKA_SECURITY_PROTOCOL" not in base["data"]


def images(resources: list[Resource]) -> set[str]:
    found = {
        box["image"]
        for _, spec in pod_specs(resources)
        for box in spec["containers"]
        if box.get("image")
    }
    return found | {one["spec"]["image"] for one in of_kind(resources, "FlinkDeployment")}


@pytest.mark.parametrize("folder", ["overlays/development", "overlays/production"])
def test_an_overlay_says_once_which_image_all_have(folder: str) -> None:
    asked = yaml.safe_load((ROOT / folder / "kustomization.yaml").read_text())
    (image,) = asked["images"]
    assert {one.partition(":")[0] for one in images(build(ROOT / "base"))} == {image["name"]}
    assert images(build(ROOT / folder)) == {f"{image['newName']}:{image['newTag']}"}
    (fields,) = documents(ROOT / folder / "image-fields.yaml")
    assert asked["configurations"] == ["image-fields.yaml"]
    assert fields["images"] == [{"kind": "FlinkDeployment", "path": "spec/image"}]


def test_production_takes_every_image_from_one_registry() -> None:
    made = build(ROOT / "overlays/production")
    (image,) = images(made)
    ours = of_kind(build(ROOT / "base"), "FlinkDeployment")[0]["spec"]["image"]
    assert image == f"registry.example.com/{ours}"
    stores = {
        one["spec"]["flinkConfiguration"]["s3.endpoint"] for one in of_kind(made, "FlinkDeployment")
    }
    assert [store.partition("://")[0] for store in stores] == ["https"]


def test_production_is_reached_under_a_name_that_the_server_answers_to() -> None:
    made = build(ROOT / "overlays/production")
    (ingress,) = of_kind(made, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (serving,) = [
        one for one in of_kind(made, "Deployment") if one["metadata"]["name"] == "serving"
    ]
    (box,) = serving["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in box["env"]}
    assert rule["host"] in given["KAPPA_SERVING_NAMES"].split(",")
    assert [rule["host"]] == ingress["spec"]["tls"][0]["hosts"]
    (target,) = [path["backend"]["service"] for path in rule["http"]["paths"]]
    (service,) = [
        one for one in of_kind(made, "Service") if one["metadata"]["name"] == target["name"]
    ]
    assert target["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_prometheus_operator_gets_the_same_alerts_on_the_namespace_alone() -> None:
    (rule,) = of_kind(build(ROOT / COMPONENT), "PrometheusRule")
    (namespace,) = of_kind(build(ROOT / "base"), "Namespace")
    ours = f'namespace="{namespace["metadata"]["name"]}"'
    shared = re.compile(r"\b(?:up|flink_\w+)\b(.{0,19})", re.DOTALL)
    uses = [use for expr in _expressions(rule["spec"]) for use in shared.findall(expr)]
    assert uses
    assert all(use.startswith(f"{{{ours}") for use in uses), uses
    written = json.dumps(rule["spec"])
    for added in (f"{{{ours}}}", f"{ours}, "):
        written = written.replace(json.dumps(added)[1:-1], "")
    assert json.loads(written) == yaml.safe_load(ALERTS.read_text())
    written = (ROOT / COMPONENT / "rules.yaml").read_text()
    assert written == prometheus_rule(ALERTS.read_text()), "run python -m deploy.rules"


def _expressions(rules: dict[str, Any]) -> list[str]:
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_the_prometheus_operator_scrapes_every_pod_that_has_metrics() -> None:
    ports: dict[str, set[str]] = {}
    made = build(ROOT / "base")
    for name, spec in pod_specs(made):
        (box,) = spec["containers"]
        ports.setdefault(name, set()).update(port["name"] for port in box.get("ports", ()))
    scraped: dict[str, str] = {}
    jobs: set[str] = set()
    for one in of_kind(build(ROOT / COMPONENT), "PodMonitor"):
        selector = one["spec"]["selector"]
        names = {selector.get("matchLabels", {}).get(NAME)} - {None}
        for expression in selector.get("matchExpressions", ()):
            names |= set(expression["values"])
        (endpoint,) = one["spec"]["podMetricsEndpoints"]
        scraped |= dict.fromkeys(names, endpoint["port"])
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        made_of = names if NAME_META in relabeling["sourceLabels"] else FLINK_COMPONENTS
        jobs |= {relabeling.get("replacement", "$1").replace("$1", value) for value in made_of}
    assert {name: {port} for name, port in scraped.items()} == {
        name: named for name, named in ports.items() if named
    }
    missing = re.findall(r'absent\(up{job="([\w-]+)"}\)', ALERTS.read_text())
    assert jobs == set(missing)
