"""Sentences with tags as a task of a study: read, clustered by document, scored by counts that are reweighed."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_examples import tiny_sentences, write_conllu, write_rows
from tiny_gap import tiny_jobs, write_series

from finetuning.recipes.tokens.rows import IGNORED
from finetuning.recipes.tokens.sentences import TaggedSentence
from gap.analysis.tables.task_table import tabulate
from gap.cells.estimate import work_of
from gap.cells.job_list import SCORES_NAME, write_jobs
from gap.cells.store import read_predictions, read_scores
from gap.cells.worker import work
from gap.intervals.bootstrap import Resampling
from gap.tasks.contamination import passages
from gap.tasks.kinds.task_data import ReadingOptions
from gap.tasks.specification import parse_tasks, read_task


def sentences(number, prefix, **more):
    return tiny_sentences(number, prefix=prefix, seed=len(prefix), long=False, **more)


@pytest.fixture
def pos(tmp_path):
    """A folder with files for training and scoring; the spec uses 12 of the training sentences."""
    write_conllu(tmp_path / "train.conllu", sentences(20, "t"))
    write_conllu(tmp_path / "test.conllu", sentences(15, "vv"))
    return parse_tasks(f"pos=tokens:{tmp_path}@12")[0]


def test_a_folder_is_read_and_documents_are_clusters(pos, tmp_path):
    data = read_task(pos)
    assert (data.metric, len(data.train), len(data.scored)) == ("accuracy", 12, 15)
    assert len(set(data.scored_clusters.values())) == 3
    assert data.scored_clusters["vv0"] == data.scored_clusters["vv4"] != data.scored_clusters["vv5"]
    assert set(data.labels) == {"FILLER", "COLOUR", "THING"}
    assert passages(data)["vv0"] == data.scored["vv0"].text
    both = read_task(parse_tasks(f"tokens:{tmp_path / 'train.conllu'}+{tmp_path / 'test.conllu'}")[0])
    assert len(both.train) == 20
    single = read_task(parse_tasks(f"tokens:{tmp_path / 'train.conllu'}")[0])
    assert not set(single.train_clusters.values()) & set(single.scored_clusters.values())
    assert len(single.scored) == 5  # a document of four


def test_shared_sentences_are_found_whatever_their_documents_are_called(tmp_path):
    trained = sentences(20, "t")
    copies = [replace(one, id=f"c{one.id}", document=f"other {one.document}") for one in trained[:3]]
    write_conllu(tmp_path / "train.conllu", trained)
    write_conllu(tmp_path / "test.conllu", [*sentences(15, "vv"), *copies])
    spec = parse_tasks(f"tokens:{tmp_path}")[0]
    with pytest.raises(ValueError, match="3 texts occur both in the training and in the scored examples"):
        read_task(spec)
    assert len(read_task(spec, ReadingOptions(on_overlap="drop")).train) == 17
    same_names = [replace(one, document=trained[number].document) for number, one in enumerate(sentences(15, "vv"))]
    write_conllu(tmp_path / "test.conllu", same_names)
    assert len(read_task(spec).train) == 20


def test_a_file_of_a_single_document_is_divided_by_sentences(tmp_path):
    lines = [f"word{number} NN O B-x\n" for number in range(10)]
    (tmp_path / "all.conll").write_text("-DOCSTART- -X- O O\n\n" + "\n".join(lines) + "\nother NN O O\n")
    data = read_task(parse_tasks(f"ner=tokens:{tmp_path / 'all.conll'}")[0])
    assert (len(data.train), len(data.scored)) == (9, 2)


def test_sentences_without_documents_are_clusters_by_their_text(tmp_path):
    twin = TaggedSentence("a", ("red", "balan"), ("B-x", "O"))
    copies = [twin, TaggedSentence("b", twin.words, twin.tags), TaggedSentence("c", ("old",), ("B-y",))]
    write_rows(tmp_path / "train.jsonl", [TaggedSentence("t", ("blue", "old"), ("B-x", "O"))])
    write_rows(tmp_path / "test.jsonl", copies)
    data = read_task(parse_tasks(f"tokens:{tmp_path}")[0])
    assert data.metric == "f1"
    clusters = data.scored_clusters
    assert clusters["a"] == clusters["b"] != clusters["c"]
    write_rows(tmp_path / "train.jsonl", [*copies[2:], twin])
    with pytest.raises(ValueError, match="2 texts occur both in the training and in the scored examples"):
        read_task(parse_tasks(f"tokens:{tmp_path}")[0])


@pytest.mark.parametrize("entities", [False, True])
def test_cells_keep_counts_whose_ratios_are_the_scores(tmp_path, entities):
    write_conllu(tmp_path / "train.conllu", sentences(20, "t", entities=entities))
    write_conllu(tmp_path / "test.conllu", sentences(15, "vv", entities=entities))
    spec = parse_tasks(f"words=tokens:{tmp_path}")[0]
    jobs = tiny_jobs(write_series(tmp_path / "run", (100,)), (spec,))
    assert work_of(read_task(spec), jobs.options).train_rows == 20.0
    write_jobs(tmp_path / "study", jobs)
    work(tmp_path / "study", say=lambda words: None)
    cells = read_scores(tmp_path / "study" / SCORES_NAME)
    assert len(cells) == len(jobs.plan.cells)
    counts = {"true_positives", "predicted_entities", "gold_entities"} if entities else set()
    for cell in cells:
        records = list(read_predictions(tmp_path / "study" / str(cell.predictions)).values())
        sure = {"rated_words", "gold_log_probability", "overconfidence", "squared_error"}
        assert {"id", "score", "cluster", "correct", "words"} | counts | sure == set(records[0])
        total = {name: sum(record[name] for record in records) for name in counts | sure | {"correct", "words"}}
        assert total["rated_words"] == total["words"]
        assert -total["gold_log_probability"] / total["rated_words"] == pytest.approx(cell.metrics["loss"], abs=1e-5)
        assert abs(total["overconfidence"]) < total["words"] > total["squared_error"] > 0
        assert cell.metrics["accuracy"] == pytest.approx(total["correct"] / total["words"])
        if entities:
            both = total["predicted_entities"] + total["gold_entities"]
            assert cell.score == cell.metrics["f1"] == pytest.approx(2 * total["true_positives"] / both)
        else:
            assert cell.score == cell.metrics["accuracy"]
    table = tabulate("words", cells, tmp_path / "study")
    assert table.examples.num_clusters == 3
    ones = np.ones((1, 3), dtype=np.float32)
    np.testing.assert_allclose(table.examples.evaluate(ones)[0], table.cell_scores, atol=1e-6)
    assert table.draws(Resampling(draws=100)).grids == table.grids


def test_shuffled_labels_are_those_of_other_words(pos):
    data = read_task(pos)
    rows = [
        {"labels": [IGNORED, 0, 1, IGNORED], "weight": 2},
        {"labels": [IGNORED, 2, IGNORED, 2, IGNORED], "weight": 2},
    ]
    found = data.shuffled(rows, np.random.default_rng(2))
    for row, other in zip(rows, found, strict=True):
        assert [label == IGNORED for label in row["labels"]] == [label == IGNORED for label in other["labels"]]
    before, after = (sorted(label for row in some for label in row["labels"]) for some in (rows, found))
    assert after == before
    assert found != rows
