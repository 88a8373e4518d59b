"""WET and WARC files, a wiki dump and a JSON array, built to shards by the command and decoded back."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from launch.build_shards import main
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.storage.check import check_shards
from shards.storage.manifest import read_manifest
from shards.storage.shard_file import read_block
from shards.tokenization.vocabulary import load_tokenizer, save_tokenizer, train_vocabulary

pytest.importorskip("mwparserfromhell")
pytest.importorskip("resiliparse")

RECORD = (
    "WARC/1.0\r\nWARC-Type: {}\r\nWARC-Target-URI: https://example.org/{}\r\n"
    "Content-Type: {}\r\nContent-Length: {}\r\n\r\n"
)
HTML = (
    "<html><head><title>T</title></head><body><nav><a href=/>menu</a></nav><article><p>{}</p></article></body></html>"
)
SMALL = [
    "--block_tokens",
    "256",
    "--blocks_per_shard",
    "2",
    "--validation_fraction",
    "0",
    "--near_duplicates",
    "ignore",
]


def sentences(seed: int, number: int) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(("ba", "ke", "li", "mo", "nu", "ra"), k=rng.randint(2, 4))) for _ in range(300)]
    return [" ".join(rng.choices(words, k=rng.randint(20, 60))) + "." for _ in range(number)]


def record(number: int, body: bytes, kind: str = "conversion", media_type: str = "text/plain") -> bytes:
    return gzip.compress(RECORD.format(kind, number, media_type, len(body)).encode() + body + b"\r\n\r\n", mtime=0)


def page(number: int, text: str) -> str:
    """An article; every third page is none: a redirect or a talk page."""
    redirect = '<redirect title="x" />' if number % 6 == 4 else ""
    text = f"{{{{Infobox|a={{{{b}}}}}}}}'''{text}'''<ref>note</ref>\n[[Category:All]]".replace("<", "&lt;")
    kind = 1 if number % 6 == 1 else 0
    return f"<page><title>Title</title><ns>{kind}</ns>{redirect}<revision><text>{text}</text></revision></page>\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of files, the texts in them in order, and a tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "in").mkdir()
    wet, pages, dump, array = (sentences(seed, 90) for seed in range(4))
    (folder / "in" / "a.warc.wet.gz").write_bytes(
        b"".join(record(number, text.encode()) for number, text in enumerate(wet))
    )
    sent = [f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{HTML.format(text)}".encode() for text in pages]
    (folder / "in" / "b.warc.gz").write_bytes(
        b"".join(record(number, body, "response", "application/http") for number, body in enumerate(sent))
        + record(99, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG", "response", "application/http")
    )
    xml = "".join(page(number, text) for number, text in enumerate(dump))
    (folder / "in" / "c-pages-articles.xml.bz2").write_bytes(bz2.compress(f"<mediawiki>{xml}</mediawiki>".encode()))
    (folder / "in" / "d.json").write_text(json.dumps([{"text": text} for text in array]))
    articles = [f"Title\n\n{text}" for number, text in enumerate(dump) if number % 6 not in (1, 4)]
    texts = wet + pages + articles + array
    save_tokenizer(train_vocabulary(texts, kind="wordpiece", vocab_size=300, lowercase=True), folder / "tokenizer")
    return folder, texts


def arguments(folder: Path, output: str, processes: int) -> list[str]:
    return [
        *("--input", str(folder / "in"), "--output_dir", str(folder / output), "--processes", str(processes)),
        *("--tokenizer", str(folder / "tokenizer"), *SMALL),
    ]


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def documents_of(directory: Path) -> list[list[int]]:
    """Token ids of the documents, put together again from the blocks."""
    tokens: list[int] = []
    starts: list[int] = []
    for shard in json.loads((directory / "manifest.json").read_text())["splits"]["train"]["shards"]:
        for block in shard["blocks"]:
            fields = read_block(directory / shard["name"], block["offset"], block["bytes"])
            starts.extend(len(tokens) + start for start in fields["documents"].tolist())
            tokens.extend(fields["tokens"].tolist())
    return [tokens[first:end] for first, end in pairwise([*starts, len(tokens)])]


def test_every_text_is_found_again_and_all_else_is_counted(corpus, capsys):
    folder, texts = corpus
    assert main(arguments(folder, "out", 1)) == 0
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    manifest = read_manifest(folder / "out")
    check_shards(folder / "out", manifest, "full")
    expected = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id] for text in texts]
    assert documents_of(folder / "out") == expected
    assert manifest.data["changed"] == {"archive_records_skipped": 1, "pages_of_other_namespaces": 15, "redirects": 15}
    assert manifest.data["dropped"] == {}
    assert [source["documents"] for source in manifest.data["sources"]] == [90, 90, 60, 90]
    assert manifest.data["text_bytes"] == sum(len(text.encode()) for text in texts)
    assert "pages_of_other_namespaces 15, redirects 15" in capsys.readouterr().out


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_processes(corpus):
    folder, _ = corpus
    for processes in (1, 3):
        assert main(arguments(folder, f"with-{processes}", processes)) == 0
    assert contents(folder / "with-1") == contents(folder / "with-3")


class Stopped(Exception):
    pass


SLOW = pytest.mark.slow


@pytest.mark.parametrize("share", [pytest.param(0.3, marks=SLOW), 0.55, pytest.param(0.8, marks=SLOW)])
def test_an_interrupted_build_continues_in_any_of_the_files_with_the_same_bytes(corpus, monkeypatch, share):
    monkeypatch.setattr("shards.building.chunks.CHUNK_CHARACTERS", 2_000)
    folder, _ = corpus

    def options(output: str) -> BuildOptions:
        return BuildOptions(
            input=[str(folder / "in")],
            output_dir=str(folder / output),
            tokenizer=str(folder / "tokenizer"),
            block_tokens=256,
            blocks_per_shard=2,
            processes=1,
        )

    def stop(progress: dict[str, int]) -> None:
        if progress["documents"] > share * 330:
            raise Stopped

    with pytest.raises(Stopped):
        build_shards(options(f"stopped-{share}"), stop)
    assert list((folder / f"stopped-{share}").glob("*.tar"))
    build_shards(options(f"stopped-{share}"))
    if not (folder / "whole").is_dir():
        build_shards(options("whole"))
    assert contents(folder / f"stopped-{share}") == contents(folder / "whole")
