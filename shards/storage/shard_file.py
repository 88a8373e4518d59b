"""The shard format: a plain USTAR tar of token blocks, written atomically and read block by block."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.tariterators import group_by_keys, tar_file_expander

from runtime.files.foreign import reason_of
from runtime.files.whole_files import whole_file

TAR_BLOCK_BYTES = 512
MAX_FIELD_BYTES = 1 << 28
MAX_JSON_BYTES = 1 << 20
MAX_NPY_HEADER_BYTES = 4096
ALLOWED_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int32", "int64", "float32")

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_MEMBER_NAME = re.compile(r"([A-Za-z0-9_-]{1,80})\.([a-z_]{1,16}\.(?:npy|json|txt))")
_TYPE_NAMES = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.DIRTYPE: "directory",
    tarfile.FIFOTYPE: "named pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file",
    tarfile.XHDTYPE: "extended header",
    tarfile.XGLTYPE: "global header",
}


def write_shard(path: Path, blocks: Iterable[tuple[str, dict[str, np.ndarray]]]) -> dict[str, Any]:
    """Write blocks as one shard and return its manifest entry.

    `blocks` yields (key, fields); fields holds 1-d arrays: `tokens` uint16 or uint32 [N], `documents` uint32 (document
    starts inside the block) and optionally `words` uint8 (`numpy.packbits` of one word-start flag per token). The entry
    is {"name", "bytes", "sha256", "blocks": [{"key", "offset", "bytes", "tokens", "documents"}]}, offsets and sizes in
    bytes. The same blocks give the same bytes. `path` appears only when the shard is complete and on disk.
    """
    digest = hashlib.sha256()
    entries = []
    offset = 0
    with whole_file(path) as stream:
        for key, fields in blocks:
            payload = b"".join(_member(key, name, array) for name, array in fields.items())
            stream.write(payload)
            digest.update(payload)
            tokens, documents = len(fields["tokens"]), len(fields["documents"])
            entries.append(
                {"key": key, "offset": offset, "bytes": len(payload), "tokens": tokens, "documents": documents}
            )
            offset += len(payload)
        end = bytes(2 * TAR_BLOCK_BYTES)
        stream.write(end)
        digest.update(end)
    return {"name": path.name, "bytes": offset + len(end), "sha256": digest.hexdigest(), "blocks": entries}


def read_block(path: Path, offset: int, num_bytes: int) -> dict[str, Any]:
    """Read the sample at `offset` of a shard, with one seek: {"__key__": key, "tokens": array, ...}.

    Raises ValueError, naming the shard, when the bytes are not exactly one sample of plain files of allowlisted types.
    """
    with open(path, "rb") as stream:
        stream.seek(offset)
        payload = stream.read(num_bytes)
    if len(payload) != num_bytes:
        raise ValueError(
            f"{path}: {len(payload)} bytes at offset {offset}, but the manifest says {num_bytes}: "
            "fetch or build it again"
        )
    return decode_sample(payload, str(path))


def decode_sample(payload: bytes, source: str) -> dict[str, Any]:
    """Turn the tar members of one sample into {"__key__": key, field: array}; `source` names them in errors."""
    check_members(payload, source)
    streams = [{"url": source, "stream": io.BytesIO(payload)}]
    samples = list(group_by_keys(tar_file_expander(iter(streams)))) if payload else []
    if len(samples) != 1:
        raise ValueError(
            f"{source}: {len(samples)} samples where one is expected: the manifest belongs to other shards"
        )
    sample = samples[0]
    encoded = {name: value for name, value in sample.items() if not name.startswith("__")}
    fields = {name.rsplit(".", 1)[0]: decode_field(name, value, source) for name, value in encoded.items()}
    return {"__key__": sample["__key__"], **fields}


def check_members(payload: bytes, source: str) -> None:
    """Refuse anything but complete, plain files with safe names of allowed types, by name, type and size.

    webdataset ends silently at a damaged header, follows `../` and expands sparse members: so headers are walked first.
    """
    position = 0
    while position < len(payload):
        header = payload[position : position + TAR_BLOCK_BYTES]
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{source}: byte {position} of a block is not a tar header ({error}): fetch it again"
            ) from error
        kind = _TYPE_NAMES.get(member.type, "plain file" if member.type == tarfile.REGTYPE else repr(member.type))
        described = f"{source}: member {member.name!r} ({kind}, {member.size} bytes)"
        if member.type != tarfile.REGTYPE:
            raise ValueError(f"{described} is refused: shards hold plain files only; build the shard again")
        if not _MEMBER_NAME.fullmatch(member.name):
            raise ValueError(f"{described} is refused: names are KEY.FIELD.npy, .json or .txt; build the shard again")
        start = position + TAR_BLOCK_BYTES
        position = start + -(-member.size // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
        if not 0 <= member.size <= MAX_FIELD_BYTES or position > len(payload):
            raise ValueError(f"{described} is refused: it reaches past its block of {len(payload)} bytes")


def decode_field(name: str, payload: bytes, source: str) -> Any:
    """Decode one field by its extension: npy (never pickled), json or txt; everything else is refused unread."""
    extension = name.rsplit(".", 1)[-1].lower()
    if extension == "npy":
        return _decode_npy(name, payload, source)
    if extension == "json" and len(payload) <= MAX_JSON_BYTES:
        try:
            return json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source}: field {name!r} is not usable JSON ({error}): build the shard again") from error
    if extension == "txt":
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}: field {name!r} is not UTF-8 ({error}): build the shard again") from error
    raise ValueError(
        f"{source}: field {name!r} ({len(payload)} bytes) is refused: only npy, json (up to {MAX_JSON_BYTES} bytes) "
        "and txt are read, because other types can run code; build the shard again"
    )


def _decode_npy(name: str, payload: bytes, source: str) -> np.ndarray:
    stream = io.BytesIO(payload)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"version {version}, not (1, 0)")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=MAX_NPY_HEADER_BYTES)
    except Exception as error:  # numpy parses the header as Python: SyntaxError, TokenError, MemoryError, ...
        raise ValueError(
            f"{source}: field {name!r} has no usable npy header ({reason_of(error)}): build the shard again"
        ) from error
    rest = len(payload) - stream.tell()
    if dtype.name not in ALLOWED_DTYPES or dtype.byteorder == ">" or len(shape) != 1 or fortran_order:
        raise ValueError(f"{source}: field {name!r} is {dtype} {shape}: a 1-d array of {ALLOWED_DTYPES} is needed")
    if shape[0] * dtype.itemsize != rest:
        raise ValueError(f"{source}: field {name!r} says {shape[0]} x {dtype} but holds {rest} bytes: build it again")
    return np.frombuffer(payload, dtype=dtype, offset=stream.tell())


def _member(key: str, name: str, array: np.ndarray) -> bytes:
    if not _KEY.fullmatch(key):
        raise ValueError(f"block key {key!r}: letters, digits, '_' and '-' only, at most 80")
    if array.ndim != 1 or array.dtype.name not in ALLOWED_DTYPES:
        raise ValueError(
            f"field {name!r} of {key}: {array.dtype} {array.shape}, a 1-d array of {ALLOWED_DTYPES} is needed"
        )
    stream = io.BytesIO()
    little_endian = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    np.lib.format.write_array(stream, little_endian, version=(1, 0), allow_pickle=False)
    payload = stream.getvalue()
    member = tarfile.TarInfo(f"{key}.{name}.npy")
    member.size = len(payload)
    member.mode = 0o644
    return member.tobuf(tarfile.USTAR_FORMAT) + payload + bytes(-len(payload) % TAR_BLOCK_BYTES)
