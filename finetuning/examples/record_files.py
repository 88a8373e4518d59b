"""Readers of whole example files: rows of CSV, TSV, JSON, JSON lines or parquet, with the readers of shard builds."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from runtime.files.foreign import refuse_pointer_head
from runtime.files.schemas import listed, shown
from runtime.files.unique_keys import DuplicateKey, without_duplicates
from runtime.files.whole_files import read_at_most
from runtime.plurals import counted
from shards.text.compression import unpacked
from shards.text.formats import COMPRESSION_SUFFIXES, HEAD_BYTES, detect_format, name_suffix
from shards.text.plain_text import TextRules, whole_lines
from shards.text.records import (
    column_values,
    is_binary,
    json_lines,
    parquet_batches,
    parse_line,
    require_different,
    table_rows,
)

Record = dict[str, Any]
OnBadText = Literal["stop", "replace"]
Example = TypeVar("Example")

LINE_FORMATS = (".jsonl", ".ndjson")
FORMATS = (".csv", ".tsv", ".json", *LINE_FORMATS, ".parquet")
PACKED_SUFFIXES = ("", *COMPRESSION_SUFFIXES)  # of a plain and of a compressed file
MAX_FILE_BYTES = 4 * 1024**3
LONGEST_PLACE = 200  # characters of a place in a JSON file that an error names
MAX_ROW_BYTES = 64 * 1024**2
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
logger = logging.getLogger(__name__)


def read_records(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    malformed: Literal["stop", "drop"] = "stop",
    on_bad_text: OnBadText = "stop",
    tabs: bool = False,
) -> list[Record]:
    """Every row as a dict of column -> value; `columns` names them where the file has no header.

    `tabs` reads TSV whatever the file is called.

    TSV is read as GLUE writes it, without quoting, unless it clearly is quoted (`is_quoted`), CSV with the usual
    quotes; JSON is a list of objects (or an object whose `data` is one), JSON lines one object per line. Raises
    ValueError, naming file and row, for an empty or torn file, two columns of one name, a row of the wrong width
    (unless `malformed` is "drop": then they are counted in a warning) and bytes that are not UTF-8 (unless
    `on_bad_text` is "replace").
    """
    where = Path(path)
    if file_format(where) is None and not tabs:
        raise ValueError(
            f"{where}: unknown format; name the file {', '.join(FORMATS)}, with .gz, .xz, .bz2 or .zst if packed"
        )
    content = read_content(where, columns=columns, malformed=malformed, on_bad_text=on_bad_text, tabs=tabs)
    rows = content.get("data", [content]) if isinstance(content, dict) else content  # one object: a single row
    if not isinstance(rows, list):
        raise ValueError(f"{where}: a list of objects, or an object with such a list as `data`, is needed")
    if not rows:
        missing = "no row below the header" if file_format(where) in (".csv", ".tsv") or tabs else "no row in it"
        raise ValueError(f"{where}: {missing}; give a file with at least one row")
    return [_object(row, f"{where}, row {number}") for number, row in enumerate(rows)]


def read_content(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    malformed: Literal["stop", "drop"] = "stop",
    on_bad_text: OnBadText = "stop",
    tabs: bool = False,
) -> Any:
    """The list of rows in a table, JSON lines or a parquet file; for any other file, the JSON value or lines in it.

    The file may be compressed. Arguments and errors are those of `read_records`.
    """
    where = Path(path)
    data, rules = read_bytes(where), _rules(on_bad_text)
    kind = "tsv" if tabs else detect_format(str(where), data[:HEAD_BYTES])
    if not data or data.isspace():
        raise ValueError(f"{where}: the file is empty or blank; give a file with at least one row")
    if kind in ("web_archive", "wiki_dump"):
        raise ValueError(
            f"{where} is a {kind.replace('_', ' ')}: only launch/build_shards.py reads it; give labelled rows"
        )
    stream: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, io.BytesIO(data)))
    if kind == "parquet":
        rows: Any = list(_parquet_records(stream, where, rules))
    elif kind in ("csv", "tsv"):
        rows = _table_records(stream, where, rules, tabs=kind == "tsv", columns=columns, malformed=malformed)
    elif name_suffix(where.name) in LINE_FORMATS:
        rows = list(_line_values(stream, where, rules))
    else:
        text = _text(data, str(where), rules)
        rows = list(_line_values(stream, where, rules)) if _is_lines(text) else parse_json(text, str(where))
    _note_replaced(rules, str(where))
    return rows


def placed_records(path: str | Path) -> Iterator[tuple[str, Record]]:
    """The objects of a JSON-lines file, plain or packed, each after its file and line, for errors.

    Raises ValueError, naming file and line, for what is not an object, and as `read_records` for a torn file.
    """
    where = Path(path)
    rules = _rules("stop")
    stream: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, io.BytesIO(read_bytes(where))))
    for place, text in json_lines(stream, str(where), rules):
        yield place, _object(_whole_characters(parse_line(text, place), text, place), place)


def file_format(path: str | Path) -> str | None:
    """The format that a name implies (.csv, .tsv, .json, .jsonl, ...), ignoring compression; None for other names."""
    suffix = name_suffix(Path(path).name)
    return suffix if suffix in FORMATS else None


def read_bytes(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The file's content, unpacked; ValueError when it is torn or too large."""
    if not path.is_file():
        if path.is_dir():
            raise ValueError(f"{path}: not a regular file but a folder; name a file in it")
        raise ValueError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}; check the path")
    with unpacked(path) as (_, stream):
        content = read_at_most(stream, max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path}: unpacks to more than {max_bytes} bytes; split the file")
    return content


def numbered_lines(path: str | Path, *, on_bad_text: OnBadText = "stop") -> Iterator[tuple[int, str]]:
    """The lines of a text file, plain or compressed, without their ends, and their numbers from 1.

    Raises ValueError, naming the file, as `read_bytes` and `decode_text` do, and where it is an archive or a table.
    """
    where = Path(path)
    data, rules = read_bytes(where), _rules(on_bad_text)
    kind = detect_format(str(where), data[:HEAD_BYTES])
    if kind in ("parquet", "zip", "tar", "web_archive", "wiki_dump"):
        raise ValueError(
            f"{where} is a {kind.replace('_', ' ')} file, whatever its name says: give it that suffix, or unpack it"
        )
    stream: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, io.BytesIO(data)))
    for number, offset, line in whole_lines(stream, str(where), rules):
        yield number, rules.decode(line, str(where), offset).removesuffix("\n").removesuffix("\r")
    _note_replaced(rules, str(where))


def decode_text(content: bytes, name: str, *, on_bad_text: OnBadText = "stop") -> str:
    """UTF-8 text without its byte-order mark; bad bytes stop the run, or are replaced and counted in a warning."""
    refuse_pointer_head(name, content)
    rules = _rules(on_bad_text)
    text = _text(content, name, rules)
    _note_replaced(rules, name)
    return text


def parse_json(text: str, name: str) -> Any:
    """Parse JSON; nesting beyond Python's limit and broken text are ValueErrors that name the file."""
    try:
        content = json.loads(text, object_pairs_hook=without_duplicates)
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply to be data; a list of flat objects is needed") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: not JSON ({error.msg}); check line {error.lineno}, column {error.colno}") from error
    except DuplicateKey as error:
        raise ValueError(f"{name}: {error}") from error
    except ValueError as error:  # a number with thousands of digits
        raise ValueError(f"{name}: {error}; correct the number") from error
    return _whole_characters(content, text, name)


class NotAnObject(TypeError):
    """An entry that is no JSON object where one is needed."""

    def __init__(self, item: Any) -> None:
        super().__init__(f"it is {type(item).__name__}, not an object")


def examples_of(
    rows: Iterable[Any], where: str, read: Callable[[Any, int], Iterable[Example]], layouts: str
) -> list[Example]:
    """The examples that `read` makes of each entry and its number; ValueError names `where` and an unreadable entry."""
    examples: list[Example] = []
    for number, item in enumerate(rows):
        try:
            examples.extend(read(item, number))
        except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
            if isinstance(error, KeyError):
                reason = f"it has no {error}"
            else:
                reason = str(error) if isinstance(error, NotAnObject) else "a field is of another type or length"
            raise ValueError(f"{where}: entry {number} is not a known layout ({reason}): {layouts}") from error
        except ValueError as error:
            raise ValueError(f"{where}: entry {number}: {error}") from error
    return examples


def whole_number(value: Any, field: str) -> int:
    """An integer from a number or its digits; ValueError naming the field for anything else, infinity included."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"'{field}' is {shown(value)}: a whole number is expected") from error
    if isinstance(value, float) and value != number:
        raise ValueError(f"'{field}' is {shown(value)}: a whole number is expected")
    return number


def _rules(on_bad_text: OnBadText) -> TextRules:
    return TextRules(
        max_document_bytes=MAX_ROW_BYTES,
        on_bad_text=on_bad_text,
        unix_line_ends=False,
        utf8_remedy="convert the file, or ask for --on_bad_text replace",
        size_remedy="split the row",
    )


def _text(content: bytes, name: str, rules: TextRules) -> str:
    return rules.characters(content, name).removeprefix("\ufeff")


def _note_replaced(rules: TextRules, name: str) -> None:
    if rules.replaced_characters:
        logger.warning("%s: %d characters were not UTF-8 and were replaced", name, rules.replaced_characters)


def _is_lines(text: str) -> bool:
    """Whether a JSON value ends with its line and more follows, as when JSON lines are named .json."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.msg == "Extra data" and text[: error.pos].rstrip(" \t\r").endswith("\n")
    except (ValueError, RecursionError):
        pass
    return False


def _line_values(stream: io.BufferedReader, path: Path, rules: TextRules) -> Iterator[Any]:
    for place, text in json_lines(stream, str(path), rules):
        yield _whole_characters(parse_line(text, place), text, place)


def _parquet_records(stream: io.BufferedReader, path: Path, rules: TextRules) -> Iterator[Record]:
    for row, batch in parquet_batches(stream, str(path), lambda: path.stat().st_size):
        names = batch.schema.names
        columns = [_parquet_values(column, str(path), row, rules) for column in batch.columns]
        yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _parquet_values(column: Any, name: str, row: int, rules: TextRules) -> list[Any]:
    """The values of a column; bytes that are not UTF-8, such as those of pictures, stay bytes."""
    if is_binary(column.type) and rules.on_bad_text == "stop":
        values = column.to_pylist()
        try:
            return [None if value is None else value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            return list(values)
    return column_values(column, name, row, rules)


def _table_records(
    stream: io.BufferedReader,
    path: Path,
    rules: TextRules,
    *,
    tabs: bool,
    columns: Sequence[str] | None,
    malformed: Literal["stop", "drop"],
) -> list[Record]:
    records, dropped, first = [], 0, 0
    names = list(columns) if columns is not None else None
    for line, row in table_rows(stream, str(path), rules, delimiter="\t" if tabs else ","):
        if not row:
            continue
        if names is None:
            names = [name.strip() for name in row]
            require_different(names, f"{path}: the header")
        elif len(row) == len(names):
            records.append(dict(zip(names, row, strict=True)))
        elif malformed == "drop":
            dropped, first = dropped + 1, first or line
        else:
            raise ValueError(
                f"{path}: line {line} has {counted(len(row), 'field')}, but the columns are {len(names)} "
                f"({listed(names)}); correct the row"
            )
    if dropped:
        logger.warning(
            "%s: %d lines without exactly %d fields were dropped, the first is line %d",
            path,
            dropped,
            len(names or ()),
            first,
        )
    return records


def _whole_characters(content: Any, text: str, name: str) -> Any:
    """The content of a JSON text; ValueError for half a character, such as \\ud800 without its other half."""
    waiting: list[tuple[Any, str]] = [(content, "")] if SURROGATE.search(text) else []
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((item, f"{place}[{key!r}]") for key, item in value.items())
        elif isinstance(value, list):
            waiting.extend((item, f"{place}[{number}]") for number, item in enumerate(value))
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(
                f"{name}: the text at {place[:LONGEST_PLACE]} has half a character (a lone \\ud8xx or "
                "\\udcxx); correct it"
            )
    return content


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: {type(value).__name__} instead of an object; each row is a {{column: value}} object"
        )
    return value
