"""Scored texts that occur in the pretraining corpus are found, also across the ends of blocks; others are not."""

import json
import random

import numpy as np
import pytest
from servers.tls_server import tls_server
from tiny_gap import write_questions, write_texts

from gap.study.experiment import shards_of
from gap.tasks import contamination
from gap.tasks.contamination import (
    not_searched,
    passages,
    read_contaminated,
    search_corpus,
    texts_too_short,
    write_contaminated,
    write_not_searched,
)
from gap.tasks.corpus_search import RUN_TOKENS, corpus_hits, run_hashes
from gap.tasks.kinds.task_data import TaskSpec
from gap.tasks.specification import read_task
from shards.building.builder import build_shards
from shards.building.options import BuildOptions
from shards.storage.location import open_location
from shards.storage.reader import ShardReader

LETTERS = "abcdefghij"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    generator = random.Random(0)
    documents = [" ".join(generator.choices(LETTERS, k=60)) for _ in range(300)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    build_shards(
        BuildOptions(
            input=[str(folder / "corpus.jsonl")],
            output_dir=str(folder / "shards"),
            vocab_size=64,
            block_tokens=1024,
            blocks_per_shard=3,
            near_duplicates="ignore",
            processes=1,
            validation_fraction=0.01,
        )
    )
    return folder / "shards", documents


def test_hashes_tell_runs_apart_and_do_not_depend_on_where_they_stand():
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 5, 5000)
    found = run_hashes(tokens)
    assert len(found) == 5000 - RUN_TOKENS + 1
    assert (run_hashes(tokens[100:200]) == found[100 : 200 - RUN_TOKENS + 1]).all()
    runs = {tuple(tokens[i : i + RUN_TOKENS]) for i in range(len(found))}
    assert len(set(found.tolist())) == len(runs)
    assert len(run_hashes(tokens[:5])) == 0


def test_copies_are_found_and_new_texts_are_not(corpus):
    shards, documents = corpus
    generator = random.Random(1)
    texts = {f"copy{i}": text for i, text in enumerate(documents)}
    texts |= {f"new{i}": " ".join(generator.choices(LETTERS, k=60)) for i in range(50)}
    texts["half"] = documents[5][:40] + " " + " ".join(generator.choices(LETTERS, k=60))
    texts["short"] = documents[7][:9]
    searched = search_corpus({"task": texts}, shards)["task"]
    assert searched.too_short == 1
    found = set(searched.ids)
    assert not {name for name in found if not name.startswith("copy")}
    assert len(found) >= 0.95 * len(documents)  # the validation split is not trained on


def run_hash(run):
    """The hash of one run, token by token."""
    found = 0
    for token in run:
        found = (found * 0x9E3779B97F4A7C15 + int(token) + 1) % (1 << 64)
    return found ^ (found >> 29)


def test_a_hash_is_the_polynomial_of_its_run():
    tokens = np.random.default_rng(0).integers(0, 60_000, 40).astype(np.uint16)
    runs = [tokens[i : i + RUN_TOKENS] for i in range(len(tokens) - RUN_TOKENS + 1)]
    assert run_hashes(tokens).tolist() == [run_hash(run) for run in runs]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("wanted", [3, 1000, None])
def test_every_run_is_found_also_across_the_ends_of_blocks_and_shards(corpus, threads, wanted):
    location = open_location(corpus[0])
    blocks = location.manifest.split("train").blocks_per_shard()
    assert len(blocks) > 3
    assert blocks.max() > 1
    reader = ShardReader(location.directory, location.manifest, "train")
    there = run_hashes(np.concatenate([reader.block(number).tokens for number in range(blocks.sum())]))
    generator = np.random.default_rng(1)
    others = generator.integers(0, 1 << 64, 500, dtype=np.uint64)
    sought = np.unique(np.concatenate([others, generator.permutation(there)[:wanted]]))
    assert (corpus_hits(location, sought, threads) == np.isin(sought, there)).all()


def test_shards_shorter_than_a_run_are_joined(corpus, monkeypatch):
    """A corpus whose shards hold one token each: every run reaches over thirteen of them."""

    class OneToken:
        def __init__(self, *words, **more):
            pass

        def block(self, number):
            return type("Block", (), {"tokens": np.array([number % 7], dtype=np.uint16)})

    location = open_location(corpus[0])
    count = 40
    monkeypatch.setattr("gap.tasks.corpus_search.ShardReader", OneToken)
    monkeypatch.setattr(type(location.manifest.split("train")), "blocks_per_shard", lambda split: np.ones(count, int))
    there = run_hashes(np.arange(count) % 7)
    assert len(np.unique(there)) == 7
    assert corpus_hits(location, np.unique(there), 2).all()


def test_shards_at_an_address_are_searched_and_one_that_cannot_be_fetched_is_said(corpus, tmp_path, monkeypatch):
    shards, documents = corpus
    task = two_tasks(tmp_path, documents[0])[0]
    with tls_server(shards, tmp_path) as served:
        monkeypatch.setenv("SSL_CERT_FILE", str(served.certificate))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (tmp_path / "run.json").write_text(json.dumps({"shards": served.address}))
        address = shards_of(tmp_path / "series.json")
        assert address == served.address
        assert write_contaminated(tmp_path / "out", [task], address) == {"texts": 1}
        served.gone.add("manifest.json")
        with pytest.raises(ValueError, match=r"cannot be fetched .* --contamination false"):
            write_contaminated(tmp_path / "out", [task], address)


def two_tasks(folder, copied):
    found = []
    for name in ("texts", "more"):
        train = write_texts(folder / name / "train.json", 8, seed=1)
        test = write_texts(folder / name / "test.json", 4, seed=2)
        rows = json.loads(test.read_text())
        rows[2 if name == "texts" else 3]["text"] = copied
        test.write_text(json.dumps(rows))
        found.append(read_task(TaskSpec(name, "classification", f"{train}+{test}")))
    return found


def test_it_is_looked_up_once_a_task_and_corpus_and_once_for_all_tasks(corpus, tmp_path, monkeypatch):
    shards, documents = corpus
    tasks, out, passes = two_tasks(tmp_path, documents[0]), tmp_path / "out", []
    monkeypatch.setattr(contamination, "corpus_hits", lambda *words: passes.append(1) or corpus_hits(*words))
    assert write_contaminated(out, tasks, shards) == {"texts": 1, "more": 1}
    assert len(passes) == 1
    assert [read_contaminated(out, name) for name in ("texts", "more", "other")] == [{"t2-2"}, {"t2-3"}, set()]
    assert write_contaminated(out, tasks, shards) == {"texts": 1, "more": 1}
    assert len(passes) == 1


def test_why_nobody_looked_is_kept_until_somebody_does(corpus, tmp_path):
    shards, documents = corpus
    tasks, out = two_tasks(tmp_path, documents[0]), tmp_path / "out"
    assert not_searched(out, "texts") == "no search is on record"
    write_not_searched(out, tasks, "no shards")
    assert (not_searched(out, "texts"), read_contaminated(out, "texts")) == ("no shards", set())
    write_contaminated(out, tasks, shards)
    write_not_searched(out, tasks, "--contamination false")
    assert (not_searched(out, "texts"), read_contaminated(out, "texts")) == (None, {"t2-2"})


def test_texts_without_a_run_are_counted_and_a_search_for_none_is_not_called_one(corpus, tmp_path):
    shards, documents = corpus
    short = [" ".join(document.split()[:5]) for document in documents[:6]]
    places, out = {}, tmp_path / "out"
    for name, texts in (("all", short), ("some", [*short[:5], documents[9]])):
        rows = [{"sentence_good": text, "sentence_bad": "a b", "pairID": str(i)} for i, text in enumerate(texts)]
        places[name] = tmp_path / f"{name}.jsonl"
        places[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [read_task(TaskSpec(name, "pairs", str(place))) for name, place in places.items()]
    write_contaminated(out, tasks, shards)
    assert [texts_too_short(out, name) for name in ("all", "some", "other")] == [6, 5, None]
    assert not_searched(out, "all") == "all have fewer than 13 tokens"
    assert not_searched(out, "some") is None
    record = json.loads((out / "contamination" / "all.json").read_text())
    old = {name: value for name, value in record.items() if name not in ("texts", "too_short")}
    (out / "contamination" / "all.json").write_text(json.dumps(old))
    assert (texts_too_short(out, "all"), not_searched(out, "all")) == (None, None)


def test_the_passage_of_a_question_is_its_context(tmp_path):
    data = read_task(TaskSpec("one", "qa", str(write_questions(tmp_path / "one.json", 20))))
    assert passages(data) == {name: question.context for name, question in data.scored.items()}
