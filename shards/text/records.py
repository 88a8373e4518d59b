"""Rows of JSON lines, tables and parquet files: builds take one column of them, fine-tuning recipes all."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Literal

import pyarrow
import pyarrow.parquet

from runtime.files.foreign import reading_foreign
from runtime.files.schemas import listed
from shards.text.expansion import Expansion
from shards.text.plain_text import TextRules, whole_lines

PARQUET_ROWS = 256


def json_lines(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, as text, preceded by its place, for errors."""
    for number, offset, line in whole_lines(stream, name, rules):
        if line.strip():
            yield f"{name}: line {number}", rules.decode(line, name, offset)


def parse_line(text: str, place: str) -> Any:
    """The JSON value of one line; ValueError with its `place` if it is torn or too deeply nested."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{place} is too deeply nested: give one flat object per line") from error
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}): give one object per line") from error


def table_rows(
    stream: io.BufferedReader, name: str, rules: TextRules, *, delimiter: Literal[",", "\t"]
) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV (quoted) or TSV (not quoted), header included, with the line that each ends in.

    Raises ValueError naming the line of a row that is too long: after a quote that is never closed, all the rest is one
    row.
    """
    csv.field_size_limit(rules.max_document_bytes)
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    lines = RowLines(stream, name, rules)
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    try:
        for row in lines.counted(rows):
            yield rows.line_num, row
    except csv.Error as error:
        raise ValueError(
            f"{name}: line {rows.line_num}: {error}: is a quote left open, or a field too long?"
        ) from error


class RowLines:
    """The lines of a table as its parser takes them; a row may not be longer than a document."""

    def __init__(self, stream: io.BufferedReader, name: str, rules: TextRules) -> None:
        self.lines, self.name, self.rules = whole_lines(stream, name, rules), name, rules
        self.row_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for number, offset, line in self.lines:
            self.row_bytes += len(line)
            if self.row_bytes > self.rules.max_document_bytes:
                raise ValueError(
                    f"{self.name}: the row that holds line {number} is longer than {self.rules.max_document_bytes:,} "
                    f"bytes: is a quote left open? Otherwise {self.rules.size_remedy}"
                )
            text = self.rules.decode(line, self.name, offset)
            if "\r" in text:  # which by itself ends a line, as old programs write it
                yield from io.StringIO(text, newline="")
            else:
                yield text

    def counted(self, rows: Iterator[list[str]]) -> Iterator[list[str]]:
        """The rows that a parser makes of these lines; each one restarts the count."""
        while True:
            self.row_bytes = 0
            row = next(rows, None)
            if row is None:
                return
            yield row


def parquet_batches(
    stream: io.BufferedReader, name: str, packed_bytes: Callable[[], int], column: str | None = None
) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
    """A parquet file, or one `column` of it, a few hundred rows at a time, with the number (from 1) of the first.

    `packed_bytes` gives the size of the file on disk. Raises ValueError for a damaged file, one without the column, and
    one that unpacks to more than any text does.
    """
    expansion, row, columns = Expansion(name, packed_bytes), 1, None if column is None else [column]
    with seekable(stream) as file:
        with reading_parquet(name):
            table = pyarrow.parquet.ParquetFile(file)
            names, group_bytes = table.schema_arrow.names, largest_group_bytes(table, column)
            batches = table.iter_batches(batch_size=PARQUET_ROWS, columns=columns)
        if column is not None and column not in names:
            raise ValueError(f"{name} has no column {column!r}: name one of {listed(names)} with --text_column")
        expansion.add(group_bytes)
        while True:
            with reading_parquet(name):
                batch = next(batches, None)
            if batch is None:
                return
            expansion.add(batch.nbytes)
            yield row, batch
            row += len(batch)


def reading_parquet(name: str) -> AbstractContextManager[None]:
    """Whatever a damaged file raises inside becomes a ValueError that names it."""
    return reading_foreign(name, "is the file whole?", how="cannot be read as parquet")


def column_values(column: Any, name: str, first_row: int, rules: TextRules) -> list[Any]:
    """Values of an Arrow array; parquet does not check that its text is UTF-8, so the rules decide row by row."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        try:
            rows = enumerate(column.cast(pyarrow.large_binary()).to_pylist(), start=first_row)
        except pyarrow.ArrowException as error:
            raise ValueError(
                f"{name}: rows from {first_row} on hold text that is not UTF-8 within a list or a struct: "
                "write the file again"
            ) from error
        return [None if data is None else rules.characters(data, f"{name}: row {row}") for row, data in rows]


def largest_group_bytes(table: pyarrow.parquet.ParquetFile, column: str | None) -> int:
    """Bytes, unpacked, of a column (or of all) in the largest row group, as the file says."""
    metadata = table.metadata
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    if column is None:
        return max((group.total_byte_size for group in groups), default=0)
    if metadata.num_columns != len(table.schema_arrow.names):  # nested columns: no texts
        return 0
    if column not in table.schema_arrow.names:
        return 0
    number = table.schema_arrow.names.index(column)
    return max((group.column(number).total_uncompressed_size for group in groups), default=0)


def seekable(stream: io.BufferedReader) -> BinaryIO:
    """The stream itself where it can seek cheaply, else its content in a temporary file."""
    if isinstance(stream.raw, io.BufferedReader | io.BytesIO):
        return stream
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file
