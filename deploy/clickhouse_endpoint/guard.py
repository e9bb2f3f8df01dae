"""What somebody who may only read may ask. No I/O.

The engine's own `readonly = 1` refuses writing, settings and nearly every table function. It
leaves holes: the scalar function `file`, `DESCRIBE url(…)`, `KILL QUERY`, files written by
`INTO OUTFILE`. They are closed here on the statement as the engine renders it, in which comments
are gone and quoting is uniform. Settings that name files, or hold expressions that no statement
shows, arrive beside it; a reader may send those that are known to do neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from deploy.clickhouse_endpoint.errors import QueryError, readonly, syntax
from deploy.clickhouse_endpoint.statement import READING, Token, parse, tokens

# Table functions over what the engine holds already, or over nothing.
_HARMLESS = frozenset(
    """
    values sqlstandardvalues null view viewifpermitted viewexplain merge dictionary numbers
    numbers_mt zeros zeros_mt primes generateseries generate_series generaterandom format
    """.split()  # noqa: SIM905
)
# Read files, or ask the network with the owner's credentials. `arrayMap(file, …)` and
# `APPLY file` call a function without a bracket after its name.
_SCALARS = frozenset(
    """
    file catboostevaluate aiclassify aiembed aiextract aifilter aigenerate airedact aisimilarity
    aitranslate
    """.split()  # noqa: SIM905
)
# Some are functions, too, and none of those takes a function.
_BEFORE_GROUPS = frozenset(
    """
    select distinct where prewhere having qualify by sets over on using except in and or not
    """.upper().split()
)
# What bounds a query or shapes its answer, and what drivers send by themselves.
_HARMLESS_SETTINGS = frozenset(
    """
    aggregate_functions_null_for_empty async_insert cast_string_to_dynamic_use_inference extremes
    final group_by_use_nulls join_use_nulls limit offset prefer_column_name_to_alias
    select_sequential_consistency session_timezone transform_null_in union_default_mode
    """.split()  # noqa: SIM905
)
_HARMLESS_PREFIXES = ("max_", "output_format_", "date_time_")
# The first names a file that is written, the other lets memory go uncounted.
_HARMFUL_SETTINGS = frozenset({"output_format_schema", "max_untracked_memory"})


def denied_functions(table_functions: Collection[str]) -> frozenset[str]:
    """Return the names a reader may not call, in lower case, of all the engine's functions."""
    return _SCALARS | ({name.lower() for name in table_functions} - _HARMLESS)


def as_parameter(sql: bytes) -> str:
    """Return `sql` as the value of a query parameter; raises QueryError for what is no text."""
    try:
        text = sql.decode()
    except UnicodeDecodeError:
        raise syntax("the query is not UTF-8") from None
    if "\0" in text:
        raise syntax("the query has a NUL character")
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def refusal(canonical: bytes, denied: Collection[str]) -> QueryError | None:
    """Return why a reader may not run the statement that the engine renders as `canonical`."""
    parsed = parse(canonical)
    if parsed.keyword not in READING:
        return readonly(f"Cannot execute {parsed.keyword or 'this'} query in readonly mode.")
    if parsed.file:
        return readonly("Cannot use INTO OUTFILE or FROM INFILE in readonly mode.")
    found = list(tokens(canonical))
    for token, after, last in zip(found, found[1:], found[2:], strict=False):
        # The engine overlooks the settings of a subquery.
        if token.keyword == "SETTINGS" and _is_name(after) and last.text == b"=":
            return readonly("Cannot modify settings in readonly mode.")
    for token, after in pairwise(found):
        if _is_name(token) and after.text == b"(" and _name(token).lower() in denied:
            return readonly(f"Cannot use function {_name(token)} in readonly mode.")
    passed = next((name for name in _passed(found) if name.lower() in _SCALARS), None)
    return None if passed is None else _maybe_a_function(passed)


def _passed(found: Sequence[Token]) -> Iterator[str]:
    """Yield the names in `found` that can be functions without a bracket after them.

    Those are a call's arguments and what APPLY applies; elsewhere such a name is a column, a
    table, an alias or a parameter.
    """
    inside = [False]
    ends = Token("other", b"", 0, 0, 0)
    for before, token, behind in zip([ends, *found], found, [*found[1:], ends], strict=False):
        if token.text in (b"(", b"["):
            opens_call = token.text == b"(" and not _groups(before)
            inside.append(behind.keyword != "SELECT" and (opens_call or inside[-1]))
        elif token.text in (b")", b"]"):
            inside.pop()
        elif _is_name(token) and (inside[-1] or before.keyword == "APPLY"):
            parameter = before.text == b"{" and behind.text == b":"
            # No function has a dot before its name; a column or a table may.
            if not parameter and before.text != b"." and before.keyword != "AS":
                yield _name(token)


def _groups(before: Token) -> bool:
    """Whether a bracket after the token `before` groups what is in it, and so begins no call."""
    if before.kind == "other":
        return before.text not in (b")", b"]", b"}")
    return before.keyword in _BEFORE_GROUPS


def identifiers(canonical: bytes) -> frozenset[str]:
    """Return the parameters whose values the statement `canonical` uses as names."""
    found = list(tokens(canonical))
    return frozenset(
        _name(name)
        for name, colon, kind in zip(found, found[1:], found[2:], strict=False)
        if colon.text == b":" and kind.text == b"Identifier"
    )


def identifier_refusal(names: Collection[str], values: Mapping[str, str]) -> QueryError | None:
    """Return why a reader may not give the parameters `names`, used as names, these `values`."""
    for value in (values.get(name, "") for name in names):
        if value.lower() in _SCALARS:
            return _maybe_a_function(value)
    return None


def setting_refusal(name: str) -> QueryError | None:
    """Return why a reader may not send the setting `name`."""
    known = name in _HARMLESS_SETTINGS or name.startswith(_HARMLESS_PREFIXES)
    if (known or name.endswith("_overflow_mode")) and name not in _HARMFUL_SETTINGS:
        return None
    return readonly(f"Cannot modify '{name}' setting in readonly mode.")


def _is_name(token: Token) -> bool:
    return token.kind in ("word", "quoted")


def _name(token: Token) -> str:
    return token.text.strip(b'`"').decode("utf-8", "replace")


def _maybe_a_function(name: str) -> QueryError:
    return readonly(
        f"Cannot use function {name} in readonly mode; a column of that name is named with its "
        f"table, as in t.{name}."
    )
