"""Read as much of a ClickHouse statement as its transport must know. No I/O.

The engine parses SQL; the transport only needs the first word, the output format, whether a
second statement follows, and where the rows of an INSERT begin. What a reader may not run is
decided on the engine's own rendering of the statement, see `guard`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# Text that does not end runs to the end of the input: no part is scanned twice.
_TOKEN = re.compile(
    rb"""
      (?P<space>\s++ | --[^\n]*+ | \#[ !][^\n]*+ | /\*.*?(?:\*/|\Z))
    | (?P<string>'(?:[^'\\]++|\\.|'')*+(?:'|\Z)
        | \$(?P<tag>\w*+)\$.*?(?:\$(?P=tag)\$|\Z)
        | \xe2\x80\x98.*?(?:\xe2\x80\x99|\Z))
    | (?P<quoted>"(?:[^"\\]++|\\.|"")*+(?:"|\Z)
        | `(?:[^`\\]++|\\.|``)*+(?:`|\Z)
        | \xe2\x80\x9c.*?(?:\xe2\x80\x9d|\Z))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*+)
    | (?P<number>[0-9][A-Za-z0-9_]*+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

READING = frozenset(
    {"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "USE"}
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL: its kind, its text as sent, where it starts and ends, and its depth."""

    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    @property
    def keyword(self) -> str:
        """The token in upper case when it is a bare word, else nothing."""
        return self.text.upper().decode() if self.kind == "word" else ""


@dataclass(frozen=True)
class Rows:
    """Where an INSERT's rows are: `clause_at` is the byte at which a FROM INFILE clause belongs,
    `clause_end` where the statement's own text ends, `start` where the rows begin.
    """

    format: str
    clause_at: int
    clause_end: int
    start: int

    def from_file(self, sql: bytes, quoted_path: str) -> bytes:
        """Return the INSERT in `sql` with its rows read from a file."""
        clause = f" FROM INFILE {quoted_path} COMPRESSION 'none' ".encode()
        between = sql[self.clause_at : self.clause_end]
        return sql[: self.clause_at] + clause + between + f" FORMAT {self.format}".encode()


@dataclass(frozen=True)
class Statement:
    """What the transport knows of a statement.

    `keyword` is its first word in upper case, `format` the one it names for its answer, `rows`
    where an INSERT's rows begin. `several` says that a second statement follows, `file` that it
    reads or writes a file of the server.
    """

    keyword: str
    format: str | None = None
    rows: Rows | None = None
    several: bool = False
    file: bool = False

    @property
    def reads(self) -> bool:
        """Whether the first word is that of a statement that only reads."""
        return self.keyword in READING

    @property
    def selects(self) -> bool:
        """Whether the statement is a query; only its answer can come block by block."""
        return self.keyword in ("SELECT", "WITH", "FROM")


def tokens(sql: bytes) -> Iterator[Token]:
    """Yield the tokens of `sql` without space and comments."""
    depth = 0
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "other"
        if kind == "space":
            continue
        text = match.group()
        depth -= text in (b")", b"]")
        yield Token(kind, text, match.start(), match.end(), depth)
        depth += text in (b"(", b"[")


def parse(sql: bytes) -> Statement:
    """Return what the transport must know of `sql`, which may break off amid an INSERT's rows."""
    stream = tokens(sql)
    opening = next((token for token in stream if token.text != b"("), None)
    if opening is None:
        return Statement("")
    if opening.keyword == "INSERT":
        return _insert(sql, stream)
    found = list(stream)
    return Statement(
        opening.keyword,
        format=_output_format(found),
        several=_several(found),
        file=_names_file(found),
    )


def _insert(sql: bytes, stream: Iterator[Token]) -> Statement:
    settings_at = None
    token = _after_target(stream)
    while token is not None:
        if token.depth == 0 and token.keyword in ("SELECT", "WITH", "FROM", "EXPLAIN"):
            found = [token, *stream]
            return Statement("INSERT", several=_several(found), file=_names_file(found))
        if token.depth == 0 and token.keyword == "SETTINGS":
            settings_at = token.start
        if token.depth == 0 and token.keyword == "VALUES":
            at = token.start if settings_at is None else settings_at
            return Statement("INSERT", rows=Rows("Values", at, token.start, token.end))
        if token.depth == 0 and token.keyword == "FORMAT":
            at = token.start if settings_at is None else settings_at
            name = next(stream, None)
            if name is None:
                break
            start = _past_line_end(sql, name.end)
            return Statement("INSERT", rows=Rows(name.text.decode(), at, token.start, start))
        token = next(stream, None)
    return Statement("INSERT")


def _after_target(stream: Iterator[Token]) -> Token | None:
    """Return the first token after INSERT's table, whose name may be any word."""
    token = next(stream, None)
    while token is not None and token.keyword in ("INTO", "TABLE", "FUNCTION"):
        token = next(stream, None)
    token = next(stream, None)
    while token is not None and token.text == b".":
        next(stream, None)
        token = next(stream, None)
    return token


def _past_line_end(sql: bytes, position: int) -> int:
    """Return where rows begin after a format's name: past spaces and one line end."""
    while sql[position : position + 1] in (b" ", b"\t", b"\r", b"\f", b"\v"):
        position += 1
    return position + (sql[position : position + 1] == b"\n")


def _output_format(found: list[Token]) -> str | None:
    for position in range(len(found) - 2, -1, -1):
        token, after = found[position], found[position + 1]
        if token.keyword == "FORMAT" and token.depth == 0 and after.kind == "word":
            return after.text.decode()
    return None


def _several(found: list[Token]) -> bool:
    ended = False
    for token in found:
        if ended and token.text != b";":
            return True
        ended = ended or token.text == b";"
    return False


def _names_file(found: list[Token]) -> bool:
    words = [token.keyword for token in found]
    pairs = set(pairwise(words))
    return ("INTO", "OUTFILE") in pairs or ("FROM", "INFILE") in pairs
