"""The documentation site: navigation, generated parts, quoted error messages; and a strict build without a network."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import data_way
import pytest
from chromium_page import chromium
from field_tables import format_text
from markers import MARKER, api_text, as_rst, readable_signature, with_generated_text
from navigation import HOME, MORE, PARENTS, pages_of, parent_of, sections, with_navigation, without_links_to_folders
from option_lists import commands, options_class, options_text
from shard_directories import write_directory

from runtime.options.declaration import declarations

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch")
PACKAGES = ("shards", "pretraining", "finetuning", "gap")
OTHER_PROGRAMS = "## Messages of other programs"


def page(name: str) -> str:
    return (ROOT / f"{name}.md").read_text(encoding="utf-8")


def test_every_command_has_a_page_with_all_of_its_options():
    for command in commands():
        own = page(f"docs/options/{Path(command).stem}")
        assert f"<!-- options: {command} -->" in own
        shown = re.findall(r"^`{4}\{option\} --(\w+)", with_generated_text(own), re.MULTILINE)
        assert sorted(shown) == sorted(declarations(options_class(command)[0])), command
        assert f"(options/{Path(command).stem}.md)" in page("docs/options"), f"docs/options.md lacks {command}"


def test_an_option_is_shown_with_its_default_choices_and_range():
    text = options_text("launch/pretrain.py")
    parts = {part.split()[0]: part for part in text.split("````{option} --")[1:]}
    assert (
        "Default: `0.002` on the small world, `0.0008` on shards, `0.0001` from a checkpoint." in parts["learning_rate"]
    )
    assert "One of: `linear`, `sqrt`, `cosine`." in parts["decay"]
    assert "Default: `0.1`. Range: at least 0" in parts["warmup_fraction"]
    assert "Default: the number of usable cores." in options_text("launch/build_shards.py").split("--processes")[1]
    assert "Required." in options_text("launch/predict.py").split("--test_file")[1].split("````")[0]


def test_fields_of_a_file_come_from_its_schema():
    text = format_text("pretraining.checkpoints.series:SeriesEntry")
    assert "| `path` | text | yes | relative to the folder of series.json |" in text
    assert "| `kind` | `raw` or `annealed` | yes | of the trunk, or" in text
    assert "| `budget` | number, ≥ 0 or null | no | in its own unit |" in text
    nested = format_text("gap.cells.store:_Predictions")
    assert "list of `Example`" in nested
    assert "`Example`:\n\n| field |" in nested


def test_the_fields_of_the_manifest_are_those_that_a_build_writes(tmp_path):
    write_directory(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    text = page("docs/file-formats").split("## Shards: `manifest.json`")[1].split("\n## ")[0]
    split = manifest["splits"]["train"]
    for name in ("schema_version", "token_dtype", "block_tokens", "tokenizer", "splits"):
        assert name in manifest, name
    for names in (manifest["tokenizer"], manifest["tokenizer"]["special_ids"], split, split["shards"][0]):
        assert all(f"`{name}`" in text for name in names), sorted(names)
    assert all(f"`{name}`" in text for name in split["shards"][0]["blocks"][0])


def test_every_marker_is_filled_in_and_every_page_has_a_place():
    for name in pages_of(ROOT):
        if "<!-- api: " not in page(name):
            assert not MARKER.search(with_generated_text(page(name))), name
    home = with_navigation(HOME, page(HOME), ROOT)
    placed = set(re.findall(r"^(?:.+ <)?/(\S+?)>?$", home, re.MULTILINE))
    for parent in set(PARENTS.values()):
        placed |= set(re.findall(r"^/(\S+)$", with_navigation(parent, "", ROOT), re.MULTILINE))
    assert set(pages_of(ROOT)) - placed == set()


def test_a_page_that_nobody_listed_is_under_more(tmp_path):
    for name in ("docs/index", "docs/listed", "docs/forgotten", "docs/options", "docs/options/gap"):
        (tmp_path / f"{name}.md").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.md").write_text("# A\n")
    text = "# Home\n\n## Start\n\n- [A](listed.md): a\n- [B](options.md): b\n"
    assert sections(text) == {"Start": {"docs/listed": "A", "docs/options": "B"}}
    shown = with_navigation(HOME, text, tmp_path)
    assert "A </docs/listed>\n" in shown
    assert f":caption: {MORE}\n" in shown
    assert "/docs/forgotten\n" in shown.split(MORE)[1]
    assert "options/gap" not in shown
    assert "/docs/options/gap" in with_navigation("docs/options", "", tmp_path)
    assert parent_of("docs/options/gap") == "docs/options"


def test_links_to_folders_become_text():
    assert without_links_to_folders("[a](docs) and [b](docs/index.md)", ROOT) == "a and [b](docs/index.md)"


def test_a_docstring_is_plain_text():
    lines = ["Reads DIR/*.tar, eval_ and `a*b_`:", "  more.", "", "- one", "  goes on", "- two", "", "    x = f(**y)"]
    assert as_rst(lines) == [
        *("Reads DIR/\\*.tar, eval\\_ and `a*b_`: more.", "", "- one goes on", "- two", ""),
        *("::", "", "    x = f(**y)", ""),
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_s_public_names_stand_on_its_page_under_the_name_that_is_imported(package):
    assert f"<!-- api: {package} -->" in page(f"docs/api/{package}")
    loaded = importlib.import_module(package)
    shown = re.findall(r"^\.\. auto(function|class):: (\S+)$", api_text(package), re.MULTILINE)
    assert sorted(name for _, name in shown) == sorted(f"{package}.{name}" for name in loaded.__all__)
    assert [kind for kind, _ in shown] == sorted((kind for kind, _ in shown), reverse=True), "functions first"
    long = [name.endswith("Keywords") for _, name in shown]
    assert long == sorted(long), "keywords last"
    assert api_text(package).count(":undoc-members:") == sum(long), "the type of each keyword"
    untyped = []
    for name in loaded.__all__:
        value = getattr(loaded, name)
        assert inspect.getdoc(value), name
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            kinds = [*(part.annotation for part in signature.parameters.values()), signature.return_annotation]
            untyped += [name for kind in kinds if kind is inspect.Signature.empty]
    assert untyped == []


def test_a_signature_with_a_factory_is_python():
    assert readable_signature("(a: ~x.y = <factory>, b: object = <object object at 0x7f>)") == (
        "(a: ~x.y = ..., b: object = ...)"
    )


def test_a_public_name_stands_once():
    assert ":exclude-members: Summary" in api_text("shards.building.builder")
    assert "exclude" not in api_text("shards.streaming.stream")


@cache
def texts_of_the_code() -> list[str]:
    """Every text in the sources but docstrings, with a mark where a value is filled in."""
    found = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if id(node) in docstrings:
                    continue
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def stands_in_the_code(message: str) -> bool:
    pieces = [re.escape(piece.strip()) for piece in message.split("...") if piece.strip()]
    pattern = re.compile(".*".join(pieces), re.DOTALL)
    return any(pattern.search(text) for text in texts_of_the_code())


def test_every_message_of_troubleshooting_still_stands_in_the_code():
    own = page("docs/troubleshooting").split(OTHER_PROGRAMS)[0]
    messages = re.findall(r"^### `(.+)`$", own, re.MULTILINE)
    assert len(messages) >= 40
    assert [message for message in messages if not stands_in_the_code(message)] == []
    assert not stands_in_the_code("no such message ... anywhere in it")


def test_the_picture_of_the_data_s_way_is_the_one_that_the_script_draws():
    assert data_way.PICTURE.read_text(encoding="utf-8") == data_way.picture()


class Resources(HTMLParser):
    """What a page makes a browser fetch from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        fetched = [given.get("src"), given.get("srcset"), given.get("poster"), given.get("data")]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "search", "index"):
            fetched.append(given.get("href"))
        self.foreign += [place for place in fetched if place and re.match(r"(https?:)?//", place)]


def foreign_resources(site: Path) -> dict[str, list[str]]:
    found = {}
    for path in site.rglob("*"):
        if path.suffix == ".html":
            parser = Resources()
            parser.feed(path.read_text(encoding="utf-8"))
            found[path.name] = parser.foreign
        elif path.suffix == ".css":
            found[path.name] = re.findall(
                r"(?:url\(|@import )[\"']?(?:https?:)?//\S+", path.read_text(encoding="utf-8")
            )
    return {name: places for name, places in found.items() if places}


def test_a_resource_from_elsewhere_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<a href="https://a.b">x</a><script src="https://a.b/c.js"></script>')
    (tmp_path / "b.css").write_text("@font-face { src: url(//fonts.c/d.woff) }")
    (tmp_path / "c.html").write_text('<img src="d.png"><link rel="stylesheet" href="e.css">')
    assert sorted(foreign_resources(tmp_path)) == ["a.html", "b.css"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-c", "docs/site", "--fail-on-warning", "--keep-going", "--quiet"]
    places = ["-d", str(folder / "doctrees"), ".", str(folder / "html")]
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(site):
    assert foreign_resources(site) == {}
    assert (site / "index.html").is_file()
    for name in pages_of(ROOT):
        assert (site / f"{name}.html").is_file(), name
    options = (site / "docs/options/pretrain.html").read_text(encoding="utf-8")
    assert 'id="cmdoption-launch-pretrain.py-budget_tokens"' in options
    for package in PACKAGES:
        own = (site / f"docs/api/{package}.html").read_text(encoding="utf-8")
        missing = [name for name in importlib.import_module(package).__all__ if f'id="{package}.{name}"' not in own]
        assert missing == [], package
    assert "class shards.streaming.stream" in re.sub(r"<[^>]+>", "", (site / "docs/api/shards.html").read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_of_the_site_scrolls_sideways(site, width):
    with chromium(width=width, height=844) as driver:
        for name in ("index", "tutorial", "options/pretrain", "file-formats", "troubleshooting", "api/gap", "results"):
            driver.get((site / f"docs/{name}.html").as_uri())
            assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), name
            assert driver.get_log("browser") == [], name
