"""The registry as it really answers: ids, versions, refusals with their reason."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from schemas.registry import (
    IncompatibleSchema,
    Registry,
    RegistryError,
    UnknownSchemaId,
    publish_schema,
)
from schemas.streams import Stream


def plus(schema: dict[str, Any], *fields: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "fields": [*schema["fields"], *fields]}


def without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {**schema, "fields": [field for field in schema["fields"] if field["name"] != name]}


CITY = {"name": "city", "type": ["null", "string"], "default": None}
REGION = {"name": "region", "type": "string"}


def test_publishing_sets_the_rule_first_and_gives_one_id(
    registry: Registry, stream: Stream
) -> None:
    assert registry.latest(stream.subject) is None
    assert registry.compatibility(stream.subject) is None
    first = publish_schema(registry, stream)
    assert registry.compatibility(stream.subject) == "BACKWARD_TRANSITIVE"
    assert publish_schema(registry, stream) == first
    assert registry.versions(stream.subject) == (1,)


def test_every_version_is_readable_by_its_id(registry: Registry, stream: Stream) -> None:
    versions = [stream.schema, plus(stream.schema, CITY), without(stream.schema, "country")]
    publish_schema(registry, stream)
    ids = [registry.register(stream.subject, schema) for schema in versions]
    assert len(set(ids)) == 3
    with Registry(registry.address) as another:
        assert [another.schema_by_id(each) for each in ids] == versions
    latest = registry.latest(stream.subject)
    assert latest is not None
    assert (latest.version, latest.id, latest.schema) == (3, ids[2], versions[2])


def test_registering_an_old_version_again_gives_its_id(registry: Registry, stream: Stream) -> None:
    first = publish_schema(registry, stream)
    second = registry.register(stream.subject, plus(stream.schema, CITY))
    assert registry.register(stream.subject, stream.schema) == first
    assert registry.register(stream.subject, plus(stream.schema, CITY)) == second
    assert registry.versions(stream.subject) == (1, 2)


def test_field_without_default_is_refused_with_the_reason(
    registry: Registry, stream: Stream
) -> None:
    publish_schema(registry, stream)
    with pytest.raises(IncompatibleSchema) as caught:
        registry.register(stream.subject, plus(stream.schema, REGION))
    assert caught.value.reasons[0] == (
        'field "region" is new and has no default; give it one. (version 1)'
    )
    # The registry's own words: where in the schema.
    assert "/fields/11" in str(caught.value)
    assert registry.versions(stream.subject) == (1,)


def test_rule_holds_against_every_version_and_not_only_the_last(
    registry: Registry, stream: Stream
) -> None:
    publish_schema(registry, stream)
    registry.register(stream.subject, without(stream.schema, "country"))
    changed = plus(
        without(stream.schema, "country"),
        {"name": "country", "type": ["null", "long"], "default": None},
    )
    with pytest.raises(IncompatibleSchema, match=r'"country" was written as string .*version 1'):
        registry.register(stream.subject, changed)


def test_check_gives_reasons_and_registers_nothing(registry: Registry, stream: Stream) -> None:
    assert registry.check(stream.subject, stream.schema) == ()
    publish_schema(registry, stream)
    assert registry.check(stream.subject, plus(stream.schema, CITY)) == ()
    reasons = registry.check(stream.subject, plus(stream.schema, REGION))
    assert reasons[0].startswith('field "region" is new and has no default')
    assert registry.versions(stream.subject) == (1,)


def test_unknown_id_is_named(registry: Registry) -> None:
    with pytest.raises(UnknownSchemaId, match="schema id 987654321 is not in the registry"):
        registry.schema_by_id(987654321)


def test_wrong_base_address_does_not_pass_for_an_unknown_id(registry: Registry) -> None:
    wrong = registry.address.replace("/apis/ccompat/v7", "/nowhere")
    with Registry(wrong) as lost, pytest.raises(RegistryError, match="Confluent API") as caught:
        lost.schema_by_id(1)
    assert not isinstance(caught.value, UnknownSchemaId)


def test_ten_threads_that_register_at_once_get_the_same_id(
    registry: Registry, stream: Stream
) -> None:
    with ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(lambda _: publish_schema(registry, stream), range(10)))
    assert len(set(ids)) == 1
    assert registry.versions(stream.subject) == (1,)


def test_text_that_is_no_schema_is_refused(registry: Registry, stream: Stream) -> None:
    with pytest.raises(RegistryError, match=f"refused to register a schema for {stream.subject}"):
        registry.register(stream.subject, {"type": "recrod", "name": "X"})
