"""Facts about one option (choices, range, identity) are in its declaration and nowhere else."""

import ast
import importlib
import math
import re
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from finetuning.examples.recipe import FinetuningOptions
from finetuning.recipes.options.qa import QAOptions
from pretraining.plan.options import PretrainingOptions
from runtime.options.command_line import parse_options
from runtime.options.declaration import (
    DECLARED,
    Options,
    declarations,
    identity_values,
    names_marked,
    not_given,
    option,
    option_as_in,
)

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch")
NEEDED = {
    "PredictionOptions": {"model_name_or_path": "there", "test_file": "rows.json"},
    "BuildOptions": {"input": ["text"], "output_dir": "there"},
    "TaskBuildOptions": {"input": ["text"], "output_dir": "there"},
    "PushCommandOptions": {"hub_model_id": "lab/small"},
    "SweepOptions": {"sweep_file": "sweep.yaml", "output_dir": "there"},
}


def sources():
    """Every source of the packages as (its path from the root, its syntax tree)."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8"))


def classes():
    """Every command's options, whichever module they are in."""
    for path, tree in sources():
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.bases]
        if any(name.endswith("Options") for name in names):
            module = importlib.import_module(".".join(path.with_suffix("").parts))
            found = [getattr(module, name, None) for name in names]
            yield from (cls for cls in found if isinstance(cls, type) and issubclass(cls, Options))


CLASSES = sorted(set(classes()), key=lambda cls: (cls.__module__, cls.__name__))
NAMES = {name for cls in CLASSES for name in declarations(cls)}


@dataclass
class Small(Options):
    rate: float = option(0.1, "The rate.", group="training", above=0, below=math.inf, what="0.1 is usual")
    share: float | None = option(None, "A share.", group="training", at_least=0, at_most=1, by_data={"on shards": 0.5})
    kind: str = option("a", "The kind.", group="data", choices=("a", "b"), old_values={"c": "b"})
    kinds: str = option("a", "Several.", group="data", choices=("a", "b"), commas=True, marks=("listed",))
    seeds: list[int] = option([], "Seeds.", group="training", at_least=0, identity=False)
    bad_text: str = option("stop", "Text.", group="data", identity="invalid_text", formerly=("invalid_text",))

    def contradictions(self):
        return ["--rate and --share: give one"] if self.share and "rate" not in not_given(self) else []


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("rate", 0.0, "--rate 0.0: use a finite number, above 0, 0.1 is usual"),
        ("rate", math.inf, "--rate inf: use a finite number, above 0, 0.1 is usual"),
        ("rate", math.nan, "--rate nan is not a number: give one, or leave the option out"),
        ("share", 1.5, "--share 1.5: use at least 0 and at most 1"),
        ("kind", "d", "--kind d: use one of a, b"),
        ("kind", "", "--kind '': use one of a, b"),
        ("kind", "c", "--kind c: this value was renamed to b; use that"),
        ("kinds", "a, d", "--kinds d: use one of a, b"),
        ("seeds", [1, -1], "--seeds -1: use at least 0"),
    ],
)
def test_a_value_that_its_declaration_does_not_allow_is_refused(name, value, complaint, capsys):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared whole below
        Small(**{name: value})
    assert str(caught.value) == complaint
    words = value if isinstance(value, list) else [value]
    with pytest.raises(SystemExit) as ended:
        parse_options(Small, [f"--{name}", *map(str, words)])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"--rate and --share: give one; --share 2.0: .*; --kind d: "):
        Small(rate=0.2, share=2.0, kind="d")


def test_an_identity_has_what_decides_a_run_under_the_names_that_it_began_with():
    assert identity_values(Small(seeds=[1])) == {
        "rate": 0.1, "share": None, "kind": "a", "kinds": "a", "invalid_text": "stop",
    }  # fmt: skip
    assert names_marked(Small, "listed") == ("kinds",)
    assert not_given(replace(Small(), seeds=[3])) == set(declarations(Small)) - {"seeds"}


@pytest.mark.parametrize("written", [["--invalid_text", "x"], ["--invalid-text=x"]])
def test_an_old_name_is_answered_with_the_new_one(written, capsys, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("invalid_text: stop\n")
    for argv in (written, [str(file)]):
        with pytest.raises(SystemExit) as ended:
            parse_options(Small, argv)
        assert ended.value.code == 2
        assert "it was renamed to --bad_text; use that" in capsys.readouterr().err


def test_help_groups_the_options_and_shows_choices_and_defaults(capsys):
    with pytest.raises(SystemExit):
        parse_options(Small, ["--help"])
    shown = capsys.readouterr().out
    training, data = shown.index("\ntraining:\n"), shown.index("\ndata:\n")
    assert training < shown.index("--rate RATE") < shown.index("--seeds") < data < shown.index("--kind {a,b}")
    assert "The rate. (default: 0.1)" in shown
    assert "A share. (default: 0.5 on shards)" in shown


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_option_is_declared_under_a_heading_with_its_help(cls):
    for item in fields(cls):
        assert DECLARED in item.metadata, item.name
        assert item.metadata["help"].strip(), item.name
        assert item.metadata[DECLARED].group != "options", item.name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_command_shows_an_empty_or_a_wrong_default(cls, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        parse_options(cls, ["--help"])
    for line in re.sub(r"\n {10,}", "  ", capsys.readouterr().out).splitlines():
        assert "(default: )" not in line
        assert "MISSING" not in line
        if line.startswith("  --no_"):
            name = line.split(",")[0].removeprefix("  --no_")
            assert line.endswith(f"the same as --{name} false")
            assert "default" not in line


PROPER_NAMES = ("Jaccard",)


def breaks_the_style(text):
    """Help texts are phrases: no capital at the start, no full stop at the end, no default written by hand."""
    first = re.match(r"[^\s:;,]+", text).group()
    is_name = first in PROPER_NAMES or re.search("[A-Z0-9]", first[1:])
    ends = text.endswith(".") and not text.endswith("...")
    fragment = re.match("(of|on|in|from) ", text)
    return (text[0].isupper() and not is_name) or ends or fragment or "(default" in text or "the default)" in text


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_all_help_is_written_in_one_style(cls):
    assert [text for item in fields(cls) if breaks_the_style(text := item.metadata["help"])] == []


@pytest.mark.parametrize(
    "text", ["Peak rate", "peak rate.", "of classification", "A rate", "size (default 16384)", "upos (the default)"]
)
def test_another_style_is_seen(text):
    assert breaks_the_style(text)


WITHOUT_RANGE = {"null_score_diff_threshold"}  # a difference of two logits: any number means something


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_number_declares_its_range(cls):
    numeric = {name for name, hint in get_type_hints(cls).items() if {int, float} & {hint, *get_args(hint)}}
    without = {name for name, declared in declarations(cls).items() if name in numeric and not declared.range}
    assert without - WITHOUT_RANGE == set()


@pytest.mark.parametrize(
    ("cls", "given", "complaint"),
    [
        (QAOptions, {"seed": -1, "max_steps": -7}, "--max_steps -7: use at least -1.*--seed -1: use at least 0"),
        (QAOptions, {"seeds": [0, -2]}, "--seeds -2: use at least 0"),
        (PretrainingOptions, {"series_ratio": -3.0}, "--series_ratio -3.0: use a finite number, above 1"),
        (PretrainingOptions, {"series_ratio": 1.0}, "--series_ratio 1.0: use a finite number, above 1"),
    ],
)
def test_a_number_that_would_fail_later_is_refused_by_name(cls, given, complaint):
    with pytest.raises(ValueError, match=complaint):
        cls(**given)


def values_outside(declared):
    """Values that a declaration refuses."""
    if declared.choices:
        yield "none of them"
    if declared.at_least is not None:
        yield declared.at_least - 1
    if declared.above is not None:
        yield declared.above
    if declared.at_most is not None:
        yield declared.at_most + 1
    if declared.below is not None:
        yield declared.below


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_rule_of_every_command_is_enforced(cls):
    cls(**NEEDED.get(cls.__name__, {}))
    for name, declared in declarations(cls).items():
        for value in values_outside(declared):
            with pytest.raises(ValueError, match=f"--{name} "):
                cls(**{**NEEDED.get(cls.__name__, {}), name: [value] if name in ("seeds",) else value})


# The names that are not one option. All others are declared once, and elsewhere as in that record.
SEVERAL_MEANINGS = {
    "dropout": "pretraining: of the encoder, 0 from scratch; fine-tuning: of encoder and classifier, as configured",
    "max_steps": "fine-tuning: a limit, of which -1 is none; the overfit check: how long it tries",
    "num_train_epochs": "fine-tuning: a number; the study of a gap: a list of numbers to try",
    "seed": "of a run's weights and order; in a report of the bootstrap draws",
    "series": "pretraining: the budgets to leave checkpoints at; the study of a gap: the files of runs that have",
    "validation_fraction": "a build: of the documents, may be 0; classification: of the examples, which it needs",
}
# The options whose heading, range, choices or way of writing is not the same in all records, and why.
STUDY = "the study of a gap has headings of its own: what is fine-tuned, how, and which corpus is searched"
UNTIL = "pretraining lists it with --until"
DERIVED = "pretraining derives it where it is 0, fine-tuning where it is not given"
DIFFERENT = {
    **dict.fromkeys(("data_dir", "max_train_samples", "max_eval_samples", "shards"), STUDY),
    **dict.fromkeys(("doc_stride", "dropout", "max_answer_length", "pooling"), STUDY),
    **dict.fromkeys(("finetuning_seeds", "reference", "tasks"), UNTIL),
    **dict.fromkeys(("global_batch_rows", "gradient_accumulation_steps", "per_device_train_batch_size"), DERIVED),
    **dict.fromkeys(("on_bad_text", "text_column"), "a build lists it with the cleaning of text"),
    "learning_rate": "the overfit check takes several, and cannot learn at a rate of 0",
    "max_seq_length": "fine-tuning: also what stands around a text has to fit, and the model is the limit",
    "resume_from_checkpoint": "pretraining also resumes from a checkpoint that is named",
}


def declared_with(call, trees):
    """Option name -> the records with a field that is declared by this function."""
    records = defaultdict(list)
    for path, tree in trees:
        for record in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            for node in record.body:
                value = node.value if isinstance(node, ast.AnnAssign) else None
                if isinstance(value, ast.Call) and ast.unparse(value.func) == call:
                    records[node.target.id].append((f"{path}:{record.name}", value))
    return records


def facts(item):
    """What a command line may hold for an option, and where `--help` lists it."""
    declared = item.metadata[DECLARED]
    written = item.metadata.get("nargs"), item.metadata.get("const"), declared.commas, declared.formerly
    bounds = declared.at_least, declared.above, declared.at_most, declared.below
    return declared.group, declared.choices, bounds, written


def test_every_option_is_declared_once_or_has_several_meanings_that_are_listed():
    records = declared_with("option", sources())
    several = {name: [place for place, _ in places] for name, places in records.items() if len(places) > 1}
    assert {name: places for name, places in several.items() if name not in SEVERAL_MEANINGS} == {}
    assert sorted(SEVERAL_MEANINGS.keys() - several.keys()) == []
    twice = "class A:\n    rate: float = option(1, 'x')\nclass B:\n    rate: float = option(2, 'y')"
    assert len(declared_with("option", [("a.py", ast.parse(twice))])["rate"]) == 2


def test_an_option_as_in_another_record_bears_its_name():
    for name, places in declared_with("option_as_in", sources()).items():
        assert [place for place, call in places if ast.literal_eval(call.args[2]) != name] == []


def test_what_an_option_takes_is_the_same_in_all_commands_or_is_listed_with_the_reason():
    found = defaultdict(set)
    for cls in CLASSES:
        for item in fields(cls):
            found[item.name].add(facts(item))
    different = {name for name, several in found.items() if len(several) > 1}
    assert sorted(different - DIFFERENT.keys() - SEVERAL_MEANINGS.keys()) == []
    assert sorted(DIFFERENT.keys() - different) == []


def test_an_option_as_in_another_record_takes_over_all_but_what_is_changed():
    @dataclass
    class Other(Options):
        rate: float = option_as_in(0.2, Small, "rate", group="others")
        share: float | None = option_as_in(None, Small, "share", "Another share.", at_most=None, marks=("own",))

    before, after = declarations(Small), declarations(Other)
    assert after["rate"] == replace(before["rate"], group="others")
    assert after["share"] == replace(before["share"], at_most=None, by_data={}, marks=frozenset({"own"}))
    assert [item.metadata["help"] for item in fields(Other)] == ["The rate.", "Another share."]
    assert (Other().rate, Other(share=7.0).share) == (0.2, 7.0)
    with pytest.raises(ValueError, match=r"--rate 0\.0: use a finite number, above 0"):
        Other(rate=0.0)


def test_old_names_lead_to_one_option_each_and_are_no_options_any_more():
    old = defaultdict(set)
    for cls in CLASSES:
        for name, declared in declarations(cls).items():
            for former in declared.formerly:
                old[former].add(name)
    assert old
    assert not old.keys() & NAMES
    assert all(len(names) == 1 for names in old.values())


def test_what_is_part_of_a_run_in_pretraining_is_part_of_it_in_fine_tuning():
    first, second = declarations(PretrainingOptions), declarations(FinetuningOptions)
    shared = first.keys() & second.keys()
    assert {"bf16", "fsdp", "resume_from_checkpoint", "report_to", "seed"} <= shared
    assert [name for name in shared if first[name].identity != second[name].identity] == []


def test_every_command_parses_declared_options():
    parsed = {
        node.args[0].id
        for _, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "parse_options"
        if isinstance(node.args[0], ast.Name)
    }
    assert parsed - {"cls"} <= {cls.__name__ for cls in CLASSES} | {"PretrainCommandOptions"}
    assert len(parsed) >= 9


def strings(node):
    """The words of a collection: the keys of a dict, else its elements; empty where it holds anything else."""
    elements = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
    words = [one.value for one in elements if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return words if len(words) == len(elements) else []


def is_table(node):
    """Whether a collection names options and nothing else; a single word may be a word of something else."""
    words = strings(node)
    return len(words) > 1 and set(words) <= NAMES and any("_" in word for word in words)


def tables(tree):
    """Tables of options outside functions, and inside of them mappings of options to constants."""
    for statement in [*tree.body, *(one for node in tree.body if isinstance(node, ast.ClassDef) for one in node.body)]:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            yield from (node for node in ast.walk(statement.value) if is_table(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) and is_table(node) and all(map(is_constant, node.values)):
            yield node


def is_constant(node):
    """A literal, or several, or infinity."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return all(map(is_constant, node.elts))
    if isinstance(node, ast.UnaryOp):
        return is_constant(node.operand)
    return (isinstance(node, ast.Constant) and node.value is not None) or ast.unparse(node) == "math.inf"


def is_option(node, holders):
    return isinstance(node, ast.Attribute) and node.attr in NAMES and ast.unparse(node.value) in holders


def alternatives(test):
    """The conditions of which one is enough; what holds together with another one is about more than one option."""
    if isinstance(test, ast.UnaryOp):
        return alternatives(test.operand)
    return test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) else [test]


def refusals(tree):
    """Conditions that refuse one option for its value alone."""
    names = {cls.__name__ for cls in CLASSES}
    own = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in names]
    for place, holders in [(tree, {"options", "self.options", "plan.options"}), *((node, {"self"}) for node in own)]:
        for node in ast.walk(place):
            if not isinstance(node, ast.If) or not any(isinstance(one, ast.Raise) for one in node.body):
                continue
            for condition in alternatives(node.test):
                if isinstance(condition, ast.Compare) and not isinstance(condition.ops[0], ast.Eq):  # what to do
                    operands = [condition.left, *condition.comparators]
                    named = [one for one in operands if is_option(one, holders)]
                    if len(named) == 1 and all(one is named[0] or is_constant(one) for one in operands):
                        yield condition


def messages(tree):
    """Errors that repeat the range or the choices of one option, as its declaration words them."""
    pattern = re.compile(r"--(\w+) \{[^}]*\}[^:]*: (use )?(one of|at least|above|at most|below|zero|\S+ or more)")
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            said = node.exc.args[0]
            words = ast.unparse(said)[2:] if isinstance(said, ast.JoinedStr) else ""
            if (named := pattern.match(words)) and named.group(1) in NAMES:
                yield node


FOREIGN = ("pretraining/replaced_options.py", "finetuning/run/replaced_options.py")  # names that no option has


def test_no_table_of_options_stands_beside_their_declarations():
    found = [
        f"{path}:{node.lineno}: {ast.unparse(node)[:60]}"
        for path, tree in sources()
        if path.as_posix() not in FOREIGN
        for node in tables(tree)
    ]
    assert found == []


def test_no_option_is_refused_for_its_value_elsewhere():
    found = [f"{path}:{node.lineno}: {ast.unparse(node)}" for path, tree in sources() for node in refusals(tree)]
    assert found == []


def test_no_error_elsewhere_words_the_range_of_an_option():
    found = [f"{path}:{node.lineno}: {ast.unparse(node)[:110]}" for path, tree in sources() for node in messages(tree)]
    assert found == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ('FREE = frozenset({"output_dir", "save_steps"})', tables),
        ('SMALLEST: dict = {"save_steps": 0, "output_dir": 1}', tables),
        ('class A:\n    OF = ("max_seq_length", "pooling")', tables),
        ('def f(options):\n    for name in {"save_steps": (0, 1), "max_seq_length": (8, 9)}: pass', tables),
        ('raise ValueError(f"--seed {seed}: at least one")', messages),
        ('raise ValueError(f"--fsdp {fsdp!r} is unknown: use one of {modes}")', messages),
        ("def f(options):\n    if options.save_steps < 0:\n        raise ValueError", refusals),
        ("def f(options):\n    if not 0 <= options.warmup_ratio < 1:\n        raise ValueError", refusals),
        ('def f(options):\n    if options.bf16 not in ("a", "b"):\n        raise ValueError', refusals),
        ("class QAOptions:\n    def f(self):\n        if self.doc_stride < 0:\n            raise ValueError", refusals),
    ],
)
def test_such_a_fact_elsewhere_is_found(source, kind):
    assert len(list(kind(ast.parse(source)))) >= 1
