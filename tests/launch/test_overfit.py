import subprocess
import sys

import pytest

from launch import overfit
from pretraining.overfit.first_batch import write_sample_shards


@pytest.fixture(scope="module")
def sample_shards(tmp_path_factory):
    return str(write_sample_shards(tmp_path_factory.mktemp("sample")))


def run(capsys, *arguments):
    status = overfit.main([*arguments, "--global_batch_rows", "8", "--max_seq_length", "32"])
    return status, capsys.readouterr()


def test_three_rates_three_verdicts_and_a_table(sample_shards, capsys):
    rates = ("--learning_rate", "3e-2", "1e-3", "1e-5")
    status, printed = run(capsys, "--shards", sample_shards, "--max_steps", "60", *rates)
    assert status == 0
    assert printed.out.count("Input Tokens:") >= 3
    assert printed.out.count("[CLS]|") == 3 * 3 * 2  # rates, lines, sequences
    table = printed.out.splitlines()[-3:]
    assert [line.split("  ")[0] for line in table] == ["0.03", "0.001", "1e-05"]
    assert [verdict in line for verdict, line in zip(("stuck", "solved", "too slow"), table, strict=True)] == [True] * 3


def test_no_rate_that_solves_it_is_status_1(sample_shards, capsys):
    status, printed = run(capsys, "--shards", sample_shards, "--max_steps", "2", "--learning_rate", "1e-6")
    assert status == 1
    assert "too slow" in printed.out


def test_without_shards_it_runs_on_the_embedded_world(capsys):
    status, printed = run(capsys, "--model", "modernbert-tiny", "--max_steps", "2", "--show_sequences", "1")
    assert status == 1
    assert "unigram entropy" in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shards", "no/such/place"), "no/such/place"),
        (("--model", "bert-tinny"), "'bert-tiny'"),
        (("--model", "modernbert-tiny", "--objective", "mlm+nsp"), "use a BERT model"),
    ],
)
def test_refusals_are_status_2(arguments, message, sample_shards, capsys):
    given = arguments if "--shards" in arguments else ("--shards", sample_shards, *arguments)
    status, printed = run(capsys, *given)
    assert status == 2
    assert message in printed.err


def test_under_a_launcher_one_rank_tries(sample_shards, capsys, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    status, printed = run(capsys, "--shards", sample_shards)
    assert (status, printed.out) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--learning_rate", "0"), ("--learning_rate", "1e-3", "inf"), ("--max_steps", "0")),
        *(("--learning_rat", "1"), ("--max_grad_norm", "-1"), ("--seed", "-1")),
    ],
)
def test_options_outside_their_range_are_refused(arguments):
    with pytest.raises(SystemExit) as ended:
        overfit.main(list(arguments))
    assert ended.value.code == 2


def test_it_starts_as_a_script_from_anywhere(project_root, tmp_path):
    script = str(project_root / "launch" / "overfit.py")
    ended = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--learning_rate" in ended.stdout
