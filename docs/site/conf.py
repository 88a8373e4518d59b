"""The documentation site: Sphinx with MyST and Furo, built by `make docs` from the Markdown pages of the repository.

The root of the repository is the source folder, so that links between pages are the same on the site and on a code
host. What is generated stands where a page has a marker (`markers.py`); the navigation is the list of links in
docs/index.md (`navigation.py`). Nothing is fetched while building or reading: no fonts, no scripts of other servers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]
sys.path[:0] = [str(ROOT), str(SITE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch is imported for the signatures

from markers import as_rst, import_modules, readable_signature, with_generated_text  # noqa: E402
from navigation import with_navigation, without_links_to_folders  # noqa: E402

project = "pretraining-gap"
html_title = "How much pretraining closes the gap?"
copyright = "its contributors, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "ds_configs/README.md", "benchmarks/*.md", "README.md", "CONTRIBUTING.md"]
exclude_patterns = [
    *("**/.*", ".*", "runs", "build", "tests", "runtime", "shards", "pretraining", "finetuning", "gap", "launch"),
    *("docs/studies/**/comment.md", "docs/studies/introduction.md"),  # parts of results.md
]

myst_heading_anchors = 6  # as code hosts name them
myst_links_external_new_tab = False
default_role = "code"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]  # index.html, which leads to docs/index.html
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None
highlight_language = "bash"
pygments_style = "friendly"


def setup(app: object) -> dict[str, bool]:
    """Fill in the pages as they are read."""

    def fill(app: object, name: str, source: list[str]) -> None:
        text = without_links_to_folders(source[0], (ROOT / name).parent)
        source[0] = with_navigation(name, with_generated_text(text), ROOT)

    def plain(app: object, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
        lines[:] = as_rst(lines)

    def readable(app: object, what: str, name: str, item: object, *rest: object) -> tuple[str, object] | None:
        _, signature, returned = rest
        return (readable_signature(signature), returned) if isinstance(signature, str) and "<" in signature else None

    import_modules(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    app.connect("source-read", fill)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", plain)  # type: ignore[attr-defined]
    app.connect("autodoc-process-signature", readable)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
