"""Small files of options that would grow out of all bounds: refused in seconds, in little memory, by name."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from runtime.files.unique_keys import parse_yaml

# What a refusal may take, beside the imports of the program (measured in the same process).
MOST_SECONDS, MOST_MEGABYTES = 10.0, 200

PROBE = """
import json, sys, time
from finetuning.sweep.sweep import read_sweep
from gap.study.until_options import PretrainCommandOptions
from pretraining.engines.deepspeed_config import load_config, resolve_config
from pretraining.engines.updating.optimizers import OptimizerOptions
from runtime.options.command_line import parse_options

def resolve(path):
    settings = {"micro_batch_size": 1, "accumulation": 1, "world_size": 1, "clipping": 1.0, "bf16": None}
    resolve_config(load_config(path), **settings, optimizer=OptimizerOptions())

readers = {
    "options": lambda path: parse_options(PretrainCommandOptions, [path]), "sweep": read_sweep, "deepspeed": resolve
}
read = readers[sys.argv[1]]
if sys.argv[1] == "deepspeed":
    resolve("ds_configs/zero2.json")  # imports it
def most_kilobytes():  # since this program began: getrusage counts what was there before it as well
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

before = most_kilobytes()
for path in sys.argv[2:]:
    began, said = time.monotonic(), None
    try:
        read(path)
    except ValueError as error:
        said = str(error)
    except SystemExit:
        said = ""  # the parser has printed it
    megabytes = (most_kilobytes() - before) / 1024
    print(json.dumps([path, time.monotonic() - began, megabytes, said]), flush=True)
"""


def laughs(last="z: *k8"):
    """Nine anchors, each ten of the one before: 10^9 words in 300 bytes."""
    lines = ["k0: &k0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for number in range(1, 9):
        lines.append(f"k{number}: &k{number} [{', '.join([f'*k{number - 1}'] * 10)}]")
    return "\n".join([*lines, last])


def merged_laughs():
    lines = ["k0: &k0 {a: 1, b: 2}"]
    for number in range(1, 9):
        lines.append(f"k{number}: &k{number} {{<<: [{', '.join([f'*k{number - 1}'] * 10)}]}}")
    return "\n".join(lines)


def grid(options, values, extra=""):
    lines = [f"    option_{number}: {list(range(values))}" for number in range(options)]
    return "recipe: classification\n" + extra + "grid:\n" + "\n".join(lines)


CHAIN = "a0: &a0 [1]\n" + "\n".join(f"a{number}: &a{number} [*a{number - 1}]" for number in range(1, 5000))
YAML_BOMBS = {
    "laughs": laughs(),
    "laughs in a known option": laughs().replace("k8: &k8", "model: &k8"),
    "merges": merged_laughs(),
    "long text named often": f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 90_000)}]",
    "chain of aliases": CHAIN,
    "alias of itself": "a: &a [*a]",
    "mapping of itself": "a: &a {b: *a}",
    "key of itself": "&a {*a : 1}",
    "nested lists": "a: " + "[" * 100_000,
    "nested mappings": "a: " + "{b: " * 10_000,
    "nested blocks": "- " * 10_000 + "a",
    "many values": "[" + "a," * 400_000 + "a]",
    "number in base 60": "seed: 1" + ":1" * 400_000,
    "number in base 16": "seed: 0x" + "f" * 900_000,
    "long number": "seed: " + "7" * 900_000,
    "unknown keys": "\n".join(f"modle_{number}: 1" for number in range(40_000)),
}
JSON_BOMBS = {
    "nested lists": '{"seed": ' + "[" * 500_000,
    "flat lists": '{"seed": [' + "[]," * 300_000 + "[]]}",
    "nested but whole": '{"seed": ' + "[" * 400 + "]" * 400 + "}",
    "long number": '{"seed": ' + "7" * 900_000 + "}",
    "unknown keys": json.dumps({f"modle_{number}": 1 for number in range(50_000)}),
    "double keys": "{" + ", ".join(f'"seed_{number % 39_999}": 1' for number in range(40_000)) + "}",
}
SWEEP_BOMBS = {
    **YAML_BOMBS,
    "grid": grid(7, 40),
    "grid and seeds": grid(2, 90, f"seeds: {list(range(90))}\n"),
    "rows of long text": grid(2, 90, f"base: {{train_file: {'x' * 100_000}}}\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "suffix", "bombs"),
    [
        ("options", ".yaml", YAML_BOMBS),
        ("sweep", ".yaml", SWEEP_BOMBS),
        ("options", ".json", JSON_BOMBS),
        ("deepspeed", ".json", JSON_BOMBS),
    ],
)
def test_bombs_are_refused_at_once_and_in_little_memory(tmp_path, project_root, reader, suffix, bombs):
    paths = {str(tmp_path / f"{name.replace(' ', '-')}{suffix}"): text for name, text in bombs.items()}
    for path, text in paths.items():
        (tmp_path / path).write_text(text)
        assert len(text) <= 1 << 20  # larger files are refused by their size
    command = [sys.executable, "-c", PROBE, reader, *paths]
    ended = subprocess.run(
        command, cwd=project_root, capture_output=True, text=True, timeout=240, preexec_fn=_in_eight_gigabytes
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('["')]
    assert [path for path, *_ in found] == list(paths)
    printed = ended.stderr
    for path, seconds, megabytes, said in found:
        assert said is not None, f"{path} was not refused"
        assert reader == "deepspeed" or path in (said or printed)
        assert len(said) < 20_000
        assert seconds < MOST_SECONDS, path
        assert megabytes < MOST_MEGABYTES, path
    assert "Traceback" not in printed


def _in_eight_gigabytes():
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


@pytest.mark.parametrize("name", ["laughs", "merges", "chain of aliases", "alias of itself", "nested lists"])
def test_a_small_bomb_is_refused(name):
    with pytest.raises(ValueError, match=r"line \d+: .*(alias|nested)"):
        parse_yaml(YAML_BOMBS[name])


def test_aliases_and_merges_of_the_usual_size_are_read():
    text = "base: &base {seed: 1, tags: &tags [a, b]}\nother: {<<: *base, seed: 2}\nlist: [*tags, *tags, 0x1F, 1:30]"
    assert parse_yaml(text) == {
        "base": {"seed": 1, "tags": ["a", "b"]},
        "other": {"seed": 2, "tags": ["a", "b"]},
        "list": [["a", "b"], ["a", "b"], 31, 90],
    }
    rows = "\n".join(
        f"- {{learning_rate: 1.0e-{row % 9}, pooling: cls, max_seq_length: {row}}}" for row in range(10_000)
    )
    assert len(parse_yaml(rows)) == 10_000
