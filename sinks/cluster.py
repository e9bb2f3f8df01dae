"""Lay a statement that is meant for one server over a cluster's shards and replicas. No I/O.

A table keeps its name as the `Distributed` table that people, views and the loader use; its rows
are in the replicated table `<name>_local`. Rows of one key are on one shard, so that FINAL and
ReplacingMergeTree see all of them. What is no ReplacingMergeTree has few rows that must come to be
at once: they are all on the first shard.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable

from sinks.sql import identifier

LOCAL = "_local"
_NAME = r"`((?:[^`\\]|\\.)+)`"
# The macros that every server of a cluster declares; {uuid} is one for the whole statement.
_REPLICA = r"'/clickhouse/tables/{uuid}/{shard}', '{replica}'"
_SPREAD = "Distributed"
_ENGINE = re.compile(r"^ENGINE = (Replacing)?MergeTree(?:\((.*)\))?$", re.MULTILINE)
_ORDER = re.compile(r"^ORDER BY \((.*)\)$", re.MULTILINE)

_CREATE_TABLE = re.compile(rf"CREATE TABLE IF NOT EXISTS {_NAME}\n(.*)", re.DOTALL)
_ALTER = re.compile(
    rf"ALTER TABLE {_NAME} (ADD COLUMN|DELETE|MODIFY TTL|REMOVE TTL)(.*)", re.DOTALL
)
_DROP = re.compile(rf"DROP TABLE IF EXISTS {_NAME} SYNC")
_ANYWHERE = re.compile(
    rf"((?:CREATE DATABASE IF NOT EXISTS|DROP DATABASE IF EXISTS|CREATE VIEW IF NOT EXISTS"
    rf"|CREATE OR REPLACE VIEW|DROP VIEW IF EXISTS) {_NAME})(.*)",
    re.DOTALL,
)


class NotForClusters(ValueError):
    """A statement that changes tables in a way that is not known here."""


def keyed(table: str, tables: Container[str]) -> str:
    """Return which of `tables` has the key, the lifetime and the parts of `table`.

    On a cluster that is its local part: the `Distributed` table knows nothing of them.
    """
    local = f"{table}{LOCAL}"
    return local if local in tables else table


def identities(tables: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return the identity of each of `tables`, given as name, own identity and engine, by its name.

    That of a `Distributed` table is its local part's, which has the rows; without one it is not
    there.
    """
    found = list(tables)
    own = {name: identity for name, identity, _ in found}
    with_rows = {name: name + LOCAL if engine == _SPREAD else name for name, _, engine in found}
    return {name: own[of_rows] for name, of_rows in with_rows.items() if of_rows in own}


def spread(statement: str, cluster: str, database: str) -> tuple[str, ...]:
    """Return what to run, in this order, on any server of `cluster` in place of `statement`.

    Without a cluster that is the statement itself; queries and inserts stay as they are. Raises
    `NotForClusters`.
    """
    if not cluster or re.match(r"\s*(SELECT|INSERT|WITH|SHOW)\b", statement):
        return (statement,)
    everywhere = f" ON CLUSTER {identifier(cluster)}"
    if found := _CREATE_TABLE.fullmatch(statement):
        return _create(found[1], found[2], everywhere, cluster, database)
    if found := _ALTER.fullmatch(statement):
        names = [found[1] + LOCAL] + ([found[1]] if found[2] == "ADD COLUMN" else [])
        return tuple(f"ALTER TABLE `{name}`{everywhere} {found[2]}{found[3]}" for name in names)
    if found := _DROP.fullmatch(statement):
        names = [found[1], found[1] + LOCAL]
        return tuple(f"DROP TABLE IF EXISTS `{name}`{everywhere} SYNC" for name in names)
    if found := _ANYWHERE.fullmatch(statement):
        return (f"{found[1]}{everywhere}{found[3]}",)
    raise NotForClusters(f"{statement.splitlines()[0]}: not known on a cluster.")


def _create(name: str, rest: str, everywhere: str, cluster: str, database: str) -> tuple[str, str]:
    engine, order = _ENGINE.search(rest), _ORDER.search(rest)
    if engine is None or order is None:
        raise NotForClusters(f"table {name}: its engine is not known on a cluster.")
    kind = engine[1] or ""
    arguments = ", ".join(filter(None, (_REPLICA, engine[2])))
    replicated = f"ENGINE = Replicated{kind}MergeTree({arguments})"
    local = rest.replace(engine[0], replicated, 1)
    shard = f"cityHash64({order[1]})" if kind else "0"
    places = f"{identifier(cluster)}, {identifier(database)}, `{name}{LOCAL}`"
    columns = rest[: rest.index("\n)") + 2]
    comment = re.search(r"^COMMENT .*", rest, re.MULTILINE | re.DOTALL)
    spread_over = f"ENGINE = {_SPREAD}({places}, {shard})"
    return (
        f"CREATE TABLE IF NOT EXISTS `{name}{LOCAL}`{everywhere}\n{local}",
        "\n".join(
            filter(
                None,
                (
                    f"CREATE TABLE IF NOT EXISTS `{name}`{everywhere}\n{columns}",
                    spread_over,
                    comment and comment[0],
                ),
            )
        ),
    )
