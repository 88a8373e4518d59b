"""Rows of a CSV, TSV, JSON or JSON-lines file, plain or gz, xz, bz2, read whole and within bounds."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

from shards.text.expansion import CountedStream, Expansion

Record = dict[str, Any]
OnBadText = Literal["stop", "replace"]

COMPRESSIONS = (".gz", ".xz", ".bz2")
FORMATS = (".csv", ".tsv", ".json", ".jsonl")
MAX_FILE_BYTES = 4 * 1024**3
MAX_FIELD_CHARACTERS = 16 * 1024**2
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
logger = logging.getLogger(__name__)


def bad_text(choice: str) -> OnBadText:
    """--on_bad_text as the readers know it."""
    if choice not in ("stop", "replace"):
        raise ValueError(f"--on_bad_text {choice}: use stop or replace")
    return "replace" if choice == "replace" else "stop"


def read_records(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    malformed: Literal["stop", "drop"] = "stop",
    on_bad_text: OnBadText = "stop",
) -> list[Record]:
    """Every row as a dict of column -> value; `columns` names them where the file has no header.

    TSV is read as GLUE writes it, without quoting; CSV with the usual quotes; JSON is a list of objects (or an object
    whose `data` is one), JSONL an object a line. Raises ValueError, naming file and line, for an empty or torn file, a
    row of the wrong width (unless `malformed` is "drop": then they are counted in a warning) and bytes that are not
    UTF-8 (unless `on_bad_text` is "replace").
    """
    where = Path(path)
    kind = file_format(where)
    if kind is None:
        raise ValueError(
            f"{where}: unknown format; name the file {', '.join(FORMATS)}, with .gz, .xz or .bz2 if packed"
        )
    text = decode_text(read_bytes(where), str(where), on_bad_text=on_bad_text)
    if not text.strip():
        raise ValueError(f"{where}: the file is empty or blank; give a file with at least one row")
    if kind in (".csv", ".tsv"):
        records = _delimited(text, where, tabs=kind == ".tsv", columns=columns, malformed=malformed)
    elif kind == ".jsonl":
        lines = enumerate(text.split("\n"), start=1)
        records = [
            _object(parse_json(line, str(where), line=number), f"{where}:{number}")
            for number, line in lines
            if line.strip()
        ]
    else:
        found = parse_json(text, str(where))
        rows = found.get("data") if isinstance(found, dict) else found
        if not isinstance(rows, list):
            raise ValueError(f"{where}: a list of objects, or an object with such a list as `data`, is needed")
        records = [_object(row, f"{where}, row {number}") for number, row in enumerate(rows)]
    if not records:
        raise ValueError(f"{where}: no row below the header; give a file with at least one row")
    return records


def file_format(path: str | Path) -> str | None:
    """The format a name promises (.csv, .tsv, .json, .jsonl), compression aside; None for any other name."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else None


def read_bytes(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The file's content, unpacked by its last suffix; ValueError when it is torn or too large."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
    opener = openers.get(path.suffix.lower(), open)
    try:
        with cast(IO[bytes], opener(path, "rb")) as stream:
            content = stream.read(max_bytes + 1) if opener is open else _unpacked(stream, path, max_bytes + 1)
    except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; bz2's and gzip's own have no number
            raise
        raise ValueError(f"{path}: cannot be unpacked ({error}); it is torn or misnamed, copy it again") from error
    if len(content) > max_bytes:
        raise ValueError(f"{path}: unpacks to more than {max_bytes} bytes; split the file")
    return content


def _unpacked(stream: IO[bytes], path: Path, most_bytes: int) -> bytes:
    """At most so many bytes of a packed file; ValueError when it unpacks to more than any text does."""
    size = path.stat().st_size
    counted, content = CountedStream(stream, Expansion(str(path), lambda: size)), io.BytesIO()
    while data := counted.read(min(1 << 20, most_bytes - content.tell())):
        content.write(data)
    return content.getvalue()


def decode_text(content: bytes, name: str, *, on_bad_text: OnBadText = "stop") -> str:
    """UTF-8 text without its byte-order mark; bad bytes stop the run, or are replaced and counted in a warning."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if on_bad_text == "stop":
            raise ValueError(
                f"{name}: byte {error.start} is not UTF-8 ({error.reason}); convert the file, or ask for "
                "--on_bad_text replace"
            ) from error
    text = content.decode("utf-8-sig", errors="replace")
    logger.warning("%s: %d characters were not UTF-8 and were replaced", name, text.count("\ufffd"))
    return text


def parse_json(text: str, name: str, *, line: int | None = None) -> Any:
    """JSON without surprises: nesting beyond Python's limit and broken text are ValueErrors that name the file.

    `line` is the place in the file of a text that is one of its lines.
    """
    place = 1 if line is None else line
    name = name if line is None else f"{name}:{line}"
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply to be data; a list of flat objects is needed") from error
    except json.JSONDecodeError as error:
        line = place + error.lineno - 1
        raise ValueError(f"{name}: not JSON ({error.msg}); check line {line}, column {error.colno}") from error
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{name}: {error}; mend the number") from error
    if SURROGATE.search(text):
        _refuse_lone_surrogates(content, name)
    return content


def whole_number(value: Any, field: str) -> int:
    """An integer from a number or its digits; ValueError naming the field for anything else, infinity included."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"'{field}' is {value!r}: a whole number is expected") from error
    if isinstance(value, float) and value != number:
        raise ValueError(f"'{field}' is {value!r}: a whole number is expected")
    return number


def _refuse_lone_surrogates(content: Any, name: str) -> None:
    """Half a character, as \\ud800 without its other half, is no text: no tokenizer and no file takes it."""
    waiting: list[tuple[Any, str]] = [(content, "")]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((one, f"{place}[{key!r}]") for key, one in value.items())
        elif isinstance(value, list):
            waiting.extend((one, f"{place}[{number}]") for number, one in enumerate(value))
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{name}: the text at {place} has half a character (a lone \\ud8xx or \\udcxx); mend it")


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: {type(value).__name__} instead of an object; each row is a {{column: value}} object"
        )
    return value


def _delimited(
    text: str, path: Path, *, tabs: bool, columns: Sequence[str] | None, malformed: Literal["stop", "drop"]
) -> list[Record]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    if tabs:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(io.StringIO(text, newline=""))
    records, dropped = [], 0
    names = list(columns) if columns is not None else None
    try:
        for row in reader:
            if not row:
                continue
            if names is None:
                names = [name.strip() for name in row]
            elif len(row) == len(names):
                records.append(dict(zip(names, row, strict=True)))
            elif malformed == "drop":
                dropped += 1
            else:
                raise ValueError(
                    f"{path}:{reader.line_num}: {len(row)} fields, but the columns are {len(names)} "
                    f"({', '.join(names)}); mend the row"
                )
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}; mend the row") from error
    if dropped:
        logger.warning("%s: %d rows of the wrong width were dropped", path, dropped)
    return records
