"""Errors in ClickHouse's own words, and the HTTP status of each. No I/O."""

from __future__ import annotations

import re

_CODE = re.compile(r"Code: (\d+)\. (.*)", re.DOTALL)
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*$")

AUTHENTICATION_FAILED = 516
READONLY = 164


class QueryError(Exception):
    """A refused or failed query: ClickHouse's error code, its name and a message."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.message = message

    def text(self, version: str) -> str:
        """Return the body of the answer, as a ClickHouse server prints it."""
        return (
            f"Code: {self.code}. DB::Exception: {self.message} ({self.name}) (version {version})\n"
        )


def from_engine(text: str) -> QueryError:
    """Return the error that the engine's message `text` tells."""
    found = _CODE.search(text)
    if found is None:
        return QueryError(1002, "UNKNOWN_EXCEPTION", text.strip())
    message = found[2].strip().removeprefix("DB::Exception: ")
    name = _NAME.search(message)
    if name is None:
        return QueryError(int(found[1]), "UNKNOWN_EXCEPTION", message)
    return QueryError(int(found[1]), name[1], message[: name.start()].rstrip())


_STATUS_NAMES = {
    400: (
        "SYNTAX_ERROR TYPE_MISMATCH INCORRECT_DATA BAD_ARGUMENTS UNKNOWN_ELEMENT_IN_AST "
        "UNKNOWN_TYPE_OF_AST_NODE TOO_DEEP_AST TOO_BIG_AST UNEXPECTED_AST_STRUCTURE "
        "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE CANNOT_PARSE_TEXT CANNOT_PARSE_NUMBER "
        "CANNOT_PARSE_ESCAPE_SEQUENCE CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE "
        "CANNOT_PARSE_DATETIME CANNOT_PARSE_UUID CANNOT_PARSE_IPV4 CANNOT_PARSE_IPV6 "
        "CANNOT_PARSE_INPUT_ASSERTION_FAILED CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING "
        "UNKNOWN_QUERY_PARAMETER BAD_QUERY_PARAMETER"
    ),
    401: "REQUIRED_PASSWORD",
    403: (
        "AUTHENTICATION_FAILED UNKNOWN_USER WRONG_PASSWORD SET_NON_GRANTED_ROLE "
        "ACCESS_DENIED READONLY"
    ),
    404: (
        "UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE "
        "UNKNOWN_DATABASE UNKNOWN_SETTING UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT "
        "UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY SESSION_NOT_FOUND"
    ),
    408: "TIMEOUT_EXCEEDED SOCKET_TIMEOUT",
    413: "QUERY_IS_TOO_LARGE TOO_LARGE_STRING_SIZE",
    501: "NOT_IMPLEMENTED",
    503: "CANNOT_SCHEDULE_TASK TOO_MANY_SIMULTANEOUS_QUERIES",
}
_STATUS = {name: status for status, names in _STATUS_NAMES.items() for name in names.split()}


def http_status(error: QueryError) -> int:
    """Return the HTTP status that a ClickHouse server gives `error`."""
    return _STATUS.get(error.name, 500)
