"""Addresses of object stores: which are accepted, and how a message may show them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

LIBRARIES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}  # scheme -> library, and the extra of pyproject.toml
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
PART = re.compile(r"[A-Za-z0-9_=+,@~-][A-Za-z0-9 ._=+,@~-]*")  # no hidden name, no "..", nothing that expands
LONGEST_KEY = 900  # of the 1,024 bytes that stores allow
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
USER_INFO = re.compile(r"//[^/\s@]*@")


@dataclass(frozen=True)
class StoreAddress:
    """`scheme://bucket/key`; the key names a folder, without slashes at its ends, or is empty."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    @property
    def path(self) -> str:
        """Bucket and key, as fsspec takes them."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket


def is_store_address(text: object) -> bool:
    """Whether the text begins with the scheme of a store that is accepted; it may still be refused."""
    return str(text).partition("://")[0] in LIBRARIES and "://" in str(text)


def parse_address(text: str) -> StoreAddress:
    """The address; ValueError for another scheme, for credentials, and for names that a library would expand."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in LIBRARIES:
        accepted = " or ".join(f"{name}://bucket/path" for name in LIBRARIES)
        raise ValueError(f"{without_secrets(text)!r} is no address of an object store: give {accepted}")
    bucket, _, key = rest.rstrip("/").partition("/")
    if "@" in bucket or ":" in bucket:
        raise ValueError(
            f"the {scheme}:// address holds credentials or a port, which end up in logs: give {scheme}://bucket/path; "
            "credentials come from the environment (docs/object-stores.md)"
        )
    parts = key.split("/") if key else []
    if not BUCKET.fullmatch(bucket) or not all(map(is_plain_part, parts)) or len(key) > LONGEST_KEY:
        raise ValueError(
            f"{without_secrets(text)!r}: give {scheme}://bucket/path of letters, digits and ._-=+,~ without empty or "
            "hidden parts"
        )
    return StoreAddress(scheme, bucket, key)


def is_plain_part(part: str) -> bool:
    """Whether one part of a name between slashes is safe as the name of a local file, too."""
    return PART.fullmatch(part) is not None and len(part) <= 200


def is_plain_name(name: str) -> bool:
    """Whether all parts of an object's name are safe as local names: none is hidden, empty or `..`."""
    return all(map(is_plain_part, name.split("/")))


def without_secrets(text: str) -> str:
    """A library's message without credentials: those in addresses, and the values of the usual variables."""
    for name in SECRET_VARIABLES:
        if value := os.environ.get(name):
            text = text.replace(value, f"[{name}]")
    return USER_INFO.sub("//[credentials]@", text)
