"""Read as much of a ClickHouse statement as its transport must know. No I/O.

The engine parses SQL; the transport only needs the first word, the output format, whether a
second statement follows, and where the rows of an INSERT begin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# One token a match: comments, quoted text, names, numbers, and single characters.
_TOKEN = re.compile(
    rb"""
      (?P<space>\s+ | --[^\n]* | \#[ !][^\n]* | /\*.*?\*/)
    | (?P<string>'(?:[^'\\]|\\.|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
        | \xe2\x80\x98.*?\xe2\x80\x99)
    | (?P<quoted>"(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` | \xe2\x80\x9c.*?\xe2\x80\x9d)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>[0-9][A-Za-z0-9_]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_READS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "FROM"})


@dataclass(frozen=True)
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
class Statement:
    """What the transport knows of a statement.

    `keyword` is its first word in upper case, `format` the one it names for its output (or for
    the rows of an INSERT), `data_start` the byte where an INSERT's rows begin, `infile_at` the
    byte where a FROM INFILE clause belongs. `several` says that a second statement follows.
    """

    keyword: str
    format: str | None = None
    data_start: int | None = None
    infile_at: int | None = None
    several: bool = False

    @property
    def reads(self) -> bool:
        """Whether the first word is that of a statement that only reads."""
        return self.keyword in _READS

    @property
    def inserts_rows(self) -> bool:
        """Whether the statement is an INSERT whose rows follow in the body."""
        return self.data_start is not None


def tokens(sql: bytes) -> list[Token]:
    """Return the tokens of `sql` without space and comments."""
    found = []
    depth = 0
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "other"
        kind = "string" if kind == "tag" else kind
        if kind == "space":
            continue
        text = match.group()
        depth -= text in (b")", b"]")
        found.append(Token(kind, text, match.start(), match.end(), depth))
        depth += text in (b"(", b"[")
    return found


def parse(sql: bytes) -> Statement:
    """Return what the transport must know of `sql`, which may end amid an INSERT's rows."""
    found = tokens(sql)
    opening = next((token for token in found if token.text != b"("), None)
    if opening is None:
        return Statement("")
    if opening.keyword == "INSERT":
        return _insert(sql, found)
    return Statement(opening.keyword, format=_output_format(found), several=_several(found))


def _insert(sql: bytes, found: list[Token]) -> Statement:
    settings_at = None
    for position, token in enumerate(found[1:], start=1):
        if token.depth or not token.keyword:
            continue
        if token.keyword in ("SELECT", "WITH", "EXPLAIN", "INFILE"):
            return Statement("INSERT", several=_several(found[position:]))
        if token.keyword == "SETTINGS":
            settings_at = token.start
        if token.keyword == "VALUES":
            return Statement("INSERT", "Values", token.end, settings_at or token.start)
        if token.keyword == "FORMAT" and position + 1 < len(found):
            name = found[position + 1]
            start = _skip_line_end(sql, name.end)
            return Statement("INSERT", name.text.decode(), start, settings_at or token.start)
    return Statement("INSERT", several=_several(found))


def _skip_line_end(sql: bytes, position: int) -> int:
    """Return where rows begin after a format's name: past spaces and one line end."""
    while sql[position : position + 1] in (b" ", b"\t", b"\r", b"\f", b"\v"):
        position += 1
    return position + 1 if sql[position : position + 1] == b"\n" else position


def _output_format(found: list[Token]) -> str | None:
    for position in range(len(found) - 2, -1, -1):
        token, after = found[position], found[position + 1]
        if token.keyword == "FORMAT" and token.depth == 0 and after.kind == "word":
            return after.text.decode()
    return None


def _several(found: list[Token]) -> bool:
    ends = [position for position, token in enumerate(found) if token.text == b";"]
    return any(found[position + 1].text != b";" for position in ends if position + 1 < len(found))
