"""Minimal pairs: reading of BLiMP's files, the pairs that are drawn, and the score of a pair."""

import gzip
import json
import math

import pytest
from file_mutations import few_and_many, refusals
from tiny_gap import write_pairs

from gap.tasks.kinds.pairs import MinimalPair, preference
from gap.tasks.kinds.task_data import ReadingOptions
from gap.tasks.specification import is_zero_shot, parse_tasks, read_task, spec_text

ROW = {"sentence_good": "a b", "sentence_bad": "b a", "UID": "order", "pairID": "7", "field": "syntax"}


def read(text, **options):
    return read_task(parse_tasks(text)[0], ReadingOptions(**options))


def test_a_folder_has_a_file_for_each_paradigm(tmp_path):
    folder = write_pairs(tmp_path / "pairs", 3, 5)
    with gzip.open(folder / "more.jsonl.gz", "wt") as file:
        file.write("\n" + json.dumps(ROW) + "\n")
    (folder / "README.md").write_text("no pairs")
    data = read(f"blimp=pairs:{folder}")
    assert (len(data.train), len(data.scored)) == (0, 16)
    assert data.scored["order-7"] == MinimalPair("order-7", "a b", "b a", "order", "syntax")
    assert set(data.scored_clusters.values()) == {"rule_0", "rule_1", "rule_2", "order"}
    assert (data.grouping, data.metric, data.zero_shot) == ("paradigm", "accuracy", True)
    assert data.passage(data.scored["order-7"]) == "a b"
    assert is_zero_shot(data.spec)


def test_one_file_is_one_paradigm_whose_pairs_are_resampled(tmp_path):
    path = write_pairs(tmp_path, 1, 5) / "rule_0.jsonl"
    data = read(f"pairs:{path}")
    assert data.spec.name == "rule_0"
    assert (len(set(data.scored_clusters.values())), data.grouping) == (5, "pair")
    bare = [{key: ROW[key] for key in ("sentence_good", "sentence_bad")}] * 2
    (tmp_path / "bare.jsonl").write_text("\n".join(map(json.dumps, bare)))
    assert set(read(f"pairs:{tmp_path / 'bare.jsonl'}").scored) == {"bare-0", "bare-1"}


def test_fewer_pairs_of_every_paradigm_are_among_more(tmp_path):
    folder = write_pairs(tmp_path / "pairs", 3, 9)
    sets = [set(read(f"pairs:{folder}@{most}").scored) for most in (2, 5, 100)]
    assert [len(kept) for kept in sets] == [6, 15, 27]
    assert sets[0] < sets[1] < sets[2]
    by_paradigm = read(f"pairs:{folder}@2").scored_clusters.values()
    assert sorted(by_paradigm) == sorted(["rule_0", "rule_1", "rule_2"] * 2)
    assert sets[1] != {f"rule_{paradigm}-{number}" for paradigm in range(3) for number in range(5)}  # the first
    limited = set(read(f"pairs:{folder}@5", max_eval_samples=4).scored)
    assert len(limited) == 4
    assert limited < sets[1]
    assert spec_text(parse_tasks(f"p=pairs:{folder}@5")[0]) == f"p=pairs:{folder}@5"
    with pytest.raises(ValueError, match="leave none"):
        read(f"pairs:{folder}@0")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"sentence_good": "a b"}', "sentence_bad is None"),
        ('{"sentence_good": "", "sentence_bad": "b"}', "sentence_good is ''"),
        ('{"sentence_good": ["a"], "sentence_bad": "b"}', "sentence_good is"),
        ('{"sentence_good": "a", "sentence_bad": "b", "UID": 1.5}', "UID is 1.5"),
        ('{"sentence_good": "a", "sentence_bad": "b", "pairID": true}', "pairID is True"),
        ('{"sentence_good": "a", "sentence_bad": "\\ud800"}', "half a character"),
        (json.dumps(ROW), "occurs twice"),
        ("[1, 2]", "list instead of an object"),
        ('{"sentence_good": "a', "not JSON"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, words):
    path = tmp_path / "wrong.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{line}\n")
    with pytest.raises(ValueError, match=r"wrong\.jsonl: line 3") as error:
        read(f"pairs:{tmp_path}")
    assert words in str(error.value)


def test_places_without_pairs_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    for place, words in (
        (tmp_path / "none", "does not exist"), (tmp_path / "empty.jsonl", "no row"), (tmp_path, "no row"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read(f"pairs:{place}")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="holds no file that ends with"):
        read(f"pairs:{tmp_path / 'other'}")


@few_and_many
def test_damaged_files_are_read_or_refused_by_name(tmp_path, rounds):
    path = write_pairs(tmp_path, 1, 6) / "rule_0.jsonl"
    refusals(path, lambda: read(f"pairs:{path}").digest, rounds)


def test_a_tie_is_half_a_point_and_what_is_not_finite_is_wrong(tmp_path):
    assert [preference(*pair) for pair in ((-1, -2), (-2, -1), (-1, -1), (math.nan, -1))] == [1, 0, 0.5, 0]
    data = read(f"pairs:{write_pairs(tmp_path, 2, 1)}")
    predictions = {
        "rule_0-0": {"good": -3.0, "bad": -3.0, "plain_good": -2.0, "plain_bad": -1.0},
        "rule_1-0": {"good": -3.0, "bad": -4.0, "plain_good": -1.0, "plain_bad": -2.0},
    }
    records = [{"id": name, **data.record(data.scored[name], predictions[name])} for name in data.scored]
    assert records[0] == {
        "id": "rule_0-0", "score": 0.5, "log_likelihood_good": -3.0, "log_likelihood_bad": -3.0, "plain_score": 0.0,
    }  # fmt: skip
    assert data.metrics({}, records) == {
        "accuracy": 0.75, "accuracy_pll_original": 0.5, "accuracy_syntax": 0.5, "accuracy_semantics": 1.0,
    }  # fmt: skip
