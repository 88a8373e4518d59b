"""The navigation: the links of docs/index.md, section by section, and below a page those in its folder.

A page that docs/index.md does not name stands under "More", so that no page is out of reach.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

HOME = "docs/index"
# A folder of pages -> the page that they stand below.
PARENTS = {
    "docs/options": "docs/options",
    "docs/recipes": "docs/recipes",
    "docs/api": "docs/api",
    "docs/studies": "docs/results",
    "benchmarks": "benchmarks/README",
}
PAGE_LINK = re.compile(r"^- \[([^\]]+)\]\(([^)#:]+)\.md\)", re.MULTILINE)
FOLDER_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)\)")
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
MORE = "More"


def sections(home: str) -> dict[str, dict[str, str]]:
    """Heading -> the pages that its list links to, by their path from the root without the suffix, with their names."""
    _, *parts = SECTION.split(home)
    return {
        heading: {page_name(link): name for name, link in PAGE_LINK.findall(text)}
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
        if PAGE_LINK.search(text)
    }


def page_name(link: str) -> str:
    """A link of docs/index.md as a path from the root."""
    parts: list[str] = ["docs"]
    for part in link.split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def parent_of(name: str) -> str | None:
    """The page that this one stands below; None for pages that docs/index.md lists."""
    return next(
        (parent for folder, parent in PARENTS.items() if name.startswith(f"{folder}/") and name != parent), None
    )


def pages_of(root: Path) -> list[str]:
    """Every page of the site but the home page."""
    paths = [*root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md"), root / "ds_configs/README.md"]
    paths += [root / "README.md", root / "CONTRIBUTING.md"]
    parts = {path for path in paths if "studies" in path.parts and path.name not in ("results.md", "plan.md")}
    names = (path.relative_to(root).with_suffix("").as_posix() for path in paths if path not in parts)
    return sorted(name for name in names if name != HOME)


def toctree(places: Mapping[str, str], caption: str = "") -> str:
    """A hidden table of contents; a page without a name has its own title."""
    entries = [f"{name} </{place}>" if name else f"/{place}" for place, name in places.items()]
    lines = [":hidden:", *([f":caption: {caption}"] if caption else []), *entries]
    return "\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def with_navigation(name: str, text: str, root: Path) -> str:
    """The page with the tables of contents that stand below it."""
    if name == HOME:
        listed = sections(text)
        places = {place for places in listed.values() for place in places}
        rest = {page: "" for page in pages_of(root) if page not in places and not parent_of(page)}
        return (
            text
            + "".join(toctree(places, heading) for heading, places in listed.items())
            + (toctree(rest, MORE) if rest else "")
        )
    below = {page: "" for page in pages_of(root) if parent_of(page) == name}
    return text + toctree(below) if below else text


def without_links_to_folders(text: str, place: Path) -> str:
    """The page without links to folders, which a code host lists and a site does not."""
    return FOLDER_LINK.sub(lambda link: link[1] if (place / link[2]).is_dir() else link[0], text)
