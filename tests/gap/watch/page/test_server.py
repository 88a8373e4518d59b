"""The server gives its page and nothing else: methods, hosts, headers, paths, and text that tries to be HTML."""

import re

import pytest

from gap.watch.board import Board

pytest.importorskip("starlette", reason="needs the extra [watch]")
from starlette.testclient import TestClient

from gap.watch.page.server import HEADERS, build_app, is_known_host, listen


@pytest.fixture
def client(written):
    written.pretraining("<script>alert(1)</script>", exported=2, model="<img src=x onerror=alert(2)>")
    written.sweep("sweep", ["failed"], total=1, owner="gone")
    written.finetuning("done", owner="gone", results={"metric": "f1", "eval_f1": 0.5, "model": '"><b>'})
    return TestClient(build_app(Board(written.root, every=0.0)), base_url="http://127.0.0.1:8765")


def test_the_page_holds_every_run_and_no_markup_of_theirs(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "&lt;script&gt;alert(1)" in page.text
    assert "no &lt;b&gt;such&lt;/b&gt; file" in page.text
    assert "&lt;img src=x" in page.text
    for evil in ("<script>alert", "<img", "<b>such", '"><b>'):
        assert evil not in page.text
    ids = re.findall(r'id="run-([0-9a-f]+)"', page.text)
    assert len(set(ids)) == 3
    bodies = [client.get(f"/runs/{name}") for name in ids]
    assert {body.status_code for body in bodies} == {200}
    assert all('"><b>' not in body.text and "<img" not in body.text for body in bodies)


@pytest.mark.parametrize("path", ["/", "/changes", "/watch.js", "/watch.css", "/icon.svg", "/runs/x", "/none"])
def test_every_answer_keeps_the_page_to_itself(client, path):
    answer = client.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    head = client.head(path)
    assert (head.status_code, head.content) == (answer.status_code, b"")


def test_nothing_of_the_page_breaks_its_own_policy(client):
    page = client.get("/").text
    tags = " ".join(re.findall(r"<[^>]*>", page)) + "".join(client.get(f"/watch.{end}").text for end in ("css", "js"))
    assert not re.search(r"https?://|\sstyle=|\son\w+=|javascript:|@import|url\(", tags)
    assert re.findall(r"<script[^>]*>", page) == ['<script src="/watch.js">']


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_methods_that_write_are_refused(client, method):
    assert client.request(method, "/").status_code == 405


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("127.0.0.1:8765", True),
        ("localhost:9000", True),
        ("LOCALHOST", True),
        ("[::1]:8765", True),
        ("10.0.0.7:8765", True),
        ("gpu3:8765", True),
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8765", False),
        ("", False),
        ("[evil]", False),
    ],
)
def test_another_site_s_name_is_refused(client, header, known):
    assert is_known_host(header, "gpu3") == known
    if header != "gpu3:8765" and header:
        assert (client.get("/", headers={"host": header}).status_code == 200) == known


def test_another_site_s_page_gets_no_answer_but_its_link_leads_here(client):
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/changes", headers=foreign).status_code == 403
    assert client.get("/", headers={**foreign, "sec-fetch-mode": "navigate"}).status_code == 200
    assert (
        client.get("/changes", headers={"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}).status_code == 200
    )


@pytest.mark.parametrize(
    "path",
    [
        "/runs/..%2f..%2fetc%2fpasswd",
        "/..%2fserver.py",
        "/server.py",
        "/cards.html",
        "/runs/",
        "/runs/a/b",
        "//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    assert client.get(path).status_code == 404


def test_only_what_changed_is_sent(client, written):
    whole = client.get("/changes").json()
    assert set(whole["changed"]) == {"running", "attention", "finished"}
    assert whole["summary"] == "1 running, 1 failed, 1 finished"
    known = {name: part["version"] for name, part in whole["changed"].items()}
    assert client.get("/changes", params=known).json()["changed"] == {}
    with (written.root / "<script>alert(1)</script>" / "journal.jsonl").open("a") as file:
        file.write('{"serial": 50, "segment": "trunk", "tokens": 500, "loss": 1.0}\n')
    assert set(client.get("/changes", params=known).json()["changed"]) == {"running"}
    assert client.get("/changes", params={"running": "x" * 3000}).status_code == 414


def test_a_port_in_use_and_a_foreign_address_are_refused():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port} is in use on 127.0.0.1: give another"):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"--host 192\.0\.2\.1"):
        listen("192.0.2.1", 0)
