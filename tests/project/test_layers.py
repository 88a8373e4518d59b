"""The house rules, read from the sources: layers, names, who may import what, launchables, and words for strangers."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch")
# Folders that stand on sys.path when a script or a test in them is started.
SCRIPT_FOLDERS = ("launch", "finetuning", "gap", "benchmarks", "tests")
ENGINES_ONLY = ("deepspeed", "torch.distributed.fsdp", "torch.distributed._composable")
LAUNCHER_VARIABLES = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
# Built of pieces, so that this file does not name them itself.
PRIVATE_WORDS = re.compile(
    "|".join((r"\.\./" + "shared", "/" + "work/", "/" + "root/", "/" + "home/", r"\bag" + r"ents?\.md\b")),
    re.IGNORECASE,
)
ACROSS_FOLDERS = {Path("faults"), Path("chaos"), Path("cluster")}  # of tests/
LARGEST_FILE_LINES = 450
SMALLEST_FILE_LINES = 25
MOST_ENTRIES = 12


def tracked(suffixes: tuple[str, ...]) -> list[Path]:
    """The files of the project as git sees them: tracked, or new and not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listing = [
            str(path.relative_to(ROOT)) for folder in (*LAYERS, "tests", "docs") for path in (ROOT / folder).rglob("*")
        ]
    return [ROOT / name for name in sorted(set(listing)) if name.endswith(suffixes) and (ROOT / name).is_file()]


def sources(*folders: str) -> list[Path]:
    return [path for path in tracked((".py",)) if path.relative_to(ROOT).parts[0] in (folders or LAYERS)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module an `import` anywhere in the source names, `from a import b` as "a.b" as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_faults(layer: str, source: str) -> list[str]:
    """Imports of ours to the right of `layer`, and of tests or benchmarks."""
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    tops = {module.split(".")[0] for module in imports(ast.parse(source))}
    return sorted(tops & {*LAYERS, "tests", "benchmarks"} - set(allowed))


def engine_faults(source: str) -> list[str]:
    return sorted(
        {
            module
            for module in imports(ast.parse(source))
            for name in ENGINES_ONLY
            if module == name or module.startswith(f"{name}.")
        }
    )


def launcher_faults(source: str) -> list[str]:
    """The launcher's variables named in a string of their own, which is how os.environ is asked for them."""
    return sorted(
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in LAUNCHER_VARIABLES
    )


def work_at_import(source: str) -> list[str]:
    """Statements of a module that do more than define: everything but imports, definitions, constants and the guard."""
    faults = []
    for node in ast.parse(source).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        defines = isinstance(
            node,
            ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.AugAssign,
        )
        guard = isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
        if not (docstring or defines or guard or is_path_guard(node)):
            faults.append(ast.unparse(node).splitlines()[0])
    return faults


def is_path_guard(node: ast.stmt) -> bool:
    """What a script launched as a file may do first: put the project's root in its own folder's place on sys.path."""
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "__package__ in (None, '')"
        and [ast.unparse(statement) for statement in node.body]
        == ["sys.path[0] = str(Path(__file__).resolve().parents[1])"]
        and not node.orelse
    )


def is_launchable(source: str) -> bool:
    return "__main__" in source


def launchables() -> list[Path]:
    return [
        path
        for path in sources("launch", "finetuning")
        if path.parent in (ROOT / "launch", ROOT / "finetuning")
        and path.name != "__init__.py"
        and (path.parent.name == "launch" or is_launchable(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folder_imports_itself_and_those_to_its_left(layer):
    faults = {name_of(path): layer_faults(layer, path.read_text(encoding="utf-8")) for path in sources(layer)}
    assert {name: fault for name, fault in faults.items() if fault} == {}


def test_the_layer_rule_sees_every_way_to_import():
    assert layer_faults("runtime", "import shards.text") == ["shards"]
    assert layer_faults("shards", "import pretraining.engines") == ["pretraining"]
    assert layer_faults("pretraining", "def f():\n    from gap.measures.curve import fit") == ["gap"]
    assert layer_faults("gap", "import shards, finetuning.qa\nimport numpy") == []


def part_of(module: str) -> str:
    """The sub-package of a module, or the module itself where it lies beside the sub-packages."""
    return ".".join(module.split(".")[:2])


def cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """Names that import each other in a circle, the first one repeated at the end; empty where there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_and_no_sub_packages_import_each_other_in_a_circle():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sources()
    }
    imported = {
        name: set(imports(ast.parse(path.read_text(encoding="utf-8")))) & modules.keys() - {name}
        for name, path in modules.items()
    }
    assert cycle(imported) == []
    parts: dict[str, set[str]] = {}
    for name, names in imported.items():
        parts.setdefault(part_of(name), set()).update({part_of(other) for other in names} - {part_of(name)})
    assert cycle(parts) == []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})[0] in "abc"


def test_only_the_engines_import_deepspeed_and_fsdp():
    faults = {
        name_of(path): engine_faults(path.read_text(encoding="utf-8"))
        for path in sources()
        if ROOT / "pretraining" / "engines" not in path.parents
    }
    assert {name: fault for name, fault in faults.items() if fault} == {}
    assert engine_faults("from torch.distributed import fsdp") == ["torch.distributed.fsdp"]
    assert engine_faults("import deepspeed.comm as dist") == ["deepspeed.comm"]


def test_shards_know_nothing_of_distributed_training():
    faults = {
        name_of(path): [
            module for module in imports(ast.parse(path.read_text(encoding="utf-8"))) if "torch.distributed" in module
        ]
        for path in sources("shards")
    }
    assert {name: fault for name, fault in faults.items() if fault} == {}


def test_only_one_module_reads_the_launcher_s_variables():
    faults = {
        name_of(path): launcher_faults(path.read_text(encoding="utf-8"))
        for path in sources()
        if path != ROOT / "runtime" / "processes" / "ranks.py"
    }
    assert {name: fault for name, fault in faults.items() if fault} == {}
    assert launcher_faults("import os\nrank = os.environ['RANK']") == ["RANK"]


def installed_top_level_names() -> set[str]:
    """Every importable top-level name of the standard library and of the installed packages, ours left out."""
    installed = {
        name
        for name, distributions in importlib.metadata.packages_distributions().items()
        if "pretraining-gap" not in distributions
    }
    return {name.lower() for name in {*sys.stdlib_module_names, *installed}}


def test_no_file_or_folder_is_named_like_an_installed_module():
    taken = installed_top_level_names()
    assert {"random", "tokenizers", "datasets", "deepspeed"} <= taken
    places = [path.relative_to(ROOT) for path in sources(*LAYERS, *SCRIPT_FOLDERS)]
    ours = {place.stem for place in places if place.stem != "__init__"}
    ours |= {folder for place in places for folder in place.parts[:-1]}
    shadows = {"conftest"} | {name for name in ours if name.startswith("test_")}
    assert sorted(ours & taken - shadows) == []


def test_no_file_is_called_by_a_vague_name():
    assert [name_of(path) for path in sources(*LAYERS, *SCRIPT_FOLDERS) if path.stem in VAGUE_NAMES] == []


def test_no_source_is_longer_than_the_house_allows():
    paths = sources(*LAYERS, "tests", "benchmarks")
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: length for name, length in lengths.items() if length > LARGEST_FILE_LINES} == {}


def class_places(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Class name -> the files that define it at their top level."""
    places: dict[str, list[str]] = {}
    for place, text in texts.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(place)
    return places


def test_every_class_has_a_name_of_its_own():
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in sources()}
    assert {name: places for name, places in class_places(texts).items() if len(places) > 1} == {}
    doubled = class_places({"a.py": "class Run: ...", "b.py": "class Run: ...\nclass _Run: ..."})
    assert doubled == {"Run": ["a.py", "b.py"], "_Run": ["b.py"]}


def is_record(source: str) -> bool:
    """Whether a module only declares data: imports, dataclasses and constants, no function outside a class."""
    return not any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.parse(source).body)


def test_no_source_is_so_short_that_it_belongs_to_its_neighbour():
    started = set(launchables())
    short = [
        name_of(path)
        for path in [*sources(), *(path for path in sources("tests") if path.name.startswith("test_"))]
        if path.name != "__init__.py" and path not in started
        for source in (path.read_text(encoding="utf-8"),)
        if len(source.splitlines()) < SMALLEST_FILE_LINES and not is_record(source)
    ]
    assert short == []


def crowded(places: list[Path]) -> dict[str, int]:
    """Folders with more entries than a reader takes in at once: files and folders beside `__init__.py`.

    `py.typed` is not read: it is empty, and tells type checkers that a package has types.
    """
    entries: dict[Path, set[str]] = {}
    for place in places:
        if place.name == "py.typed":
            continue
        for folder in place.parents:
            entries.setdefault(folder, set()).add(place.relative_to(folder).parts[0])
    del entries[Path(".")]
    for names in entries.values():
        names.discard("__init__.py")
    return {str(folder): len(names) for folder, names in entries.items() if len(names) > MOST_ENTRIES}


def test_no_folder_of_code_is_crowded():
    places = [path.relative_to(ROOT) for path in tracked(("",))]
    assert crowded([place for place in places if place.parts[0] in (*LAYERS, "tests")]) == {}
    assert crowded([Path(f"gap/cells/{number}.py") for number in range(13)]) == {"gap/cells": 13}


def test_tests_lie_where_what_they_test_lies():
    """`tests/` has the folders of the code, `support/` for helpers and no packages: pytest imports each by its path.

    `project/` reads the sources themselves. `faults/`, `chaos/` and `cluster/` cross the folders of the code: a command
    is killed, or runs on several hosts, and whatever it stands on must hold.
    """
    code = {path.relative_to(ROOT).parent for path in sources()}
    mirrored = {path.relative_to(ROOT / "tests").parent for path in sources("tests")} - {Path("."), Path("support")}
    mirrored -= {*ACROSS_FOLDERS, Path("project"), Path("support/servers")}
    assert sorted(map(str, mirrored - code)) == []
    assert [name_of(path) for path in sources("tests") if path.name == "__init__.py"] == []
    helpers = [path for path in sources("tests") if not path.name.startswith("test_") and path.name != "conftest.py"]
    places = {path.parent.relative_to(ROOT / "tests") for path in helpers}
    assert places == {Path("support"), Path("support/servers"), *ACROSS_FOLDERS}


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["tool"]["setuptools"]["packages"]["find"]
    assert wanted.pop("namespaces") is False
    installed = find_packages(str(ROOT), **wanted)
    on_disk = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in sources() if path.name == "__init__.py"}
    with_sources = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in sources()}
    assert sorted(on_disk) == sorted(with_sources)
    assert sorted(installed) == sorted([*on_disk, "ds_configs"])


def declared_distributions() -> set[str]:
    """Every distribution pyproject.toml asks for, extras included, with its name as the index writes it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in wanted}


def test_every_package_that_a_source_imports_is_declared():
    distributions = importlib.metadata.packages_distributions()
    declared = declared_distributions()
    undeclared = {}
    for path in sources(*LAYERS, "tests", "benchmarks"):
        for module in imports(ast.parse(path.read_text(encoding="utf-8"))):
            top = module.split(".")[0]
            homes = {home.lower().replace("_", "-") for home in distributions.get(top, [])}
            if homes and not homes & {*declared, "pretraining-gap"}:
                undeclared.setdefault(top, name_of(path))
    assert undeclared == {}


def test_every_declared_package_is_pinned():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    pinned = {line.split("==")[0] for line in pins.splitlines()}
    assert sorted(declared_distributions() - pinned) == []


def test_every_pinned_package_runs_on_the_oldest_python():
    """Also on its first release: Debian 12 has Python 3.11.2."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert oldest == ">=3.11"
    too_new = {
        distribution.name: distribution.metadata.get("Requires-Python")
        for distribution in importlib.metadata.distributions()
        if distribution.name.lower().replace("_", "-") in pinned
        and not SpecifierSet(distribution.metadata.get("Requires-Python") or "").contains("3.11.0")
    }
    assert too_new == {}


@pytest.mark.parametrize("path", launchables(), ids=name_of)
def test_a_launchable_has_a_main_that_takes_arguments(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    assert mains, f"{name_of(path)} has no main(argv)"
    arguments = mains[0].args
    assert [argument.arg for argument in arguments.args][:1] == ["argv"]
    assert len(arguments.defaults) == len(arguments.args), "every argument of main needs a default"


def logic(source: str) -> list[str]:
    """What a command defines besides `main` (parse) and `run` (call), and its loops and handlers of errors."""
    tree = ast.parse(source)
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.Try)]
    names = [node.name for node in defined if isinstance(node, ast.ClassDef) or node.name not in ("main", "run")]
    return names + [type(node).__name__ for node in loops]


@pytest.mark.parametrize("path", launchables(), ids=name_of)
def test_a_command_parses_and_calls_and_holds_no_logic(path):
    assert logic(path.read_text(encoding="utf-8")) == []


def test_logic_in_a_command_is_found():
    assert logic("class ReportOptions: ...\ndef main(argv=None):\n    for a in argv: ...") == ["ReportOptions", "For"]
    assert logic("def split(arguments): ...") == ["split"]


def test_nothing_happens_when_a_script_is_imported():
    faults = {
        name_of(path): work_at_import(path.read_text(encoding="utf-8")) for path in sources("launch", "finetuning")
    }
    assert {name: fault for name, fault in faults.items() if fault} == {}
    assert work_at_import("main()") == ["main()"]
    assert work_at_import("import sys\nfor x in y:\n    print(x)") == ["for x in y:"]


def test_no_page_or_source_names_a_private_place():
    files = tracked((".md", ".py", ".toml", ".yml", ".yaml", ".json", ".txt", ".html", "Makefile"))
    assert ROOT / "pyproject.toml" in files
    faults = [
        f"{name_of(path)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if PRIVATE_WORDS.search(line)
    ]
    assert faults == []
    assert PRIVATE_WORDS.search("see " + "../" + "shared/data")
