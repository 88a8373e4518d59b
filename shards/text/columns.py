"""Documents from one column of a table, of JSON lines or of a parquet file; the column may be a field of another."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Literal

from runtime.files.schemas import listed
from runtime.plurals import counted
from shards.text.plain_text import TextRules
from shards.text.records import (
    column_values,
    json_lines,
    parquet_batches,
    parse_line,
    require_different,
    table_rows,
    top_column,
)


def json_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """The text column of JSON lines.

    Raises ValueError naming the line that is too long, too deeply nested, not an object, or lacks the column.
    """
    for place, text in json_lines(stream, name, rules):
        yield json_text(parse_line(text, place), place, rules)


def json_text(record: object, place: str, rules: TextRules) -> str:
    """The text column of one parsed line or element; null counts as empty."""
    if not isinstance(record, dict):
        raise ValueError(
            f"{place} is a {type(record).__name__}: give one object per line, as jq -c '.[]' does of a list"
        )
    if rules.text_column not in record and isinstance(record.get("data"), list) and "." not in rules.text_column:
        raise ValueError(f"{place} is one object around a list: give one object per line, as jq -c '.data[]' does")
    value = field_of(record, rules.text_column, place)
    return valid_unicode(joined(value, place, rules.text_column), place, rules)


def field_of(record: dict[str, Any], column: str, place: str) -> Any:
    """The value of a column, or for `a.b` of field b of column a; of the items of a list, a list of their values.

    A name with a point in it comes first: "a.b" itself, then field b of "a". A field of null is null. Raises ValueError
    where there is no such column, with the names there are.
    """
    try:
        return inner_value(record, column)
    except KeyError:
        names = listed(sorted(map(str, [*record, *inner_names(record)])))
        raise ValueError(f"{place} has no column {column!r}: name one of {names} with --text_column") from None


def inner_value(value: Any, column: str) -> Any:
    """As `field_of`; KeyError where there is no such field."""
    if isinstance(value, list):
        return [inner_value(item, column) for item in value]
    if value is None:
        return None
    if not isinstance(value, dict):
        raise KeyError(column)
    if column in value:
        return value[column]
    end = column.rfind(".")
    while end > 0:
        if column[:end] in value:
            return inner_value(value[column[:end]], column[end + 1 :])
        end = column.rfind(".", 0, end)
    raise KeyError(column)


def inner_names(record: dict[str, Any]) -> Iterator[str]:
    """The fields of a record's objects, as `a.b`."""
    for name, value in record.items():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, dict):
            yield from (f"{name}.{field}" for field in first)


def joined(value: Any, place: str, column: str) -> str:
    """A document of a column's value: a text, or the texts of a list as its paragraphs; null counts as empty.

    Raises ValueError for anything else.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list | tuple):
        return "\n\n".join(part for item in value if (part := joined(item, place, column)))
    raise ValueError(f"{place}: {no_text(value, column)}")


def valid_unicode(text: str, place: str, rules: TextRules) -> str:
    """Text without half surrogates, which JSON can escape and UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if rules.on_bad_text == "stop":
            raise ValueError(f"{place}: a lone surrogate is not a character: give --on_bad_text replace") from error
        rules.changed["invalid_utf8_replaced"] += 1
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def table_documents(
    stream: io.BufferedReader, name: str, rules: TextRules, *, delimiter: Literal[",", "\t"]
) -> Iterator[str]:
    """The text column of CSV (quoted) or TSV (not quoted); a number as column means a table without a header.

    Raises ValueError naming the line of a row that lacks the column, and as `table_rows` does.
    """
    rows = table_rows(stream, name, rules, delimiter=delimiter)
    if rules.text_column.isdigit():
        column = int(rules.text_column)
    else:
        _, header = next(rows, (0, [rules.text_column]))
        if rules.text_column not in header:
            raise ValueError(
                f"{name} has no column {rules.text_column!r}: name one of {listed(header)} with --text_column, "
                "or a column's number (from 0) where there is no header"
            )
        require_different([title for title in header if title == rules.text_column], f"{name}: the header")
        column = header.index(rules.text_column)
    for line, row in rows:
        if row and len(row) <= column:
            raise ValueError(f"{name}: line {line} has {counted(len(row), 'column')}: column {column} is missing")
        yield row[column] if row else ""


def parquet_documents(
    stream: io.BufferedReader, name: str, rules: TextRules, packed_bytes: Callable[[], int]
) -> Iterator[str]:
    """The text column of a parquet file; ValueError as `parquet_batches`, and for a column that is not text."""
    column = rules.text_column
    for row, batch in parquet_batches(stream, name, packed_bytes, column):
        top = top_column(batch.schema.names, column, name)
        values = column_values(batch.column(batch.schema.get_field_index(top)), name, row, rules)
        for number, value in enumerate(values, start=row):
            place = f"{name}: row {number}"
            yield joined(field_of({top: value}, column, place), place, column)


def dataset_texts(row: dict[str, Any], name: str, column: str) -> Iterator[str]:
    """The text column of a row of a data set; ValueError for one that lacks it, or whose value is not text."""
    yield joined(field_of(row, column, name), name, column)


def no_text(value: object, column: str) -> str:
    """What is wrong with a value that is no text, and the remedy: a document is a text, or a list of texts."""
    holds = f"column {column!r} holds a {type(value).__name__}"
    if isinstance(value, dict):
        names = sorted(map(str, value))[:10]
        inner = f"{column}.{names[0] if names else 'NAME'}"
        return f"{holds} with the fields {names}: name the one with the text, as --text_column {inner}"
    return f"{holds}: name a column of text"
