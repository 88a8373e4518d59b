"""The commands on the pages: each parses, and `make test-long` runs every page's, in order, on the small world."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import zstandard
from option_lists import commands, options_class
from page_commands import Block, blocks, calls, command_pages, inline_calls

from runtime.options.command_line import OPTION_FILES, parse_options, parse_with_names
from runtime.options.declaration import declarations

ROOT = Path(__file__).resolve().parents[2]
PAGES = command_pages(ROOT)
SECONDS_A_BLOCK = 1800
TINY_RUN = "--budget_tokens 2e4 --series 2"
ONE_TRY = "--learning_rates 1e-3 --num_train_epochs 1 --draws 500"
FEW = f"--max_train_samples 40 --max_eval_samples 20 {ONE_TRY}"
# What makes a command take longer than a test may, and what stands for it here; a later option overrides an earlier.
SHORTER = {
    r"--budget_tokens \S+": "--budget_tokens 2e4",
    r"--series \d+(?=\s|$)": "--series 2",
    r"annealed-\d+": "annealed-20000",
    r"\bCHECKPOINT\b": "runs/mine/series/annealed-20000",
    r"\bmodernbert-(base|small)\b|\bbert-mini\b": "modernbert-tiny",
    r"--vocab_size \d+": "--vocab_size 2048",
    r"--nproc_per_node \d+": "--nproc_per_node 2",
    r"launch/pretrain\.py(?! \S+\.yaml)": f"launch/pretrain.py {TINY_RUN}",
    r"(-m|--module) launch\.pretrain\b": rf"\1 launch.pretrain --model modernbert-tiny {TINY_RUN}",
    r"launch/gap\.py\s*$": f"launch/gap.py --pretraining '{TINY_RUN}' {FEW}",
    r"launch/gap\.py(?! --pretraining| \S+\.yaml)": f"launch/gap.py {ONE_TRY}",
    r"qa:runs/small_world/qa\b": "qa:runs/small_world/qa@40",
    r"(finetuning/\w+\.py)": r"\1 --max_steps 4",
    r"seeds: \[0, 1, 2\]": "seeds: [0, 1]",
}
# Of what the pages call by these names, the small world has the content.
WORLD = {
    "my_text/part-0.jsonl": "corpus.jsonl",
    "train.json": "qa/train.json",
    **{
        f"{mine}/{split}.json": f"{kind}/{split}.json"
        for mine, kind in {
            "squad": "qa",
            "choices": "multiple_choice",
            "my_task": "classification",
            "tags": "token_classification",
        }.items()
        for split in ("train", "validation", "test")
    },
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parser_of(command: str) -> tuple[type, bool]:
    return options_class(command)


def complaint(command: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What the command's own parser says to these arguments; a file of options is not read."""
    cls, takes_names = parser_of(command)
    if arguments and arguments[0].endswith(OPTION_FILES):
        arguments = arguments[1:]
    try:
        parse_with_names(cls, arguments) if takes_names else parse_options(cls, arguments)
    except SystemExit as ended:
        return None if ended.code == 0 else capsys.readouterr().err
    return None


def test_every_command_on_the_pages_parses(capsys):
    seen, faults = set(), []
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8")):
            if block.kind != "shell":
                continue
            for call in calls(block):
                seen.add(call.command)
                if call.command not in commands():
                    faults.append(f"{name_of(path)}:{call.line}: there is no {call.command}")
                elif text := complaint(call.command, call.arguments, capsys):
                    faults.append(f"{name_of(path)}:{call.line}: {text}")
    assert not faults, "\n".join(faults)
    assert set(commands()) - seen == set(), "no page shows these commands"


def test_options_named_in_running_text_exist():
    faults = []
    for path in PAGES:
        for command, names in inline_calls(path.read_text(encoding="utf-8")):
            known = {*declarations(parser_of(command)[0]), "help"}
            faults += [f"{name_of(path)}: {command} --{name}" for name in names if name not in known]
    assert not faults, faults


def test_python_on_the_pages_parses_and_imports_what_exists():
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8")):
            if block.kind == "python":
                ast.parse(block.text)


def test_blocks_that_are_not_run_say_why(record_property):
    marked = {}
    for path in PAGES:
        for block in blocks(path.read_text(encoding="utf-8")):
            if block.not_run:
                marked[f"{name_of(path)}:{block.line}"] = block.not_run
    record_property("not run", marked)
    assert all(len(reason.split()) >= 3 for reason in marked.values()), marked


def test_blocks_are_read_with_their_marks():
    page = (
        "# A\n\n    python launch/gap.py --full \\\n        --draws 5 | tail\n\ntext\n\n<!-- not run: needs a GPU -->\n"
        "```bash\ntorchrun x/launch/pretrain.py  # two\n```\n\n<!-- file: a.yaml -->\n```yaml\na: 1\n```\n\n"
        "- item\n\n    not code\n\nEnd\n\n    from a import b\n\ntext\n\n    import c\n\ntext\n\n"
        "    sbatch a.sh\n    deepspeed --module launch.gap --draws 7\n"
    )
    assert [(block.kind, block.not_run, block.file) for block in blocks(page)] == [
        ("shell", "", ""),
        ("shell", "needs a GPU", ""),
        ("file", "", "a.yaml"),
        ("python", "", ""),
        ("python", "", ""),
        ("shell", "needs a cluster with SLURM", ""),
    ]
    assert [block.text for block in joined(blocks(page))][1:] == ["from a import b\nimport c\n"]
    found = [call for block in blocks(page) if block.kind == "shell" for call in calls(block)]
    assert [(call.line, call.command, call.arguments) for call in found] == [
        (3, "launch/gap.py", ("--full", "--draws", "5")),
        (10, "launch/pretrain.py", ()),
        (33, "launch/gap.py", ("--draws", "7")),
    ]


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world's files under the names that the pages use, shards of it, and three pretraining runs."""
    from shards.small_world.world import WorldSizes, write_small_world

    world, folder = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("named")
    write_small_world(world, sizes=WorldSizes(documents=3000, names_per_class=40, train=60, validation=20, test=20))
    for name, source in WORLD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(world / source, folder / name)
    (folder / "corpus").mkdir()
    (folder / "corpus" / "part-0.jsonl.zst").write_bytes(zstandard.compress((world / "corpus.jsonl").read_bytes()))
    write_two_stages(folder)
    write_cola(folder)
    write_pairs(folder)
    for name in ("launch", "finetuning", "ds_configs", "docs"):
        (folder / name).symlink_to(ROOT / name)
    run_shell("python launch/build_shards.py --input my_text/ --vocab_size 2048 --output_dir shards/mine", folder)
    for seed in range(3):
        run = f"--shards shards/mine --model modernbert-tiny {TINY_RUN} --seed {seed} --output_dir runs/seed{seed}"
        run_shell(f"python launch/pretrain.py {run}", folder)
    shutil.copytree(folder / "runs/seed0", folder / "runs/mine")
    for recipe, data in {"qa": "squad", "classification": "my_task", "token_classification": "tags"}.items():
        sets = f"--train_file {data}/train.json --validation_file {data}/validation.json --max_steps 4"
        run_shell(f"python finetuning/{recipe}.py --model_name_or_path runs/mine/series/annealed-20000 {sets}", folder)
    return folder


def write_two_stages(folder: Path) -> None:
    """Questions whose paragraph is one of four, and the list of all paragraphs."""
    (folder / "two_stage").mkdir()
    contexts: list[str] = []
    sets = {}
    for split in ("train", "validation", "test"):
        data = json.loads((folder / "squad" / f"{split}.json").read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
        first = len(contexts)
        contexts += [paragraph["context"] for paragraph in paragraphs]
        sets[split] = [
            {
                "id": entry["id"],
                "question": entry["question"],
                "paragraphs": [first + (number + other) % len(paragraphs) for other in (3, 0, 5, 1)],
                "relevant": first + number,
                "answer": {"text": entry["answers"][0]["text"], "start": entry["answers"][0]["answer_start"]},
            }
            for number, paragraph in enumerate(paragraphs)
            for entry in paragraph["qas"]
        ]
    for name, content in {**sets, "contexts": contexts}.items():
        (folder / "two_stage" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def write_cola(folder: Path) -> None:
    """The acceptability set in the layout of GLUE's CoLA."""
    place = folder / "glue" / "CoLA"
    place.mkdir(parents=True)
    for split, name in {"train": "train", "validation": "dev", "test": "test"}.items():
        rows = json.loads((folder / "my_task" / f"{split}.json").read_text(encoding="utf-8"))
        lines = [f"{number}\t{row['text']}" for number, row in enumerate(rows)]
        if split != "test":
            labels = sorted({str(row["label"]) for row in rows})
            lines = [f"sw\t{labels.index(str(row['label']))}\t\t{row['text']}" for row in rows]
        text = "\n".join(["index\tsentence", *lines] if split == "test" else lines)
        (place / f"{name}.tsv").write_text(text + "\n", encoding="utf-8")


def write_pairs(folder: Path) -> None:
    """Minimal pairs: a sentence of the corpus, and its words in the other order."""
    place = folder / "blimp" / "data"
    place.mkdir(parents=True)
    lines = (folder / "my_text" / "part-0.jsonl").read_text(encoding="utf-8").splitlines()
    for paradigm in range(4):
        texts = [json.loads(line)["text"].split()[:8] for line in lines[10 * paradigm : 10 * paradigm + 10]]
        pairs = [{"sentence_good": " ".join(words), "sentence_bad": " ".join(words[::-1])} for words in texts]
        (place / f"order{paradigm}.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n", encoding="utf-8")


def shortened(text: str) -> str:
    text = text.replace("\\\n", " ")
    for long, short in SHORTER.items():
        text = re.sub(long, short, text, flags=re.MULTILINE)
    return text


def made_by(page: str) -> list[str]:
    """The folders that a page's commands and its Python name as their output."""
    return re.findall(r"(?:--output_dir |\boutput_dir=\")([^\s\"]+)", page)


def prepare(folder: Path, named: Path, page: str) -> None:
    """What the page's commands read and none of them makes: shards and runs only where it does not make its own."""
    made = made_by(page)
    for source in named.iterdir():
        if source.name in ("shards", "runs"):
            for part in source.iterdir():
                if f"{source.name}/{part.name}" not in made:
                    shutil.copytree(part, folder / source.name / part.name)
        elif source.is_symlink() or source.is_file():
            (folder / source.name).symlink_to(source.resolve())
        else:
            shutil.copytree(source, folder / source.name)


def run_shell(text: str, folder: Path, program: Sequence[str] = ("bash", "-euo", "pipefail", "-c")) -> None:
    """Run a block as a user would paste it; its output is shown when it fails."""
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*program, text],
        cwd=folder,
        env={**os.environ, **paths, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_A_BLOCK,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-6000:]}"


def run_block(block: Block, folder: Path, port: int) -> None:
    if block.kind == "python":
        run_shell(shortened(block.text), folder, (sys.executable, "-c"))
    else:
        launched = re.sub(r"^(torchrun|deepspeed) ", rf"\1 --master_port {port} ", shortened(block.text), flags=re.M)
        run_shell(launched, folder)


def joined(found: Iterable[Block]) -> list[Block]:
    """Python blocks without another command between them share their names, as in a reader's session."""
    made: list[Block] = []
    for block in found:
        if block.kind == "python" and not block.not_run and made and made[-1].kind == "python":
            made[-1] = replace(made[-1], text=made[-1].text + block.text)
        elif block.kind in ("shell", "python") and not block.not_run:
            made.append(block)
    return made


def runs_something(path: Path) -> bool:
    found = blocks(path.read_text(encoding="utf-8"))
    return any(block.kind in ("shell", "python") and not block.not_run for block in found)


@pytest.mark.long
@pytest.mark.timeout(3 * SECONDS_A_BLOCK)
@pytest.mark.parametrize("path", [path for path in PAGES if runs_something(path)], ids=name_of)
def test_the_commands_of_a_page_work_as_written(path, tmp_path, small_world, free_port):
    page = path.read_text(encoding="utf-8")
    prepare(tmp_path, small_world, page)
    for block in blocks(page):
        if block.kind == "file":
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(shortened(block.text), encoding="utf-8")
    for block in joined(blocks(page)):
        run_block(block, tmp_path, free_port)


def test_outputs_of_commands_and_of_python_are_known():
    page = (
        'python a.py --output_dir shards/mine --x 1\n\n    build(output_dir="runs/a", x=1)\n    f(no_output_dir="b")\n'
    )
    assert made_by(page) == ["shards/mine", "runs/a"]


def test_long_options_have_short_stand_ins():
    text = (
        "deepspeed launch/pretrain.py --shards a \\\n    --budget_tokens 1e10 --model modernbert-base --series 1e5,2e5"
    )
    assert shortened(text) == (
        f"deepspeed launch/pretrain.py {TINY_RUN} --shards a      --budget_tokens 2e4 --model modernbert-tiny "
        "--series 1e5,2e5"
    )
    assert shortened("python launch/gap.py\n").startswith(f"python launch/gap.py --pretraining '{TINY_RUN}' {FEW}")
    assert shortened("python launch/gap.py --series A") == f"python launch/gap.py {ONE_TRY} --series A"
