"""The page in headless Chromium: it follows its runs, keeps scroll and focus, and works by keyboard and on a phone."""

import json
import shutil
import threading
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest
from chromium_page import chromium

from gap.cells.job_list import read_jobs
from gap.cells.store import append_score
from gap.watch.board import Board

pytest.importorskip("uvicorn", reason="needs the extra [watch]")
import uvicorn

from gap.watch.page.server import build_app, listen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS = 60
CONTRAST = """
const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => {
  const share = part / 255; return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = item => { for (; item; item = item.parentElement) {
  const colour = getComputedStyle(item).backgroundColor; if (!/, 0\\)|transparent/.test(colour)) return colour; }
  return getComputedStyle(document.body).backgroundColor; };
return [...document.querySelectorAll("main *, header *")].filter(item => item.checkVisibility() &&
  [...item.childNodes].some(child => child.nodeType === 3 && child.data.trim())).map(item => {
    const style = getComputedStyle(item), other = light(behind(item));
    const own = light(item.closest("svg") ? style.fill : style.color);
    return [(Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05), item.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
"""


@contextmanager
def served(root):
    """The page's address; the server ends with the block or when its `should_exit` is set."""
    listening = listen("127.0.0.1", 0)
    app = build_app(Board(root, every=0.2))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", server
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def until(driver, script, *arguments):
    """Wait until a script returns something true."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := driver.execute_script(f"return {script}", *arguments):
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {SECONDS} s: {script}")


def item(place):
    return f"document.querySelector('[data-place=\"{place}\"]')"


def some_runs(written):
    folders = {name: written.pretraining(name, updates=300, exported=1, budget_tokens=1e6) for name in ("a", "b", "c")}
    folders["study"] = written.study("study", done=2)
    written.pretraining("finished-one", updates=100, exported=4, owner="gone")
    written.sweep("sweep", ["finished", "failed"], total=3, owner="gone")
    return folders


def more_lines(folder, first, number, loss):
    with (folder / "journal.jsonl").open("a") as file:
        for update in range(first, first + number):
            tokens = 10 * update
            line = {"serial": update, "update": update, "segment": "trunk", "tokens": tokens, "loss": loss}
            line |= {"learning_rate": 1e-3, "seconds": update / 2, "tokens_per_second": 20.0}
            file.write(json.dumps(line) + "\n")


def severe(driver):
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_it_follows_its_runs_and_keeps_scroll_focus_and_what_is_folded(written):
    folders = some_runs(written)
    with served(written.root) as (address, server), chromium(height=500) as driver:
        driver.get(address)
        until(driver, "document.getElementById('updated').textContent")
        path = driver.execute_script(f"return {item('a')}.querySelector('path.line').getAttribute('d')")
        driver.execute_script(f"{item('b')}.querySelector('summary').click()")
        driver.execute_script(f"{item('c')}.querySelector('summary').focus({{preventScroll: true}}); scrollTo(0, 400)")
        seen = f"{item('c')}.getBoundingClientRect().top"
        top = driver.execute_script(f"return {seen}")
        more_lines(folders["a"], 301, 100, 1.25)
        until(driver, f"{item('a')}.querySelector('.numbers').textContent.includes('1.250')")
        assert driver.execute_script(f"return {item('a')}.querySelector('path.line').getAttribute('d')") != path
        assert driver.execute_script("return document.activeElement.closest('li').dataset.place") == "c"
        assert driver.execute_script(f"return {seen}") == pytest.approx(top, abs=2)
        assert not driver.execute_script(f"return {item('b')}.querySelector('details').open")

        jobs = read_jobs(folders["study"])
        places = f"{item('study')}.querySelectorAll('.places .done').length"
        assert driver.execute_script(f"return {places}") == 2
        for number, cell in enumerate(jobs.plan.cells[2:5]):
            append_score(folders["study"] / "scores.jsonl", written.scored(jobs, cell, 0.9, 1.0))
            until(driver, f"{places} === arguments[0]", 3 + number)
        until(driver, f"{item('study')}.textContent.includes('5 of 6 cells, means so far')")

        driver.execute_script(f"{item('a')}.querySelector('summary').focus()")
        written.lock(folders["a"], "gone")
        until(driver, "document.getElementById('said').textContent.includes('a: stale')")
        assert driver.execute_script(f"return {item('a')}.closest('section').id") == "attention"
        assert driver.execute_script("return document.activeElement.closest('li').dataset.place") == "a"
        assert driver.title.startswith("3 running, 1 failed, 1 stale, 1 finished: runs")
        shutil.rmtree(folders["b"])
        assert severe(driver) == []
        server.should_exit = True
        until(driver, "!document.getElementById('lost').hidden")


def test_a_finished_run_is_filled_when_it_is_opened(written):
    some_runs(written)
    with served(written.root) as (address, _), chromium() as driver:
        driver.get(address)
        assert driver.execute_script(f"return {item('finished-one')}.querySelectorAll('svg').length") == 0
        driver.execute_script(f"{item('finished-one')}.querySelector('summary').click()")
        until(driver, f"{item('finished-one')}.querySelectorAll('svg').length === 2")
        assert severe(driver) == []


def test_by_keyboard_everything_is_reached_in_order_and_seen(written):
    from selenium.webdriver.common.keys import Keys

    some_runs(written)
    with served(written.root) as (address, _), chromium() as driver:
        driver.get(address)
        until(driver, "document.getElementById('updated').textContent")
        reached = []
        for _ in range(40):
            driver.switch_to.active_element.send_keys(Keys.TAB)
            name, outline, top = driver.execute_script(
                "const e = document.activeElement, name = e.innerText.trim().split('\\n')[0];"
                "return [name, getComputedStyle(e).outlineStyle, e.getBoundingClientRect().top + scrollY]"
            )
            if driver.execute_script("return document.activeElement === document.body"):
                break
            reached.append((name, outline, top))
        assert [name for name, _, _ in reached[:4]] == ["To the runs", "Running", "Needs attention", "Finished"]
        assert {outline for _, outline, _ in reached} == {"solid"}
        tops = [top for _, _, top in reached[4:]]
        assert tops == sorted(tops)
        driver.execute_script("document.getElementById('summary-' + " + item("finished-one") + ".id.slice(4)).focus()")
        driver.switch_to.active_element.send_keys(Keys.ENTER)
        until(driver, f"{item('finished-one')}.querySelector('details').open")
        landmarks = "[...document.querySelectorAll('main, header, nav')].map(e => e.tagName)"
        assert driver.execute_script(f"return {landmarks}") == ["HEADER", "NAV", "MAIN"]
        levels = driver.execute_script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
        assert all(after <= before + 1 for before, after in pairwise(levels))
        unnamed = "[...document.querySelectorAll('svg, progress, [role=region]')].filter(e => !e.ariaLabel).length"
        assert driver.execute_script(f"return {unnamed}") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_is_readable_in_both_schemes(written, dark):
    some_runs(written)
    written.pretraining("a/folder/with_a_rather_long_name_that_does_not_break_anywhere_at_all_0123456789")
    with served(written.root) as (address, _), chromium(width=390, height=844, dark=dark) as driver:
        driver.get(address)
        until(driver, "document.getElementById('updated').textContent")
        driver.execute_script(f"{item('finished-one')}.querySelector('summary').click()")
        until(driver, f"{item('finished-one')}.querySelector('svg')")
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        assert driver.execute_script(CONTRAST) == []
        small = "[...document.querySelectorAll('summary')].filter(e => e.getBoundingClientRect().height < 24).length"
        assert driver.execute_script(f"return {small}") == 0
        background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 23, 26)") == dark
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, motion]})
        moving = "document.getAnimations().filter(one => one.playState === 'running').length"
        assert driver.execute_script(f"return {moving}") == 0
