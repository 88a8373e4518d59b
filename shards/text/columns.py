"""Documents from one column of a table, of JSON lines or of a parquet file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, Literal

from runtime.files.schemas import listed
from shards.text.plain_text import TextRules
from shards.text.records import column_values, json_lines, parquet_batches, parse_line, require_different, table_rows


def json_documents(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[str]:
    """The text column of JSON lines.

    Raises ValueError naming the line that is too long, too deeply nested, not an object, or lacks the column.
    """
    for place, text in json_lines(stream, name, rules):
        yield json_text(parse_line(text, place), place, rules)


def json_text(record: object, place: str, rules: TextRules) -> str:
    """The text column of one parsed line; null counts as empty."""
    if not isinstance(record, dict):
        raise ValueError(
            f"{place} is a {type(record).__name__}: give one object per line, as jq -c '.[]' does of a list"
        )
    if rules.text_column not in record:
        if isinstance(record.get("data"), list):
            raise ValueError(f"{place} is one object around a list: give one object per line, as jq -c '.data[]' does")
        keys = listed(sorted(record))
        raise ValueError(f"{place} has no column {rules.text_column!r}: name one of {keys} with --text_column")
    text = record[rules.text_column]
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{place}: {no_text(text, rules.text_column)}")
    return valid_unicode(text or "", place, rules)


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
            raise ValueError(f"{name}: line {line} has {len(row)} columns: column {column} is missing")
        yield row[column] if row else ""


def parquet_documents(
    stream: io.BufferedReader, name: str, rules: TextRules, packed_bytes: Callable[[], int]
) -> Iterator[str]:
    """The text column of a parquet file; ValueError as `parquet_batches`, and for a column that is not text."""
    column = rules.text_column
    for row, batch in parquet_batches(stream, name, packed_bytes, column):
        yield from column_texts(column_values(batch.column(0), name, row, rules), name, column)


def column_texts(values: list[Any], name: str, column: str) -> Iterator[str]:
    """Texts of a column; null counts as empty, and anything but text is an error."""
    for value in values:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: {no_text(value, column)}")
        yield value or ""


def no_text(value: object, column: str) -> str:
    """What is wrong with a value that is no text, and the remedy: a document is one text."""
    holds = f"column {column!r} holds a {type(value).__name__}"
    if isinstance(value, list | tuple):
        return f"{holds}: join its items into one text (' '.join), or give each a row of its own (DataFrame.explode)"
    if isinstance(value, dict):
        return f"{holds} with the fields {sorted(map(str, value))[:10]}: write the one with the text as a column"
    return f"{holds}: name a column of text"
