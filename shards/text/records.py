"""Rows of JSON lines, tables and parquet files: builds take one column of them, fine-tuning recipes all."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, BinaryIO, Literal

import pyarrow
import pyarrow.parquet

from runtime.files.foreign import reading_foreign
from runtime.files.schemas import listed
from runtime.files.unique_keys import DuplicateKey, without_duplicates
from runtime.plurals import counted
from shards.text.compression import Expansion
from shards.text.plain_text import UTF8_MARK, TextRules, whole_lines

PARQUET_ROWS = 256
SAMPLE_BYTES = 1 << 20  # of a TSV, to see whether it is quoted
# A field of a quoted TSV and what ends it; one that is still open at the end of the data; what must be in quotes.
FIELD = re.compile(rb'(?:(?P<quoted>"(?:[^"]++|"")*+")|[^"\t\r\n]*+)(?P<end>\t|\r\n|\n|\r|\Z)')
UNCLOSED = re.compile(rb'"(?:[^"]++|"")*+\Z')
NEEDS_QUOTES = re.compile(rb'[\t\r\n"]')

Line = tuple[int, int, bytes]  # its number (from 1), its offset and its bytes


def json_lines(stream: io.BufferedReader, name: str, rules: TextRules) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, as text, preceded by its place, for errors."""
    for number, offset, line in whole_lines(stream, name, rules):
        if line.strip():
            yield f"{name}: line {number}", rules.decode(line, name, offset)


def parse_line(text: str, place: str, remedy: str = "give one object per line") -> Any:
    """The JSON value of one line; ValueError with its `place` if it is torn, too deeply nested or has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except RecursionError as error:
        raise ValueError(f"{place} is too deeply nested: {remedy}, flat ones") from error
    except DuplicateKey as error:
        raise ValueError(f"{place}: {error}") from error
    except ValueError as error:
        if text.strip() in ("[", "{"):
            raise ValueError(
                f"{place} begins a JSON value of several lines: give one object per line, as jq -c '.[]' does "
                "of a list and jq -c '.data[]' of {\"data\": [...]}"
            ) from error
        raise ValueError(f"{place} is not JSON ({error}): {remedy}") from error


def require_different(names: Iterable[str], place: str) -> None:
    """ValueError where two columns have the same name, which is ambiguous; columns without a name are allowed."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1 and name.strip())
    if twice:
        raise ValueError(f"{place} names the column {', '.join(map(repr, twice[:5]))} twice: rename or remove one")


def table_rows(
    stream: io.BufferedReader, name: str, rules: TextRules, *, delimiter: Literal[",", "\t"]
) -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV (quoted) or TSV, header included, with the line that each ends in.

    TSV is quoted if `is_quoted` says so, from its first quotation mark on. Raises ValueError naming the line of a row
    that is too long (after a quote that is never closed, all the rest is one row), and of one in a quoted TSV that has
    quotation marks in the wrong place or another number of fields than the first row.
    """
    lines = whole_lines(stream, name, rules)
    if delimiter == ",":
        yield from parsed_rows(lines, name, rules, delimiter=",", quoting=csv.QUOTE_MINIMAL)
        return
    with_quote: list[Line] = []
    width = 0
    for line, row in parsed_rows(before_quotes(lines, with_quote), name, rules, delimiter="\t", quoting=csv.QUOTE_NONE):
        width = width or len(row)
        yield line, row
    if not with_quote:
        return
    before = with_quote[0][0] - 1
    sample, whole = sampled(with_quote, lines)
    quoted = is_quoted(b"".join(text for _, _, text in sample), width, whole=whole)
    rows = parsed_rows(
        chain(sample, lines),
        name,
        rules,
        delimiter="\t",
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        lines_before=before,
        strict=quoted,
    )
    for line, row in rows:
        width = width or len(row)
        if quoted and row and len(row) != width:
            raise ValueError(
                f"{name}: line {line} has {counted(len(row), 'field')}, but the first row {width}: the fields before "
                "have quotation marks around them and doubled ones inside; quote this row the same way"
            )
        yield line, row


def parsed_rows(
    numbered: Iterable[Line],
    name: str,
    rules: TextRules,
    *,
    delimiter: str,
    quoting: Literal[0, 3],
    lines_before: int = 0,
    strict: bool = False,
) -> Iterator[tuple[int, list[str]]]:
    """Rows that a parser makes of numbered lines, with the line that each ends in; errors as in `table_rows`."""
    csv.field_size_limit(rules.max_document_bytes)
    lines = RowLines(numbered, name, rules)
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=strict)
    try:
        for row in lines.counted(rows):
            yield lines_before + rows.line_num, row
    except csv.Error as error:
        raise ValueError(
            f"{name}: line {lines_before + rows.line_num}: {error}: is a quote left open, or a field too long?"
        ) from error


def before_quotes(lines: Iterator[Line], with_quote: list[Line]) -> Iterator[Line]:
    """Lines up to the first that has a quotation mark, which is put into the list."""
    for line in lines:
        if b'"' in line[2]:
            with_quote.append(line)
            return
        yield line


def sampled(first: list[Line], lines: Iterator[Line]) -> tuple[list[Line], bool]:
    """The first lines and those that follow, about 1 MiB together, and whether there are no others."""
    sample, size = first.copy(), sum(len(text) for _, _, text in first)
    while size < SAMPLE_BYTES:
        following = next(lines, None)
        if following is None:
            return sample, True
        sample.append(following)
        size += len(following[2])
    return sample, False


def is_quoted(data: bytes, width: int, *, whole: bool) -> bool:
    """Whether the rows of a TSV are quoted, as pandas and spreadsheets write them; GLUE's are not.

    They are if every field with a quotation mark begins and ends with one and doubles those inside, and either one of
    these fields needs it (it holds a quotation mark, a tab or a line end) or all fields of a column have them. All rows
    must have `width` fields (0: as many as the first). Unless `data` is `whole`, its last field may be cut.
    """
    needed, rows, row = False, list[list[bool]](), list[bool]()
    position = len(UTF8_MARK) if data.startswith(UTF8_MARK) else 0
    while position < len(data):
        match = FIELD.match(data, position)
        if match is None:
            if not whole and UNCLOSED.match(data, position):
                break
            return False
        field = match["quoted"]
        needed |= field is not None and NEEDS_QUOTES.search(field[1:-1]) is not None
        row.append(field is not None)
        position = match.end()
        if match["end"] != b"\t":
            if row != [False]:  # a blank line
                rows.append(row)
            row = []
    if not rows or any(len(row) != (width or len(rows[0])) for row in rows):
        return False
    return needed or (len(rows) > 1 and any(map(all, zip(*rows, strict=True))))


class RowLines:
    """The lines of a table as its parser takes them; a row may not be longer than a document."""

    def __init__(self, lines: Iterable[Line], name: str, rules: TextRules) -> None:
        self.lines, self.name, self.rules = lines, name, rules
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

    A column may be a field of a struct, as `a.b`: then of the struct no other field is read. `packed_bytes` gives the
    size of the file on disk. Raises ValueError for a damaged file, one without the column, and one that unpacks to more
    than any text does.
    """
    expansion, row = Expansion(name, packed_bytes), 1
    with seekable(stream) as file:
        with reading_parquet(name):
            table = pyarrow.parquet.ParquetFile(file)
            names = table.schema_arrow.names
        top = None if column is None else top_column(names, column, name)
        require_different([each for each in names if top in (None, each)], name)
        with reading_parquet(name):
            part = top if top is None or not leaf_numbers(table, str(column)) else column
            group_bytes = largest_group_bytes(table, part)
            batches = table.iter_batches(batch_size=PARQUET_ROWS, columns=None if part is None else [part])
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
    if is_binary(column.type):  # as systems write text that know no type for it (binaryAsString)
        rows = enumerate(column.to_pylist(), start=first_row)
        return [None if data is None else rules.characters(data, f"{name}: row {row}") for row, data in rows]
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
    parts = leaf_numbers(table, column)
    sizes = (sum(group.column(number).total_uncompressed_size for number in parts) for group in groups)
    return max(sizes, default=0)


def leaf_numbers(table: pyarrow.parquet.ParquetFile, column: str) -> list[int]:
    """The numbers of the columns, as parquet counts them, that are a column or fields of it."""
    paths = [table.schema.column(number).path for number in range(table.metadata.num_columns)]
    return [number for number, path in enumerate(paths) if path == column or path.startswith(f"{column}.")]


def top_column(names: Iterable[str], column: str, place: str) -> str:
    """The column itself, or for `a.b` the column `a` that has a field b; ValueError where there is neither."""
    known = list(names)
    parts = column.split(".")
    for end in range(len(parts), 0, -1):
        if (top := ".".join(parts[:end])) in known:
            return top
    raise ValueError(f"{place} has no column {column!r}: name one of {listed(known)} with --text_column")


def is_binary(kind: pyarrow.DataType) -> bool:
    """Whether an Arrow type holds bytes that are not marked as text, in a dictionary or not."""
    if pyarrow.types.is_dictionary(kind):
        return is_binary(kind.value_type)
    return any(
        test(kind)
        for test in (
            pyarrow.types.is_binary,
            pyarrow.types.is_large_binary,
            pyarrow.types.is_binary_view,
            pyarrow.types.is_fixed_size_binary,
        )
    )


def seekable(stream: io.BufferedReader) -> BinaryIO:
    """The stream itself where it can seek cheaply, else its content in a temporary file."""
    if isinstance(stream.raw, io.BufferedReader | io.BytesIO):
        return stream
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file
