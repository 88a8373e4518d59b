"""Whether the hub is reachable (checked once: its clients retry for long), and names: of paths, and of the hub."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import get_session, validate_repo_id

from runtime.files.foreign import printable
from runtime.options.option_rules import idle_beside

PROBE_SECONDS = 5.0
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


@functools.cache
def hub_is_reachable() -> bool:
    """Whether the hub answers at all; asked once per process. False if HF_HUB_OFFLINE is set."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception:  # the type depends on the HTTP client of the installed version
        return False
    return True


def local_files_only(name: str) -> bool:
    """Whether `from_pretrained` should stay offline: for a local path, and when the hub cannot be reached."""
    return Path(name).exists() or not hub_is_reachable()


def is_missing_path(name: str) -> bool:
    """Whether a name was meant as a local path that is missing: it looks like a path, or its parent folder exists."""
    path = Path(name)
    if name.startswith((".", "/", "~")) or len(path.parts) > 2:
        return True
    return len(path.parts) == 2 and path.parent.is_dir()


def is_repository_name(name: str) -> bool:
    """Whether the hub may have a model of this name, with or without an owner."""
    try:
        validate_repo_id(name)
    except ValueError:
        return False
    return True


def require_repository(name: str, option: str = "--hub_model_id") -> None:
    """ValueError unless the name is OWNER/NAME as the hub allows it."""
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise ValueError(f"{option} {name}: {reason_of_client(error)}; write OWNER/NAME") from error
    if "/" not in name:
        raise ValueError(f"{option} {name}: name its owner too, as in OWNER/{name}")


def reason_of_client(error: BaseException) -> str:
    """The first line of a message of the hub's client, without the id of the request."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"\s*\(Request ID: [^)]*\)", "", lines[0]) if lines else type(error).__name__
    return printable(text.rstrip("."))


def require_online(option: str = "--push_to_hub") -> None:
    """ValueError while HF_HUB_OFFLINE is set."""
    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"{option}: HF_HUB_OFFLINE is set, so nothing can be pushed: unset it, or push later with launch/push.py"
        )


def push_problems(options: Any) -> list[str]:
    """Contradictions between --push_to_hub and the other options of the hub, and names that the hub does not have."""
    if not options.push_to_hub:
        others = ("hub_model_id", "hub_private_repo", "hub_license", "hub_language")
        return idle_beside(options, others, "--push_to_hub false")
    if options.hub_model_id is None:
        return ["--push_to_hub: name the repository with --hub_model_id OWNER/NAME"]
    return place_problems(options)


def place_problems(options: Any) -> list[str]:
    """What is wrong with the name of a repository, and with a license and languages for its card."""
    problems = []
    try:
        require_repository(options.hub_model_id)
    except ValueError as error:
        problems.append(str(error))
    if options.hub_license is not None and not LICENSE.fullmatch(options.hub_license):
        problems.append(f"--hub_license {options.hub_license}: write the hub's name for it, such as apache-2.0 or mit")
    languages = [] if options.hub_language is None else [part.strip() for part in options.hub_language.split(",")]
    if wrong := [language for language in languages if not LANGUAGE.fullmatch(language)]:
        problems.append(f"--hub_language {', '.join(wrong)}: write codes of languages, such as en or zh")
    return problems
