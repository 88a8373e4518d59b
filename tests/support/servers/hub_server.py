"""A stand-in of the model hub on 127.0.0.1: the endpoints that its client needs to push and to load models.

The client is the real one. Repositories, branches and commits are kept in memory; large files by their sha256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LARGE = (".safetensors",)  # what the hub's .gitattributes keeps as large files
TOKEN = "hf_of-the-tests"


@dataclass
class StoredRepository:
    """`files` of each commit: path -> content."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # branch -> (commit, message), newest first

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {branch} {message}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.history.setdefault(branch, []).insert(0, (name, message))
        return name

    def at(self, revision: str) -> dict[str, bytes] | None:
        return self.commits.get(self.branches.get(revision, revision))


@dataclass
class HubServer:
    """`failing` has statuses by a part of a request's path: each entry is one request that fails."""

    address: str
    repositories: dict[str, StoredRepository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)  # sha256 of the large files that were sent
    failing: list[tuple[str, int]] = field(default_factory=list)
    writers: tuple[str, ...] = (TOKEN,)

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[repository].at(revision)
        assert found is not None, f"no {revision} in {sorted(self.repositories[repository].branches)}"
        return found

    def meet(self, monkeypatch: Any, cache: Any) -> None:
        """Let this process, and those that it starts, find the hub, with a cache of its own."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", self.address)
        place = f"{self.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
        for name, value in variables_of(self, cache).items():
            monkeypatch.setenv(name, value)

    def messages(self, repository: str, revision: str) -> list[str]:
        return [message for _, message in self.repositories[repository].history[revision]]


def is_large(path: str) -> bool:
    return path.endswith(LARGE)


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def entry_of(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
    if is_large(path):
        oid = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()
        entry |= {"oid": git_sha1(pointer), "lfs": {"oid": oid, "size": len(content), "pointerSize": len(pointer)}}
    return entry


class HubHandler(BaseHTTPRequestHandler):
    """One request; the paths are those of the public hub."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, content: Any = b"", status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, what: str) -> None:
        self.answer({"error": f"{what} not found"}, 404, X_Error_Code=f"{what}NotFound")

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for entry in self.hub.failing:
            if entry[0] in path:
                self.hub.failing.remove(entry)
                self.answer({"error": "the stand-in was told to fail"}, entry[1])
                return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.command == "POST" and token not in self.hub.writers:
            self.answer({"error": "this token may not write"}, 403 if token else 401)
        elif self.command == "PUT":
            oid = path.rsplit("/", 1)[-1]
            assert hashlib.sha256(body).hexdigest() == oid
            self.hub.large[oid] = body
            self.hub.uploads.append(oid)
            self.answer(ETag='"x"')
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/whoami-v2":
            self.answer({"name": "tester", "type": "user"}, 200 if token in self.hub.writers else 401)
        elif path == "/api/validate-yaml":
            self.validate(json.loads(body)["content"])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.batch(json.loads(body))
        elif path.startswith("/api/models/"):
            self.of_repository(path.removeprefix("/api/models/").split("/"), body)
        else:
            self.resolve(path)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        address = {"url": f"{self.hub.address}/{name}", "name": name}
        if name in self.hub.repositories:
            self.answer({**address, "error": "You already created this model repo"}, 409)
            return
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        made = self.hub.repositories[name] = StoredRepository(private)
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.answer(address)

    def validate(self, card: str) -> None:
        head = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else None
        wrong = not isinstance(head, dict) or "library_name" not in head
        errors = [{"message": "metadata are missing"}] if wrong else []
        self.answer({"errors": errors, "warnings": []}, 400 if wrong else 200)

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for item in wanted["objects"]:
            href = {"upload": {"href": f"{self.hub.address}/upload/{item['oid']}", "header": {}}}
            objects.append(item if item["oid"] in self.hub.large else {**item, "actions": href})
        self.answer({"transfer": "basic", "objects": objects})

    def of_repository(self, parts: list[str], body: bytes) -> None:
        name, action, rest = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", "/".join(parts[3:])
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.missing("Repo")
        elif action == "refs":
            branches = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
                for branch, commit in repository.branches.items()
            ]
            self.answer({"branches": branches, "converts": [], "tags": []})
        elif action == "branch":
            if rest in repository.branches:
                self.answer({"error": "branch exists"}, 409)
                return
            start = json.loads(body).get("startingPoint") or repository.branches["main"]
            repository.branches[rest] = start
            repository.history[rest] = [entry for entry in repository.history["main"] if entry[0] == start]
            self.answer({})
        elif action == "tree" and "/" in rest:  # a folder: there are none
            self.missing("Entry")
        elif repository.at(rest or "main") is None:
            self.missing("Revision")
        else:
            self.at_revision(repository, name, action, rest or "main", body)

    def at_revision(self, repository: StoredRepository, name: str, action: str, revision: str, body: bytes) -> None:
        files = repository.at(revision)
        assert files is not None
        if action == "commits":
            own = repository.history[revision]
            self.answer(
                [
                    {"id": commit, "title": text, "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
                    for commit, text in own
                ]
            )
        elif action == "tree":
            self.answer([entry_of(path, content) for path, content in files.items()])
        elif action == "preupload":
            asked = [item["path"] for item in json.loads(body)["files"]]
            modes = [
                {"path": path, "uploadMode": "lfs" if is_large(path) else "regular", "shouldIgnore": False}
                for path in asked
            ]
            self.answer({"files": modes})
        elif action == "commit":
            self.commit(repository, revision, dict(files), body)
        elif action in ("revision", ""):
            sha = repository.branches.get(revision, revision)
            siblings = [{"rfilename": path} for path in files]
            self.answer({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": [], "private": False})
        else:
            self.missing("Entry")

    def commit(self, repository: StoredRepository, branch: str, files: dict[str, bytes], body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.branches[branch]):
            self.answer({"error": "the branch has moved"}, 412)
            return
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = repository.commit(branch, files, header["summary"])
        self.answer({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/x/y/commit/{commit}"})

    def resolve(self, path: str) -> None:
        owner, name, verb, revision, wanted = [*path.strip("/").split("/", 4), *[""] * 5][:5]
        repository = self.hub.repositories.get(f"{owner}/{name}") if verb == "resolve" else None
        if repository is None:
            self.missing("Repo")
        elif (files := repository.at(revision)) is None:
            self.missing("Revision")
        elif wanted not in files:
            self.missing("Entry")
        else:
            content, entry = files[wanted], entry_of(wanted, files[wanted])
            commit = repository.branches.get(revision, revision)
            etag = f'"{entry["lfs"]["oid"] if is_large(wanted) else entry["oid"]}"'
            self.answer(content, ETag=etag, X_Repo_Commit=commit, X_Linked_Etag=etag, X_Linked_Size=str(len(content)))


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A hub without repositories; its address goes to the client as HF_ENDPOINT, `TOKEN` as HF_TOKEN."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.daemon_threads = True
    hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (HubHandler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def variables_of(hub: HubServer, cache: Any, token: str = TOKEN) -> dict[str, str]:
    """The environment of a process that uses this hub and a cache of its own."""
    return {
        "HF_ENDPOINT": hub.address,
        "HF_TOKEN": token,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        **dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "0"),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), ""),
        "NO_PROXY": "*",
    }
