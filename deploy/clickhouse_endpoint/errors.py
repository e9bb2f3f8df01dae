"""Errors in ClickHouse's own words, and the HTTP status of each. No I/O."""

from __future__ import annotations

import errno
import re

_CODE = re.compile(r"Code: (\d+)\. (.*)", re.DOTALL)
# The engine tells some errors twice, the one within the other.
_NESTED = re.compile(
    r"Code: \d+\. DB::Exception: (Code: \d+\. .*?) \(version [\d.]+\)\. \([A-Z0-9_]+\)", re.DOTALL
)
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*$")


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


def authentication_failed(name: str) -> QueryError:
    """Return the error for a wrong password, or for a user that does not exist."""
    return QueryError(
        516,
        "AUTHENTICATION_FAILED",
        f"{name}: Authentication failed: password is incorrect, or there is no user with such "
        "name.",
    )


def readonly(message: str) -> QueryError:
    """Return the error for a statement that somebody who may only read may not run."""
    return QueryError(164, "READONLY", message)


def too_large(message: str) -> QueryError:
    """Return the error for a request body or a statement beyond its limit."""
    return QueryError(223, "QUERY_IS_TOO_LARGE", message)


def syntax(message: str) -> QueryError:
    """Return the error for a request that is no statement."""
    return QueryError(62, "SYNTAX_ERROR", f"Syntax error: {message}")


def bad_body(message: str) -> QueryError:
    """Return the error for a body that breaks off or does not have its stated encoding."""
    return QueryError(117, "INCORRECT_DATA", message)


def not_implemented(message: str) -> QueryError:
    """Return the error for a part of the interface that is not offered here."""
    return QueryError(48, "NOT_IMPLEMENTED", message)


def of_endpoint(error: Exception) -> QueryError:
    """Return what a client is told of a failure of the endpoint itself."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"Cannot keep what was sent until the engine has read it: {error.strerror}."
        return QueryError(243, "NOT_ENOUGH_SPACE", text)
    return QueryError(1002, "UNKNOWN_EXCEPTION", "The endpoint failed, its log has the reason.")


def from_engine(text: str) -> QueryError:
    """Return the error that the engine's message `text` tells."""
    found = _CODE.search(_NESTED.sub(r"\1", text))
    if found is None:
        return QueryError(1002, "UNKNOWN_EXCEPTION", text.strip())
    message = re.sub(r"^DB::\w+: ", "", found[2].strip())
    name = _NAME.search(message)
    if name is None:
        return QueryError(int(found[1]), "UNKNOWN_EXCEPTION", message)
    return QueryError(int(found[1]), name[1], message[: name.start()].rstrip())


# As ClickHouse's own server maps them; every other error is a 500.
_STATUS_NAMES = {
    400: """
        BAD_ARGUMENTS CANNOT_COMPILE_REGEXP CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE
        CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER
        CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING CANNOT_PARSE_IPV4 CANNOT_PARSE_IPV6
        CANNOT_PARSE_INPUT_ASSERTION_FAILED CANNOT_PARSE_UUID DUPLICATE_COLUMN ILLEGAL_COLUMN
        UNKNOWN_ELEMENT_IN_AST UNKNOWN_TYPE_OF_AST_NODE THERE_IS_NO_COLUMN TOO_DEEP_AST TOO_BIG_AST
        UNEXPECTED_AST_STRUCTURE SYNTAX_ERROR INCORRECT_DATA TYPE_MISMATCH
        VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    """,
    401: "REQUIRED_PASSWORD",
    403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE ACCESS_DENIED",
    404: """
        UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE
        UNKNOWN_DATABASE UNKNOWN_SETTING UNKNOWN_DIRECTION_OF_SORTING UNKNOWN_AGGREGATE_FUNCTION
        UNKNOWN_FORMAT UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY UNKNOWN_ROLE
    """,
    408: "TIMEOUT_EXCEEDED",
    411: "HTTP_LENGTH_REQUIRED",
    413: "QUERY_IS_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    501: "NOT_IMPLEMENTED",
    503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
}
_STATUS = {name: status for status, names in _STATUS_NAMES.items() for name in names.split()}


def http_status(error: QueryError) -> int:
    """Return the HTTP status that a ClickHouse server gives `error`."""
    return _STATUS.get(error.name, 500)
