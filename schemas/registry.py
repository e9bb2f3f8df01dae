"""Talk to a schema registry over the Confluent API; nothing else here knows its address."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx
import tenacity

from schemas.evolution import obstacles
from schemas.streams import Stream

COMPATIBILITY = "BACKWARD_TRANSITIVE"

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryError(Exception):
    """The registry refused a request; the message says which and why."""


class RegistryUnavailable(RegistryError):
    """The registry gave no answer, or one of the kind that passes, within the caller's bound."""


class UnknownSchemaId(RegistryError, LookupError):
    """A schema id that the registry does not know."""


class IncompatibleSchema(RegistryError):
    """A schema that can't read what earlier versions of its subject wrote."""

    def __init__(self, subject: str, reasons: tuple[str, ...]) -> None:
        super().__init__(f"{subject}: the schema can't read earlier events: {' '.join(reasons)}")
        self.subject = subject
        self.reasons = reasons


@dataclass(frozen=True)
class Registered:
    """One version of a subject; `id` names its schema in every frame."""

    subject: str
    version: int
    id: int
    schema: dict[str, Any]


class Registry:
    """A client for one registry; threads may share it.

    `url` is the base address of the Confluent API and may hold `user:password@`; the server's
    certificate is checked with those in `ca_file`, a PEM file, or the system's. Requests that
    find no server, time out after `timeout` seconds, or meet a 5xx or 429 are repeated, with
    growing pauses, for `retry_for` seconds (None: without end); then `RegistryUnavailable`.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 10.0,
        *,
        retry_for: float | None = 30.0,
        auth: tuple[str, str] | None = None,
        ca_file: str = "",
    ) -> None:
        try:
            address = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL:
            # What it says may hold a piece of the password.
            raise RegistryError(
                "the schema registry's address is none; KAPPA_REGISTRY_URL is such as "
                "http://host:8081, with any of @/:#? in a password written as %40 and so on."
            ) from None
        if auth is None and address.userinfo:
            auth = (address.username, address.password)
        bare = address.copy_with(username=None, password=None)
        self.address = str(bare)
        # Where nothing is encrypted, reading the certificates would cost more than it asks.
        verify = ssl.create_default_context(cafile=ca_file) if ca_file else bare.scheme == "https"
        self._http = httpx.Client(
            base_url=bare,
            auth=auth,
            timeout=timeout,
            verify=verify,
            headers={"Accept": f"{_MEDIA_TYPE}, application/json", "Content-Type": _MEDIA_TYPE},
            # A proxy of the environment can't reach this machine's own loopback.
            trust_env=bare.host not in ("127.0.0.1", "localhost", "::1"),
        )
        self._retry_for = retry_for
        self._schemas: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Return the id of `schema` under `subject`, adding a version where there is none yet.

        Raises `IncompatibleSchema` where the subject's compatibility level forbids it.
        """
        if (known := self._lookup(subject, schema)) is not None:
            return known
        answer = self._call("POST", f"/subjects/{_path(subject)}/versions", _body(schema))
        if answer.status_code != httpx.codes.CONFLICT:
            return int(self._accepted(answer, f"register a schema for {subject}")["id"])
        # A conflict can also be another process that registers the same at this moment.
        if (known := self._lookup(subject, schema)) is not None:
            return known
        raise IncompatibleSchema(subject, self._reasons(subject, schema, _message(answer)))

    def check(self, subject: str, schema: Mapping[str, Any]) -> tuple[str, ...]:
        """Return why `schema` may not follow `subject`'s versions; empty where it may."""
        path = f"/compatibility/subjects/{_path(subject)}/versions"
        answer = self._call("POST", f"{path}?verbose=true", _body(schema))
        if _is_absent(answer):
            return ()
        verdict = self._accepted(answer, f"check a schema for {subject}")
        if verdict["is_compatible"]:
            return ()
        return self._reasons(subject, schema, " ".join(verdict.get("messages") or ()))

    def set_compatibility(self, subject: str, level: str) -> None:
        """Make `level` the rule for `subject`'s further versions."""
        path, body = f"/config/{_path(subject)}", {"compatibility": level}
        answer = self._call("PUT", path, body)
        if answer.status_code == httpx.codes.CONFLICT:
            # Another process has made a rule at this moment, so this time it is changed.
            answer = self._call("PUT", path, body)
        self._accepted(answer, f"set the compatibility of {subject}")

    def compatibility(self, subject: str) -> str | None:
        """Return the level set for `subject` itself, or None where none is."""
        answer = self._call("GET", f"/config/{_path(subject)}")
        if _is_absent(answer):
            return None
        config = self._accepted(answer, f"read the compatibility of {subject}")
        return str(config["compatibilityLevel"])

    def schema_by_id(self, schema_id: int) -> dict[str, Any]:
        """Return the schema that `schema_id` names, asking once only: ids never change meaning.

        Raises `UnknownSchemaId`.
        """
        with self._lock:
            if schema_id in self._schemas:
                return self._schemas[schema_id]
        answer = self._call("GET", f"/schemas/ids/{schema_id}")
        if _is_absent(answer):
            raise UnknownSchemaId(f"schema id {schema_id} is not in the registry {self.address}.")
        found = self._accepted(answer, f"read schema {schema_id}")
        if found.get("schemaType", "AVRO") != "AVRO":
            raise UnknownSchemaId(f"schema id {schema_id} is {found['schemaType']} and no Avro.")
        schema: dict[str, Any] = json.loads(found["schema"])
        with self._lock:
            return self._schemas.setdefault(schema_id, schema)

    def versions(self, subject: str) -> tuple[int, ...]:
        """Return the version numbers of `subject`, oldest first; empty where it has none."""
        answer = self._call("GET", f"/subjects/{_path(subject)}/versions")
        if _is_absent(answer):
            return ()
        return tuple(sorted(self._accepted(answer, f"list the versions of {subject}")))

    def version(self, subject: str, number: int | str) -> Registered | None:
        """Return version `number` of `subject`, or None where there is no such."""
        answer = self._call("GET", f"/subjects/{_path(subject)}/versions/{number}")
        if _is_absent(answer):
            return None
        found = self._accepted(answer, f"read version {number} of {subject}")
        if found.get("schemaType", "AVRO") != "AVRO":
            raise RegistryError(
                f"version {found['version']} of {subject} is {found['schemaType']} and no Avro; "
                "with another KAPPA_NAMESPACE subjects have other names."
            )
        return Registered(subject, found["version"], found["id"], json.loads(found["schema"]))

    def latest(self, subject: str) -> Registered | None:
        """Return the newest version of `subject`, or None where it has none."""
        return self.version(subject, "latest")

    def _lookup(self, subject: str, schema: Mapping[str, Any]) -> int | None:
        answer = self._call("POST", f"/subjects/{_path(subject)}", _body(schema))
        return int(answer.json()["id"]) if answer.status_code == httpx.codes.OK else None

    def _reasons(self, subject: str, schema: Mapping[str, Any], said: str) -> tuple[str, ...]:
        # Apicurio's answer names a place in the schema and no reason, so the reason is added.
        registered = (self.version(subject, number) for number in self.versions(subject))
        found = [
            f"{obstacle} (version {old.version})"
            for old in registered
            if old is not None
            for obstacle in obstacles(writer=old.schema, reader=schema)
        ]
        reasons = tuple(dict.fromkeys(found))
        return (*reasons, f"The registry says: {said}") if said else reasons or ("not compatible.",)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        bound = self._retry_for
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RegistryUnavailable),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
            stop=tenacity.stop_never if bound is None else tenacity.stop_after_delay(bound),
            reraise=True,
        )
        return retrying(self._call_once, method, path, body)

    def _call_once(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise RegistryUnavailable(
                f"the schema registry {self.address} does not answer: {error}; is it running?"
            ) from error
        if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise RegistryUnavailable(
                f"the schema registry {self.address} fails with {answer.status_code}: "
                f"{_message(answer)}"
            )
        return answer

    def _accepted(self, answer: httpx.Response, purpose: str) -> Any:
        if answer.is_success and _document(answer) is not None:
            return _document(answer)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RegistryError(
                f"the schema registry {self.address} does not let us {purpose}: check "
                "KAPPA_REGISTRY_USER and KAPPA_REGISTRY_PASSWORD."
            )
        raise RegistryError(
            f"the schema registry {self.address} refused to {purpose}: {_message(answer)}"
        )


def publish(registry: Registry, subject: str, schema: Mapping[str, Any]) -> int:
    """Register `schema` under `subject`, which every version must be able to read from then on.

    Returns the schema's id; raises `IncompatibleSchema`.
    """
    if registry.compatibility(subject) != COMPATIBILITY:
        registry.set_compatibility(subject, COMPATIBILITY)
    return registry.register(subject, schema)


def publish_schema(registry: Registry, stream: Stream) -> int:
    """Register `stream`'s current schema and return its id."""
    return publish(registry, stream.subject, stream.schema)


def _path(subject: str) -> str:
    return quote(subject, safe="")


def _body(schema: Mapping[str, Any]) -> dict[str, str]:
    return {"schema": json.dumps(schema, separators=(",", ":"))}


def _document(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _is_absent(answer: httpx.Response) -> bool:
    # A wrong base address gives a 404 too, and must not pass for an unknown schema.
    document = _document(answer)
    return (
        answer.status_code == httpx.codes.NOT_FOUND
        and isinstance(document, dict)
        and "error_code" in document
    )


def _message(answer: httpx.Response) -> str:
    document = _document(answer)
    if isinstance(document, dict) and "message" in document:
        return str(document["message"])
    shown = answer.text.strip()[:200] or answer.reason_phrase
    return f"{answer.status_code} {shown}; is its address that of the Confluent API?"
