"""The digest of the sources that decide a cell's score: the code's part of a cell's identity.

The imports are followed from ROOTS on, inside the project and without the modules in FREE. What a module computes
counts. Its name, its place and the order of its imports do not, nor do docstrings, comments, annotations of arguments,
printed lines, help texts and the texts of errors. After moving or rewording a file, no finished cell is run again.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("runtime", "shards", "pretraining", "finetuning", "gap")
# What trains and scores a cell, and what chooses its learning rate and epochs.
ROOTS = ("gap.cells.running", "gap.cells.search.choice")
# What fits and scores a linear probe, on which no other cell depends; all else that these import is imported by ROOTS
# as well.
PROBE_MODULES = ("gap.probe.convex", "gap.probe.frozen", "gap.probe.probed_task")
# What the roots import but no score depends on. State the reason for every module added here.
FREE = frozenset(
    {
        # Journals, notes and stored lines: they record scores and compute none.
        *("finetuning.loop.run_log", "gap.cells.provenance", "gap.cells.store"),
        # Readers of records: what they refuse stops a cell, but changes no score.
        *("runtime.files.json_lines", "runtime.files.schemas"),
        # The list of jobs and the options: their values are in the fingerprint themselves.
        *("gap.cells.job_list", "runtime.options.declaration"),
        # The public names of the packages, which no module of the project goes by.
        "runtime.lazy_names",
        *("shards.building.options", "pretraining.plan.options"),
        # Checkpoints, signals and addresses: a cell starts afresh in one process and keeps only its score.
        *(
            "pretraining.checkpoints.checkpoint",
            "runtime.processes.fault_points",
            "pretraining.checkpoints.series",
        ),
        *("finetuning.loop.stopping", "runtime.hub", "runtime.processes.interruption", "runtime.processes.failures"),
        # A cell uses PyTorch's engine.
        *("pretraining.engines.deepspeed_config", "pretraining.engines.deepspeed_engine"),
        # Readers: a task's digest is that of the examples that they returned.
        *(
            "finetuning.recipes.texts.labelled_folders",
            "finetuning.recipes.tokens.tagged_files",
            "finetuning.examples.record_files",
            # Of shards: their digest is in the fingerprint of the floor that is counted in them.
            "shards.storage.location",
            "gap.tasks.kinds.dataset_tasks",
        ),
    }
)
PACKAGES = ("tokenizers", "torch", "transformers")  # their versions count as well
# Methods of a kind of task: what the corpus is searched for, and a cell's estimated cost, decide no score.
FREE_METHODS = ("passage", "row_texts")
PUBLIC_NAMES = ("__all__", "__getattr__", "__dir__", "TYPE_CHECKING")  # of a package
SPEAKING = ("print", "say")  # functions that only print
DECLARED = ("option", "option_as_in")  # a field with a default; its other arguments are help, groups and limits
# Fields of a syntax tree's nodes that differ between versions of Python, or only inform the reader.
UNREAD_FIELDS = frozenset({"ctx", "kind", "returns", "type_comment", "type_params"})


@dataclass(frozen=True)
class Module:
    """What a source computes, as text, and its imports (module, name, local name) from the project and from others."""

    text: str
    own: frozenset[tuple[str, str, str]]
    others: frozenset[tuple[str, str, str]]

    @property
    def digest(self) -> str:
        return _sha256(self.text)


@cache
def code_version() -> str:
    """`digest_of` the sources as they are at the first call: call it before a run's files can change."""
    return digest_of(ROOT)


@cache
def probe_version() -> str:
    """As `code_version`, of the sources that decide a linear probe's score beyond those of every cell."""
    return probe_digest(ROOT)


def probe_digest(root: Path) -> str:
    """sha256 over what the modules of the linear probe compute and import."""
    files = [root.joinpath(*name.split(".")).with_suffix(".py") for name in PROBE_MODULES]
    modules = [parse_module(file.read_text(encoding="utf-8"), root) for file in files]
    return _sha256(repr([(module.text, sorted(module.own), sorted(module.others)) for module in modules]))


def digest_of(root: Path, roots: Collection[str] = ROOTS, free: Collection[str] = FREE) -> str:
    """sha256 over what the deciding modules of a source tree compute, and the versions of the packages under them."""
    modules = deciding_modules(root, roots, free)
    lines = []
    for module in modules.values():
        # An imported name represents its module's content: imported from another module, it is another function.
        own = sorted((modules[target].digest, name, local) for target, name, local in module.own if target in modules)
        if module.text or own:  # an __init__.py that only describes its folder is not code
            lines.append(_sha256(repr((module.text, own, sorted(module.others)))))
    return _sha256("\n".join([*sorted(lines), *(f"{name}=={version(name)}" for name in PACKAGES)]))


def deciding_modules(root: Path, roots: Collection[str] = ROOTS, free: Collection[str] = FREE) -> dict[str, Module]:
    """The modules, by name, that `roots` import directly or indirectly, packages included, without those in `free`."""
    missing = sorted(name for name in {*roots, *free} if _file_of(root, name) is None)
    assert not missing, f"no such modules: {', '.join(missing)}: they moved; correct ROOTS and FREE"
    modules: dict[str, Module] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        file = _file_of(root, name)
        if file is None or name in modules or name in free:
            continue
        modules[name] = parse_module(file.read_text(encoding="utf-8"), root)
        waiting += [target for target, _, _ in modules[name].own]
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return modules


def parse_module(source: str, root: Path) -> Module:
    """What a source computes and imports; two sources that differ only in words or layout are equal."""
    text, imports = _read(source)
    own, others = set(), set()
    for module, name, local in imports:
        if module.split(".")[0] not in PROJECT:
            others.add((module, name, local))
        elif name and _file_of(root, f"{module}.{name}"):  # a module, not a name in one
            own.add((f"{module}.{name}", "", local))
        else:
            own.add((module, name, local))
    return Module(text, frozenset(own), frozenset(others))


@cache
def _read(source: str) -> tuple[str, frozenset[tuple[str, str, str]]]:
    """The text and the imports of a source; of all sources together about a megabyte."""
    tree = ast.parse(source)
    return _text(tree.body) if _counted(tree.body) else "", frozenset(_imports(tree))


def _imports(node: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(module, name or "", local name) of every import that is executed, wherever it is in the source."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, "", alias.asname or "") for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
        assert not node.level, "the project imports by full names"
        yield from ((str(node.module), alias.name, alias.asname or alias.name) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        if not _is_for_types(child):
            yield from _imports(child)


def _counted(body: Sequence[ast.AST]) -> list[ast.AST]:
    """The statements that compute something."""
    idle = (ast.Import, ast.ImportFrom, ast.Pass)
    return [
        statement
        for statement in body
        if not (isinstance(statement, idle) or _is_for_types(statement) or _says(statement) or _is_free(statement))
    ]


def _is_free(node: ast.AST) -> bool:
    """A method that decides no score, or the declaration of a package's public names."""
    if isinstance(node, ast.Assign):
        names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        return bool(names) and set(names) <= set(PUBLIC_NAMES)
    return isinstance(node, ast.FunctionDef) and node.name in FREE_METHODS


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _says(node: ast.AST) -> bool:
    """A docstring, or a call that prints."""
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and _name(value) in SPEAKING)


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _text(node: object) -> str:
    """A part of a syntax tree as text, the same under every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(_text(child) for child in _counted(node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields: Mapping[str, object] = {name: value for name, value in ast.iter_fields(node) if name not in UNREAD_FIELDS}
    if isinstance(node, ast.Raise):  # the type of the error, not its text
        fields = {"exc": node.exc.func if isinstance(node.exc, ast.Call) else node.exc}
    elif isinstance(node, ast.Call) and _name(node) in DECLARED:
        fields = {"args": node.args[:1]}
    elif isinstance(node, ast.arg):
        fields = {"arg": node.arg}
    texts = {name: _text(value) for name, value in fields.items() if value is not None}
    shown = ",".join(f"{name}={text}" for name, text in texts.items() if text != "[]")
    return f"{type(node).__name__}({shown})"


def _file_of(root: Path, module: str) -> Path | None:
    """The source file of a module or package of the project; None if there is no such module."""
    parts = module.split(".")
    if parts[0] not in PROJECT:
        return None
    place = root.joinpath(*parts)
    candidates = (place / "__init__.py", place.with_name(f"{parts[-1]}.py"))
    return next((file for file in candidates if file.is_file()), None)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
