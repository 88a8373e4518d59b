"""The loss of word frequencies: against a count by hand, and as a warning on a real run."""

import math
from collections import Counter

import pytest
from pretraining_runs import in_process, series, write_shards

from pretraining.publishing.word_frequencies import NOTHING_LEARNT, plateau_warning, unigram_entropy
from shards.storage.manifest import read_manifest
from shards.storage.shard_file import read_block


def test_the_entropy_is_that_of_the_held_out_tokens(tmp_path):
    shards = write_shards(tmp_path)
    counts = Counter()
    for entry in read_manifest(shards).split("validation").shards:
        for offset, size in zip(entry.offsets, entry.sizes, strict=True):
            counts.update(read_block(shards / entry.name, int(offset), int(size))["tokens"].tolist())
    total = counts.total()
    plain = -sum(count / total * math.log(count / total) for count in counts.values())
    assert unigram_entropy(str(shards)) == pytest.approx(plain + (len(counts) - 1) / (2 * total), abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "is_said"), [(7.2, True), (7.0, True), (7.0 - 2 * NOTHING_LEARNT, False), (3.0, False)]
)
def test_a_loss_at_the_frequencies_is_said(loss, is_said):
    text = plateau_warning(loss, 7.0)
    assert (text is not None) == is_said
    if text:
        assert f"{loss:.2f}" in text
        assert "7.00" in text
        again = plateau_warning(loss, 7.0, said_before=True)
        assert again == "the context is not used yet (word frequencies alone give 7.00)"


def test_a_run_that_learns_nothing_says_so_and_keeps_the_figure(tmp_path, capsys):
    shards, output = write_shards(tmp_path), tmp_path / "run"
    in_process(shards, output, {"series": 1, "learning_rate": 1e-9, "disable_tqdm": "false"})
    expected = unigram_entropy(str(shards))
    assert {entry["validation_unigram_loss"] for entry in series(output)} == {expected}
    said = "".join(capsys.readouterr())
    assert said.count("so the context is not used yet. Small budgets") == 1, "what to do stands once"
    assert said.count("the context is not used yet") == len([entry for entry in series(output) if entry["tokens_seen"]])
