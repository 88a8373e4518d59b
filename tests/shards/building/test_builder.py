"""A build's bytes depend on text and options alone: not on processes, kills, and mostly not on order."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.building.builder import build_shards
from shards.building.chunks import read_chunks
from shards.building.options import BuildOptions
from shards.building.packing import SplitPacker
from shards.storage.check import check_shards
from shards.storage.manifest import read_manifest
from shards.storage.shard_file import read_block
from shards.text.sources import find_sources
from shards.tokenization.vocabulary import fingerprint, load_tokenizer, save_tokenizer, train_vocabulary

SMALL = {"block_tokens": 256, "blocks_per_shard": 4, "validation_fraction": 0.1, "processes": 1, "index_memory_mb": 1}
FAULTS = ["chunk:3", "shard:1", "shard:5", "commit:1", "commit:4", "finish:1", "before_manifest:1", "after_manifest:1"]


def sentences(seed: int, num_documents: int) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(("ba", "ke", "li", "mo", "nu", "ra"), k=rng.randint(2, 4))) for _ in range(300)]
    return [" ".join(rng.choices(words, k=rng.randint(20, 120))) + "." for _ in range(num_documents)]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    save_tokenizer(train_vocabulary(sentences(0, 100), kind="wordpiece", vocab_size=300, lowercase=True), directory)
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("corpus")
    texts = sentences(1, 400)
    texts[200:200] = [texts[3], "", " ", texts[7].replace(texts[7].split()[0], "other", 1)]
    return [write_lines(folder / "a.jsonl", texts[:150]), write_lines(folder / "b.jsonl", texts[150:])]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.building.chunks.CHUNK_CHARACTERS", 4_000)


def build(paths: list[Path], output: Path, tokenizer: Path, **changes: Any) -> dict[str, Any]:
    options = SMALL | {"tokenizer": str(tokenizer)} | changes
    build_shards(BuildOptions(input=[str(path) for path in paths], output_dir=str(output), **options))
    return manifest_of(output)


def manifest_of(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "manifest.json").read_text(encoding="utf-8")))


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def documents_of(directory: Path) -> dict[str, list[tuple[int, ...]]]:
    """Token ids of every document, by split, put together again from the blocks."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for split, part in manifest_of(directory)["splits"].items():
        tokens: list[int] = []
        starts: list[int] = []
        for shard in part["shards"]:
            for block in shard["blocks"]:
                fields = read_block(directory / shard["name"], block["offset"], block["bytes"])
                starts.extend(len(tokens) + start for start in fields["documents"].tolist())
                tokens.extend(fields["tokens"].tolist())
        found[split] = [tuple(tokens[a:b]) for a, b in pairwise([*starts, len(tokens)])]
    return found


def encoded(texts: list[str], tokenizer: Path) -> list[tuple[int, ...]]:
    loaded = load_tokenizer(str(tokenizer))
    return [(*loaded(text, add_special_tokens=False)["input_ids"], loaded.sep_token_id) for text in texts]


def test_every_document_is_found_again_whole_and_counted(corpus, tokenizer, tmp_path):
    manifest = build(corpus, tmp_path / "out", tokenizer)
    check_shards(tmp_path / "out", read_manifest(tmp_path / "out"), "full")
    found = documents_of(tmp_path / "out")
    texts = sentences(1, 400)
    assert sorted(found["train"] + found["validation"]) == sorted(encoded(texts, tokenizer))
    assert found["train"] == [tokens for tokens in encoded(texts, tokenizer) if tokens in set(found["train"])]
    assert manifest["dropped"] == {"duplicate": 1, "empty": 2, "near_duplicate": 1}
    assert [source["documents"] for source in manifest["sources"]] == [150, 254]
    assert [source["name"] for source in manifest["sources"]] == ["a.jsonl", "b.jsonl"]
    assert manifest["tokenizer"]["fingerprint"] == fingerprint(load_tokenizer(str(tmp_path / "out" / "tokenizer")))
    assert 10 < len(found["validation"]) < 80
    assert not (tmp_path / "out" / "building").exists()
    for split, documents in found.items():
        assert manifest["splits"][split]["documents"] == len(documents)
        assert manifest["splits"][split]["tokens"] == sum(map(len, documents))
        own = [text for text, tokens in zip(texts, encoded(texts, tokenizer), strict=True) if tokens in set(documents)]
        assert manifest["splits"][split]["text_bytes"] == sum(len(text.encode()) for text in own)
    blocks = [block for shard in manifest["splits"]["train"]["shards"] for block in shard["blocks"]]
    assert {block["tokens"] for block in blocks[:-1]} == {256}


def command(paths: list[Path], output: Path, tokenizer: Path, processes: int, **changes: Any) -> list[str]:
    code = (
        "import sys; import shards.building.chunks; shards.building.chunks.CHUNK_CHARACTERS = 4_000\n"
        "from shards.building.builder import build_shards; from shards.building.options import BuildOptions\n"
        f"build_shards(BuildOptions(input={[str(path) for path in paths]!r}, output_dir={str(output)!r}, "
        f"tokenizer={str(tokenizer)!r}, **{SMALL | changes | {'processes': processes}!r}))"
    )
    return [sys.executable, "-c", code]


def killed(arguments: list[str], fault: str, root: Path, mark: str = "") -> None:
    environment = os.environ | {"FAULT_POINT": f"build.{fault}:kill", "SHARDS_TEST_MARK": mark}
    result = subprocess.run(arguments, cwd=root, env=environment, stderr=subprocess.DEVNULL)
    assert result.returncode == -signal.SIGKILL


def check_whole(directory: Path) -> None:
    for path in directory.glob("*.tar"):
        data = path.read_bytes()
        assert len(data) % 512 == 0
        assert not any(data[-1024:])


def kill_and_continue(fault: str, corpus: list[Path], tokenizer: Path, folder: Path, root: Path) -> dict[str, str]:
    """Kill a build at a fault point in another process, continue it in this one; the files that result."""
    out = folder / fault.replace(":", "_")
    killed(command(corpus, out, tokenizer, 1), fault, root)
    check_whole(out)
    build(corpus, out, tokenizer)
    return contents(out)


@pytest.mark.parametrize("fault", ["shard:5", "commit:4"])
def test_a_killed_build_continues_to_the_same_bytes(fault, corpus, tokenizer, tmp_path, project_root):
    build(corpus, tmp_path / "whole", tokenizer)
    assert kill_and_continue(fault, corpus, tokenizer, tmp_path, project_root) == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_build_killed_anywhere_continues_to_the_same_bytes(fault, corpus, tokenizer, tmp_path, project_root):
    build(corpus, tmp_path / "whole", tokenizer)
    assert kill_and_continue(fault, corpus, tokenizer, tmp_path, project_root) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_killed_twice_give_the_bytes_of_one_that_was_not(corpus, tokenizer, tmp_path, project_root):
    build(corpus, tmp_path / "whole", tokenizer)
    out = tmp_path / "out"
    killed(command(corpus, out, tokenizer, 2), "shard:2", project_root, mark=str(out))
    killed(command(corpus, out, tokenizer, 1), "commit:3", project_root)
    subprocess.run(command(corpus, out, tokenizer, 2), cwd=project_root, check=True)
    assert contents(out) == contents(tmp_path / "whole")
    deadline = time.monotonic() + 30
    while (left := processes_marked(str(out))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, "workers live on after their parent was killed"


def processes_marked(mark: str) -> list[str]:
    """Processes that inherited the mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if f"SHARDS_TEST_MARK={mark}".encode() in environment.split(b"\0"):
            found.append(process.name)
    return found


def test_the_number_of_processes_does_not_change_the_bytes(corpus, tokenizer, tmp_path):
    build(corpus, tmp_path / "one", tokenizer, processes=1)
    build(corpus, tmp_path / "two", tokenizer, processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_split_is_stable_under_reordering_and_added_files(corpus, tokenizer, tmp_path):
    unique = write_lines(tmp_path / "unique.jsonl", sentences(1, 400))
    added = write_lines(tmp_path / "added.jsonl", sentences(2, 100))
    backwards = write_lines(tmp_path / "backwards.jsonl", sentences(1, 400)[::-1])
    build([unique], tmp_path / "first", tokenizer)
    build([added, backwards], tmp_path / "second", tokenizer)
    first, second = documents_of(tmp_path / "first"), documents_of(tmp_path / "second")
    for split in ("train", "validation"):
        assert set(first[split]) < set(second[split])


def test_of_duplicates_the_first_in_input_order_stays(tokenizer, tmp_path):
    texts = sentences(3, 40)
    near = [text.replace(text.split()[0], "other", 1) for text in texts if len(text.split()) > 80]
    first = write_lines(tmp_path / "first.jsonl", texts + near)
    build([first], tmp_path / "out", tokenizer)
    found = documents_of(tmp_path / "out")
    assert sorted(found["train"] + found["validation"]) == sorted(encoded(texts, tokenizer))
    build([first], tmp_path / "kept", tokenizer, near_duplicates="ignore")
    found = documents_of(tmp_path / "kept")
    assert sorted(found["train"] + found["validation"]) == sorted(encoded(texts + near, tokenizer))


def test_exact_copies_stay_where_only_near_ones_are_to_go(tokenizer, tmp_path):
    texts = sentences(3, 40)
    path = write_lines(tmp_path / "a.jsonl", texts * 2)
    assert build([path], tmp_path / "out", tokenizer, drop_duplicates=False)["dropped"] == {}
    found = documents_of(tmp_path / "out")
    assert sorted(found["train"] + found["validation"]) == sorted(encoded(texts * 2, tokenizer))


def test_documents_kept_beside_a_full_key_of_the_index_are_counted_across_restarts(tokenizer, tmp_path, project_root):
    template = sentences(6, 1)[0]
    texts = [" ".join([*text.split()[:3], template]) for text in sentences(7, 300)]
    path, exact = write_lines(tmp_path / "a.jsonl", texts), {"near_duplicate_threshold": 1.0}
    counted = build([path], tmp_path / "out", tokenizer, **exact)["duplicate_search"]
    assert 0 < counted["kept_with_full_key"] < 300 - 64
    killed(command([path], tmp_path / "again", tokenizer, 1, **exact), "shard:12", project_root)
    assert build([path], tmp_path / "again", tokenizer, **exact)["duplicate_search"] == counted


def test_near_duplicates_fall_on_one_side_of_the_held_out_split(tokenizer, tmp_path):
    originals = [text for text in sentences(4, 80) if len(text.split()) > 80]
    copies = [text.replace(text.split()[0], "other", 1) for text in originals]
    path = write_lines(tmp_path / "a.jsonl", originals + copies)
    manifest = build([path], tmp_path / "out", tokenizer, near_duplicates="separate", validation_fraction=0.5)
    found = documents_of(tmp_path / "out")
    pairs = list(zip(encoded(originals, tokenizer), encoded(copies, tokenizer), strict=True))
    train, validation = set(found["train"]), set(found["validation"])
    assert all(first in train | validation for first, _ in pairs)
    assert not any((a in train and b in validation) or (a in validation and b in train) for a, b in pairs)
    assert manifest["dropped"]["near_duplicate_across_split"] > 0
    assert any(second in train | validation for _, second in pairs)


def test_a_finished_build_is_kept_and_another_is_refused(corpus, tokenizer, tmp_path):
    out = tmp_path / "out"
    build(corpus, out, tokenizer)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    options = BuildOptions(input=[str(path) for path in corpus], output_dir=str(out), tokenizer=str(tokenizer), **SMALL)
    assert build_shards(options).already_built
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(ValueError, match=r"other input or options \(min_characters: \d+ there, 9 here\)"):
        build(corpus, out, tokenizer, min_characters=9)
    with pytest.raises(ValueError, match=r"other input or options \(the input files differ in name or size\)"):
        build(corpus[:1], out, tokenizer)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds thesis\.txt"):
        build(corpus, tmp_path / "full", tokenizer)


def test_an_input_edited_to_the_same_size_is_noticed(corpus, tokenizer, tmp_path):
    path, other, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "out"
    path.write_bytes(corpus[0].read_bytes())
    other.write_bytes(corpus[1].read_bytes())
    build([path, other], out, tokenizer)
    before, status = path.read_bytes(), path.stat()
    options = BuildOptions(input=[str(path), str(other)], output_dir=str(out), tokenizer=str(tokenizer), **SMALL)
    path.write_bytes(before.swapcase())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    with pytest.raises(ValueError, match=r"an earlier version of \S*a\.jsonl \(edited since"):
        build_shards(options)
    path.write_bytes(before)  # written again, as it was
    assert build_shards(options).already_built
    path.write_bytes(before.swapcase())
    manifest = manifest_of(out)
    for source in manifest["sources"]:
        del source["sha256"]  # built before it was listed
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert build_shards(options).already_built


def test_an_unchanged_input_is_not_read_again(corpus, tokenizer, tmp_path, monkeypatch):
    build(corpus, tmp_path / "out", tokenizer)
    monkeypatch.setattr("shards.text.content.sha256_of", None)
    assert (
        build(corpus, tmp_path / "out", tokenizer)["sources"][0]["sha256"]
        == hashlib.sha256(corpus[0].read_bytes()).hexdigest()
    )


def test_an_input_that_changes_while_it_is_read_gives_no_shards(corpus, tokenizer, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(corpus[0].read_bytes())
    options = BuildOptions(input=[str(path)], output_dir=str(tmp_path / "out"), tokenizer=str(tokenizer), **SMALL)
    with pytest.raises(ValueError, match=r"a\.jsonl was changed while it was read"):
        build_shards(options, report=lambda _: path.write_bytes(corpus[0].read_bytes()))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_saved_dataset_edited_to_the_same_size_is_noticed(tokenizer, tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": sentences(1, 40)}).save_to_disk(tmp_path / "saved")
    build([tmp_path / "saved"], tmp_path / "out", tokenizer)
    build([tmp_path / "saved"], tmp_path / "out", tokenizer)
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes().replace(b"a", b"e"))
    with pytest.raises(ValueError, match=r"an earlier version of \S*saved"):
        build([tmp_path / "saved"], tmp_path / "out", tokenizer)


def test_an_unfinished_build_refuses_other_options_and_a_second_process(corpus, tokenizer, tmp_path, project_root):
    from shards.building.state import BuildState

    out = tmp_path / "out"
    killed(command(corpus, out, tokenizer, 1), "shard:2", project_root)
    with pytest.raises(ValueError, match="unfinished build"):
        build(corpus, out, tokenizer, min_characters=9)
    held = BuildState(out)
    with pytest.raises(ValueError, match=rf"being built \(pid {os.getpid()} on"):
        build(corpus, out, tokenizer)
    held.close()
    build(corpus, out, tokenizer)


@pytest.mark.parametrize("pattern", ["", "/*", "/**"])
def test_shards_may_lie_in_the_folder_of_the_text(pattern, corpus, tokenizer, tmp_path, project_root):
    folder, elsewhere = [tmp_path / "text", tmp_path / "text" / "out"], tmp_path / "elsewhere"
    folder[0].mkdir()
    for path in corpus:
        shutil.copy2(path, folder[0])
    texts = [Path(f"{folder[0]}{pattern}")]
    build(texts, elsewhere, tokenizer)
    killed(command(texts, folder[1], tokenizer, 1), "shard:2", project_root)
    for _ in range(2):  # what the killed build left is no text, nor is what the finished one left
        build(texts, folder[1], tokenizer)
        assert contents(folder[1]) == contents(elsewhere)


def test_a_mistake_in_the_first_attempt_can_be_corrected_in_place(corpus, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="--text_column"):
        build(corpus, tmp_path / "out", tokenizer, text_column="body")
    build(corpus, tmp_path / "out", tokenizer)
    build(corpus, tmp_path / "fresh", tokenizer)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_nothing_left_is_an_error_that_says_why(tokenizer, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ["", "x"])
    with pytest.raises(ValueError, match=r"no document is left of 2.*empty.*too_short"):
        build([path], tmp_path / "out", tokenizer, min_characters=5)


def test_a_long_document_runs_over_blocks_and_shards(tokenizer, tmp_path):
    (tmp_path / "book.txt").write_text("\n".join(sentences(5, 100)), encoding="utf-8")
    build([tmp_path / "book.txt"], tmp_path / "out", tokenizer, validation_fraction=0.0)
    found = documents_of(tmp_path / "out")
    assert found == {"train": encoded(["\n".join(sentences(5, 100))], tokenizer), "validation": []}
    shards = manifest_of(tmp_path / "out")["splits"]["train"]["shards"]
    assert len(shards) > 2
    assert [block["documents"] for shard in shards for block in shard["blocks"]][:3] == [1, 0, 0]


@pytest.mark.parametrize("stop", [0, 1, 17, 400])
def test_a_packer_continues_from_what_it_saved(stop, tmp_path):
    rng = np.random.default_rng(0)
    documents = [rng.integers(5, 900, rng.integers(1, 90)).astype(np.uint16) for _ in range(400)]
    words = [rng.integers(0, 2, len(tokens)).astype(bool) for tokens in documents]

    def packer(folder: str) -> SplitPacker:
        (tmp_path / folder).mkdir(exist_ok=True)
        shape = {"block_tokens": 64, "blocks_per_shard": 3}
        return SplitPacker("train", tmp_path / folder, token_dtype="uint16", words=True, **shape)

    whole, first, second = packer("whole"), packer("parts"), packer("parts")
    for tokens, starts in zip(documents, words, strict=True):
        whole.add(tokens, starts)
    for tokens, starts in zip(documents[:stop], words[:stop], strict=True):
        first.add(tokens, starts)
    entries = first.take_written()
    second.restore(*first.saved())
    for tokens, starts in zip(documents[stop:], words[stop:], strict=True):
        second.add(tokens, starts)
    assert second.finish() == whole.finish()
    assert entries + second.take_written() == whole.take_written()
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_words_are_stored_bit_by_bit_beside_the_tokens(tmp_path):
    packer = SplitPacker("train", tmp_path, block_tokens=16, blocks_per_shard=9, token_dtype="uint16", words=True)
    starts = np.arange(20) % 3 == 0
    packer.add(np.arange(20, dtype=np.uint16), starts)
    packer.finish()
    (shard,) = packer.take_written()
    fields = [read_block(tmp_path / shard["name"], block["offset"], block["bytes"]) for block in shard["blocks"]]
    unpacked = [np.unpackbits(block["words"], count=len(block["tokens"])).astype(bool) for block in fields]
    np.testing.assert_array_equal(np.concatenate(unpacked), starts)


def test_reading_can_begin_after_any_document(corpus, tmp_path):
    (tmp_path / "blank.txt").write_text(" ")
    options = BuildOptions(input=[*map(str, corpus), str(tmp_path / "blank.txt")], output_dir=str(tmp_path), **SMALL)
    sources = find_sources(options.input)
    chunks = list(read_chunks(sources, options, 0, 0))
    assert len(chunks) > 10
    for number in (0, 5, len(chunks) - 2):
        rest = list(read_chunks(sources, options, chunks[number].source, chunks[number].documents_of_source))
        assert [chunk.texts for chunk in rest] == [chunk.texts for chunk in chunks[number + 1 :]]
        assert [chunk.changed for chunk in rest] == [chunk.changed for chunk in chunks[number + 1 :]]
    assert sum((chunk.changed for chunk in chunks[1:]), chunks[0].changed)["blank_sources"] == 1
    # The blank source after the last document is counted with the last chunk, and not again when nothing else is left.
    assert not list(read_chunks(sources, options, chunks[-1].source, chunks[-1].documents_of_source))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 500}, "give one of the two"),
        ({"validation_fraction": 0.9}, "--validation_fraction 0.9: use at least 0 and at most 0.5"),
        ({"processes": 0}, "--processes 0"),
        ({"input": []}, "--input and --output_dir are needed"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BuildOptions(**({"input": ["x"], "output_dir": "y", "tokenizer": "z"} | changes))
