"""A model repository on the hub: a folder is pushed as one commit, and what is there already is not pushed again.

The token is the hub client's own (HF_TOKEN, or what `hf auth login` stored): in no option, message or file of ours.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import disable_progress_bars

from runtime.files.unique_keys import parse_yaml
from runtime.files.whole_files import sha256_of
from runtime.hub import reason_of_client
from runtime.processes.failures import Failed

MAIN = "main"
CARD, WEIGHTS = "README.md", "model.safetensors"
ATTEMPTS, PAUSE_SECONDS = 4, 2.0  # the pause doubles
PASSING = (408, 409, 412, 429)  # statuses below 500 that may pass: too slow, too many, or two pushes at once
CLIENT_LIBRARIES = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "hf_xet", "requests")
THIS_FOLDER = "this folder"  # what cards of local folders call their place
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may do it"

Content = Path | bytes
Done = TypeVar("Done")


class NotPushed(Failed):
    """The hub could not be reached, or failed again and again: pushing again later may succeed."""


@dataclass(frozen=True)
class HubRepository:
    """`name` is ORG/NAME. Methods raise ValueError where the user has to change something, else NotPushed."""

    name: str
    private: bool = False
    api: HfApi = field(default_factory=lambda: HfApi(library_name="pretraining-gap"))

    def create(self) -> None:
        """Create it unless it is there; then `private` has no effect. Also shows whether the token may write."""
        self._asked(lambda: self.api.create_repo(self.name, private=self.private or None, exist_ok=True))

    def whoami(self) -> str:
        """The account of the token; ValueError where there is none."""
        return str(self._asked(lambda: self.api.whoami()["name"]))

    def push(
        self,
        files: Mapping[str, Content],
        revision: str,
        message: str,
        *,
        replaceable: Callable[[], Collection[str]] = tuple,
    ) -> bool:
        """Commit the files (by their names there) that the branch lacks, all at once; False if it has them all.

        A branch is begun at the repository's first commit, so that it holds nothing but what is pushed. A card that was
        edited there is no reason for a commit. Nothing is removed. `replaceable` gives the sha256 of weights that may
        be replaced. ValueError for a branch with other weights: nothing of it is lost.
        """
        disable_progress_bars()
        return self._asked(lambda: self._push(files, revision, message, replaceable))

    def _push(
        self, files: Mapping[str, Content], revision: str, message: str, replaceable: Callable[[], Collection[str]]
    ) -> bool:
        heads = self._heads()
        if revision not in heads:
            first = self.api.list_repo_commits(self.name)[-1].commit_id
            self.api.create_branch(self.name, branch=revision, revision=first, exist_ok=True)
            heads = self._heads()
        there = self._files(revision)
        missing = {name: content for name, content in files.items() if not is_same(there.get(name), content)}
        if missing.keys() <= {CARD} & there.keys():
            return False
        held = there.get(WEIGHTS)
        if held is not None and WEIGHTS in missing and sha256_there(held) not in replaceable():
            raise ValueError(
                f"{self.name} at {revision} holds other weights, which are left as they are: push to another "
                "repository, or remove that branch first"
            )
        self.api.create_commit(
            self.name,
            operations=[CommitOperationAdd(name, content) for name, content in sorted(missing.items())],
            commit_message=message,
            revision=revision,
            parent_commit=heads[revision],  # two pushes at the same time are not mixed: the second looks again
        )
        return True

    def files(self, revision: str = MAIN) -> dict[str, RepoFile]:
        """The files of a branch by name."""
        return self._asked(lambda: self._files(revision))

    def branches(self) -> list[str]:
        """The names of its branches."""
        return self._asked(lambda: list(self._heads()))

    def _files(self, revision: str) -> dict[str, RepoFile]:
        entries = self.api.list_repo_tree(self.name, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _heads(self) -> dict[str, str]:
        return {branch.name: branch.target_commit for branch in self.api.list_repo_refs(self.name).branches}

    def _asked(self, ask: Callable[[], Done]) -> Done:
        with said_plainly(self.name):
            return with_patience(ask)


def with_patience(ask: Callable[[], Done]) -> Done:
    """The answer to a request, asked again after failures that may pass; else, or in the end, its exception."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return ask()
        except Exception as error:
            if constants.HF_HUB_OFFLINE or not may_pass(error):
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    return ask()


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an exception of the hub's client, or in its cause."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and error.__cause__ is not None:  # the client raises RuntimeError for an upload that failed
        return status_of(error.__cause__)
    return status if isinstance(status, int) else None


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: the network, or a server that is busy."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in PASSING
    return _is_of_client(error) and not isinstance(error, ValueError)


def _is_of_client(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return (
        library in CLIENT_LIBRARIES or isinstance(error, ConnectionError | TimeoutError) or type(error) is RuntimeError
    )


@contextmanager
def said_plainly(name: str) -> Iterator[None]:
    """Turn the exceptions of the hub's client into one sentence with a remedy; other exceptions pass."""
    try:
        yield
    except Exception as error:
        if not _is_of_client(error):
            raise
        reason = reason_of_client(error)
        if status_of(error) in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
            raise ValueError(f"the hub does not let this account do that with {name} ({reason}): {LOG_IN}") from error
        if constants.HF_HUB_OFFLINE:
            raise NotPushed(f"{name} was not reached: HF_HUB_OFFLINE is set; unset it and push again") from error
        if may_pass(error):
            raise NotPushed(f"{name} was not reached ({reason}): push again once it can be reached") from error
        raise ValueError(f"the hub refused {name} ({reason}): check the name; {LOG_IN}") from error


def is_same(there: RepoFile | None, content: Content) -> bool:
    """Whether a file of the hub has this content: by its size, and its sha256 or git's sha1."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    if there is None or there.size != size:
        return False
    if there.lfs is not None:
        own = sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        return there.lfs.sha256 == own
    whole = content.read_bytes() if isinstance(content, Path) else content
    return there.blob_id == hashlib.sha1(b"blob %d\0" % size + whole, usedforsecurity=False).hexdigest()


def sha256_there(file: RepoFile) -> str:
    """The sha256 of a large file of the hub; "" for a small one, of which the hub has none."""
    return "" if file.lfs is None else str(file.lfs.sha256)


def files_of(folder: Path) -> dict[str, Content]:
    """The files of a model's folder by name, hidden ones left out."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}


def hub_card(
    text: str,
    repository: str,
    revision: str = MAIN,
    *,
    license: str | None = None,
    language: str | None = None,
    more: str = "",
) -> str:
    """The card of a local folder for its place on the hub: the address to load it from, and metadata that were given.

    `more` is put at its end. ValueError for metadata that are no YAML.
    """
    head = REGEX_YAML_BLOCK.search(text)
    if head is None:
        text = f"---\nlibrary_name: transformers\n---\n{text}"
    elif not isinstance(parse_yaml(head[2]), dict):  # within bounds, no key twice: the client reads it without any
        raise ValueError("the lines between --- are not names and values")
    card = ModelCard(text)
    if license is not None:
        card.data["license"] = license
    if language is not None:
        languages = [part.strip() for part in language.split(",") if part.strip()]
        card.data["language"] = languages[0] if len(languages) == 1 else languages
    at = "" if revision == MAIN else f', revision="{revision}"'
    card.text = card.text.replace(f'load("{THIS_FOLDER}")', f'load(snapshot_download("{repository}"{at}))')
    card.text = card.text.replace(f'"{THIS_FOLDER}"', f'"{repository}"{at}') + more
    return str(card)
