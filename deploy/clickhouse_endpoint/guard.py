"""What somebody who may only read may ask. No I/O.

The engine's own `readonly = 1` refuses writing, settings and nearly every table function. It
leaves holes: the scalar function `file`, `DESCRIBE url(…)`, `KILL QUERY`, files written by
`INTO OUTFILE`. They are closed here on the statement as the engine renders it, in which comments
are gone and quoting is uniform.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

from deploy.clickhouse_endpoint.errors import QueryError, readonly, syntax
from deploy.clickhouse_endpoint.statement import READING, parse, tokens

# Table functions over what the engine holds already, or over nothing.
_HARMLESS = frozenset(
    """
    values sqlstandardvalues null view viewifpermitted viewexplain merge dictionary numbers
    numbers_mt zeros zeros_mt primes generateseries generate_series generaterandom format
    """.split()  # noqa: SIM905
)
_SCALARS = frozenset({"file", "catboostevaluate"})
# These change how text is read or what is allowed, and so what was checked.
_FIXED = frozenset({"readonly", "allow_ddl", "dialect", "implicit_select"})


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
        if token.keyword == "SETTINGS" and after.kind == "word" and last.text == b"=":
            return readonly("Cannot modify settings in readonly mode.")
    for token, after in pairwise(found):
        name = token.text.strip(b'`"').decode("utf-8", "replace")
        if token.kind in ("word", "quoted") and after.text == b"(" and name.lower() in denied:
            return readonly(f"Cannot use function {name} in readonly mode.")
    return None


def setting_refusal(name: str, value: str) -> QueryError | None:
    """Return why a reader may not send the setting `name`."""
    if name == "readonly" and value in ("1", "2"):
        return None
    if name in _FIXED or name.startswith("allow_introspection"):
        return readonly(f"Cannot modify '{name}' setting in readonly mode.")
    return None
