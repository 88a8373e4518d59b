"""Wheel and sdist: every file that code reads is in them, no test is in the wheel, and it runs elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from pretraining.engines.deepspeed_config import PACKAGED, find_config, load_config

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch", "ds_configs")
# Examples to copy and change, which name the files of a checkout; no code reads them.
FOR_CLUSTERS = ("launch/slurm/", "launch/kubernetes/", "launch/hostfile.example")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SITE = next(path for path in sys.path if path.endswith("site-packages"))


def tracked(*folders: str) -> list[str]:
    """Files as git sees them: tracked, or new and not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return sorted(name for name in set(names) if name and (ROOT / name).is_file())


def test_every_command_is_a_script_and_listed_on_the_page():
    commands = {
        f"{path.parent.name}.{path.stem}:main"
        for folder in ("launch", "finetuning")
        for path in (ROOT / folder).glob("*.py")
        if path.name != "__init__.py"
    }
    scripts = PROJECT["scripts"]
    assert set(scripts.values()) == commands
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(gap-[\w-]+)` \| `((?:launch|finetuning)/\w+\.py)`", page, re.MULTILINE))
    listed = {name: place.removesuffix(".py").replace("/", ".") + ":main" for name, place in rows.items()}
    assert listed == scripts


def test_a_packaged_configuration_is_used_where_there_is_none_here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    find_config.cache_clear()
    for name in ("zero2.json", "ds_configs/zero2.json"):
        assert load_config(name)["zero_optimization"]["stage"] == 2
        assert (
            capsys.readouterr().out
            == f"--deepspeed {name}: there is no such file here, {PACKAGED}/zero2.json is used\n"
        )
    for name in ("mine/zero2.json", "zero7.json", "/ds_configs/zero2.json"):
        with pytest.raises(ValueError, match=f"--deepspeed {name} is not a file"):
            load_config(name)
    (tmp_path / "zero2.json").write_text('{"zero_optimization": {"stage": 1}}')
    find_config.cache_clear()
    assert load_config("zero2.json")["zero_optimization"]["stage"] == 1, "a file that is here comes first"


def test_the_citation_is_whole():
    """The keys that the Citation File Format 1.2.0 requires, an entity as the author, and this version and license."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert all(author.keys() <= {"name", "website", "alias"} and author["name"] for author in cited["authors"])
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_release_notes_begin_with_this_version():
    notes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", notes, re.MULTILINE)[0] == PROJECT["version"]


def test_the_image_copies_files_that_exist_and_calls_the_makefile():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copied = [source for verb, rest in steps if verb == "COPY" for source in rest.split()[:-1]]
    assert copied
    ignored = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.rstrip("/") not in ignored, source
    targets = re.findall(r"\bmake ([\w-]+)", " ".join(rest for verb, rest in steps if verb in ("RUN", "CMD")))
    assert "install" in targets
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    assert "latest" not in dict(steps)["FROM"], "an image is pinned"
    packages = {path.split("/")[0] for path in tracked(*PACKAGES)}
    assert packages <= {source.rstrip("/") for source in copied}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The distributions, built in a copy of the tree: the wheel from the sdist, as `make dist` does."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndist: ")[1].split("\n\n")[0]
    steps = [line.strip().replace("$(BIN)/python", sys.executable) for line in recipe.splitlines()[1:]]
    steps = [step for step in steps if not step.startswith("@#")]
    assert len(steps) == 3
    for step in [*steps, f"{sys.executable} -m pip wheel --no-deps --no-build-isolation --wheel-dir from-the-tree ."]:
        done = subprocess.run(["sh", "-c", step], capture_output=True, text=True, timeout=600, cwd=tree)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    shutil.copytree(tree / "dist", out / "dist")
    shutil.copytree(tree / "from-the-tree", out / "from-the-tree")
    return out


def wheel_content(folder: Path) -> dict[str, str]:
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return {name: hashlib.sha256(wheel.read(name)).hexdigest() for name in wheel.namelist()}


@pytest.mark.slow
def test_both_distributions_hold_every_file_that_code_needs_and_the_wheel_no_other(built):
    content = wheel_content(built / "dist")
    ours = {name for name in content if ".dist-info/" not in name}
    assert ours == {name for name in tracked(*PACKAGES) if not name.startswith(FOR_CLUSTERS)}
    without_records = {name: digest for name, digest in content.items() if not name.endswith("/RECORD")}
    other = wheel_content(built / "from-the-tree")
    assert without_records == {name: digest for name, digest in other.items() if not name.endswith("/RECORD")}
    with tarfile.open(next((built / "dist").glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    needed = {*ours, "pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "Makefile", "Dockerfile"}
    assert needed <= inside
    assert "constraints.txt" in inside


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """An environment with the wheel alone, which sees the packages of this one; without any file of the tree."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    inside = next((place / "lib").glob("python*/site-packages"))
    (inside / "the-others.pth").write_text(f"{SITE}\n")  # its own .pth files, an editable install, are not followed
    wheel = next((built / "dist").glob("*.whl"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(place / "bin" / "python"),
        "install",
        "--quiet",
        "--no-deps",
    ]
    subprocess.run([*command, "--no-index", "--ignore-installed", str(wheel)], check=True, timeout=300)
    return place


def called(installed: Path, folder: Path, *command: str) -> str:
    """Run an installed command in an empty folder; what it printed."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    path = f"{installed / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = {**kept, **offline, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env=variables,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.mark.slow
def test_what_is_imported_is_the_wheel(installed, tmp_path):
    program = (
        "import gap, ds_configs, launch.pretrain; print(gap.__file__, ds_configs.__file__, launch.pretrain.__file__)"
    )
    places = called(installed, tmp_path, "python", "-c", program).split()
    assert [Path(place).is_relative_to(installed) for place in places] == [True, True, True]
    for name in PROJECT["scripts"]:
        assert (installed / "bin" / name).is_file()


@pytest.mark.slow
def test_the_installed_commands_run_in_an_empty_folder(installed, tmp_path):
    small = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=48"
    said = called(installed, tmp_path, "gap-pretrain", "--dry_run", "true", "--deepspeed", "ds_configs/zero2.json")
    assert "there is no such file here" in said
    assert "zero2" in said
    pretraining = (
        f"--budget_tokens 30000 --series 0 --config_overrides {small} --validation_rows 8 --torch_compile false"
    )
    arguments = {
        "pretraining": pretraining, "finetuning_seeds": 1, "learning_rates": "1e-3", "num_train_epochs": 1,
        "grid_extensions": 0, "max_train_samples": 16, "max_eval_samples": 16, "draws": 200, "max_parallel": 1,
        "output_dir": "study",
    }  # fmt: skip
    said = called(
        installed,
        tmp_path,
        "gap-measure",
        *[part for name, value in arguments.items() for part in (f"--{name}", str(value))],
    )
    assert (tmp_path / "study" / "report.html").stat().st_size > 100_000
    scores = [json.loads(line) for line in (tmp_path / "study" / "scores.jsonl").read_text().splitlines()]
    assert {line["budget_tokens"] for line in scores} >= {0, 30000}
    assert called(installed, tmp_path, "gap-report", "study").strip()
