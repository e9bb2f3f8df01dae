"""Put a kustomization together as kustomize does, as far as this project uses it.

Known: resources, patches with a target (lists of JSON patch operations, or documents that are
merged, whose lists replace others), the namespace, labels on metadata, and images of Deployments
and of what `configurations` names. What else is asked for
is refused, so that nothing is checked in another form than it is applied.
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Resource = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "patches"}
_KNOWN |= {"images", "configurations"}
_CLUSTER_WIDE = ("Namespace",)


def build(folder: Path) -> list[Resource]:
    """Return the resources of the kustomization or component in `folder`."""
    asked = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(asked) <= _KNOWN, set(asked) - _KNOWN
    found: list[Resource] = []
    for name in asked["resources"]:
        path = folder / name
        found += build(path) if path.is_dir() else documents(path)
    for patch in asked.get("patches", ()):
        found = _patched(found, patch["target"], documents(folder / patch["path"])[0], folder)
    _set_images(found, asked, folder)
    for one in found:
        metadata = one["metadata"]
        if one["kind"] not in _CLUSTER_WIDE and asked["kind"] != "Component":
            metadata["namespace"] = asked["namespace"]
        for label in asked.get("labels", ()):
            assert set(label) == {"pairs"}, label
            metadata.setdefault("labels", {}).update(label["pairs"])
    return found


def _set_images(resources: list[Resource], asked: dict[str, Any], folder: Path) -> None:
    places = [("Deployment", "spec/template/spec/containers")]
    for name in asked.get("configurations", ()):
        (fields,) = documents(folder / name)
        assert set(fields) == {"images"}, fields
        places += [(field["kind"], field["path"]) for field in fields["images"]]
    for image in asked.get("images", ()):
        for one in resources:
            for path in (path for kind, path in places if kind == one["kind"]):
                _set_image(one, path.split("/"), image)


def _set_image(resource: Resource, path: list[str], image: dict[str, str]) -> None:
    *way, last = path
    for step in way:
        resource = resource[step]
    owners = resource[last] if last == "containers" else [resource]
    key = "image" if last == "containers" else last
    for owner in owners:
        if owner[key].rpartition(":")[0] == image["name"]:
            owner[key] = f"{image['newName']}:{image['newTag']}"


def documents(path: Path) -> list[Any]:
    """Return the YAML documents of a file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def _patched(
    resources: list[Resource], target: dict[str, str], patch: Any, folder: Path
) -> list[Resource]:
    assert set(target) <= {"kind", "name", "labelSelector"}, target
    chosen = [one for one in resources if _fits(one, target)]
    assert chosen, f"{folder}: {target} fits no resource"
    return [_changed(one, patch) if _fits(one, target) else one for one in resources]


def _changed(resource: Resource, patch: Any) -> Resource:
    if isinstance(patch, list):
        changed: Resource = jsonpatch.apply_patch(resource, patch)
        return changed
    # A target decides what is patched; the name in the patch says nothing.
    assert set(patch) <= {"apiVersion", "kind", "metadata", "spec"}, patch
    return {**resource, "spec": _merged(resource["spec"], patch["spec"])}


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return deepcopy(new)
    changed = {key: _merged(old.get(key), value) for key, value in new.items()}
    return {**old, **changed}


def _fits(resource: Resource, target: dict[str, str]) -> bool:
    """Whether `target` means the resource; kustomize anchors its regular expressions."""
    has = {"kind": resource["kind"], "name": resource["metadata"]["name"]}
    if "labelSelector" in target:
        key, value = target["labelSelector"].split("=")
        if resource["metadata"].get("labels", {}).get(key) != value:
            return False
    return all(re.fullmatch(target[key], has[key]) for key in target.keys() & has.keys())
