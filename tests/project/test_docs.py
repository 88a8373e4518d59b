"""The pages: docs/files.md lists every source file, names and links lead somewhere, prose is wrapped."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("runtime", "shards", "pretraining", "finetuning", "gap", "launch", "ds_configs", "benchmarks", "docs/site")
NAMED_FILE = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)}|tests|docs)/[\w./-]*\.(?:py|md|json|html|png)\b")
SOURCES = (".py", ".html", ".json", ".sh", ".yaml", ".example")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
OF_EARLIER_TREES = "## Files to touch"  # from this heading of decisions.md on, names of earlier trees may stand


def listed_files(page: str) -> set[str]:
    """Paths of files in docs/files.md: the folder of a heading and the name of each line below it."""
    paths, folder = set(), ""
    for line in page.splitlines():
        if heading := re.match(r"#{2,3} `(.+/)`$", line):
            folder = heading[1]
        elif entry := re.match(r"- `([^`]+\.\w+)`: ", line):
            paths.add(folder + entry[1])
    return paths


def source_files() -> set[str]:
    """Tracked and new sources; of tests/ those in the folder itself, since the others mirror the code."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run([*command, *FOLDERS, "tests"], capture_output=True, text=True, check=True).stdout.split()
    sources = {name for name in names if name.endswith(SOURCES) and (ROOT / name).is_file()}
    return {name for name in sources if not re.match(r"tests/.+/", name)}


def headings(page: str) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_source_file_is_listed_and_every_listed_file_exists():
    listed, sources = listed_files((ROOT / "docs/files.md").read_text(encoding="utf-8")), source_files()
    missing = {name for name in sources - listed if not name.endswith("__init__.py")}
    assert not missing, f"add to docs/files.md, one line each: {sorted(missing)}"
    assert not listed - sources, f"gone, so remove from docs/files.md: {sorted(listed - sources)}"


def pages() -> list[Path]:
    folders = (".", "docs", "docs/api", "docs/options", "docs/recipes", *FOLDERS)
    return [path for folder in folders for path in sorted((ROOT / folder).glob("*.md"))]


def test_pages_name_only_files_and_headings_that_exist():
    faults = []
    for path in pages():
        page = path.read_text(encoding="utf-8").split(OF_EARLIER_TREES)[0]
        faults += [f"{path.name}: {name}" for name in NAMED_FILE.findall(page) if not (ROOT / name).exists()]
        for name, anchor in LINK.findall(page):
            target = path.parent / name if name else path
            if not target.exists() or (anchor and anchor not in headings(target.read_text(encoding="utf-8"))):
                faults.append(f"{path.name}: {name}#{anchor}")
    assert not faults, f"these pages name what does not exist: {faults}"


def test_prose_is_wrapped_at_100_columns():
    """Tables, images and code, which is indented by four or fenced, may be wider."""
    faults = []
    for path in pages():
        lines = FENCED.sub("", path.read_text(encoding="utf-8")).splitlines()
        long = [line for line in lines if len(line) > 100 and not re.match(r"\s*\||!\[| {4}", line)]
        faults += [f"{path.relative_to(ROOT)}: {line[:60]}..." for line in long]
    assert not faults, f"wrap these at 100 columns: {faults}"
