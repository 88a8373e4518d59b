"""The report: one file without network, safe against what is in names, and alive in a browser."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from chromium_page import chromium, picture
from simulated_scores import SimulatedStudy, series_rows, write_study

from gap.analysis.analysis import analyse
from gap.analysis.tables.costs import Prices
from gap.report.charts import run_chart, score_chart
from gap.report.images import draw_chart
from gap.report.page import write_report

DRAWS = 400


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    scores = write_study(folder)
    rows = series_rows(kinds=("annealed", "raw"))
    return write_report(analyse(scores, series=rows, prices=Prices(2.0), draws=DRAWS), folder)


def test_the_page_holds_everything_and_fetches_nothing(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    head = page.split("<script>")[0]
    assert "95 % of this series" in head or "90 % of this series" in head
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)="(?!data:|#)', own)
    assert "default-src 'none'" in own
    for heading in (
        "Gap closed",
        "Controls",
        "Forecast (not measured)",
        "Validation loss",
        "Planner",
        "Method",
        "Versions",
    ):
        assert heading in own


def test_the_report_says_why_a_forecast_is_not_given_and_what_was_simulated(report: Path) -> None:
    own = re.sub(r"<script>.*?</script>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = re.sub(r"<[^>]*>|\s+", " ", own)  # seven budgets, each twice the one before: the longest reach is 8x
    assert re.search(r"forecast at 10x +80e6 +not given +no budget lies 10 times above 4 others", words)
    assert re.search(r"forecast at 2x +16e6 +\d+\.\d % \[", words)
    for said in ("every earlier forecast of its reach or less", "a step beyond the largest budget", "forecasting.md"):
        assert said in words
    tasks = json.loads((report.parent / "curve.json").read_text())["tasks"]
    given = next(task["curves"][0] for task in tasks if task["task"] == "qa")
    assert [one["multiple"] for one in given["withheld"]] == [10.0]
    assert [one["multiple"] for one in given["forecast"]] == [2.0, 5.0]


def test_machines_get_json_and_csv_and_papers_get_pictures(report: Path) -> None:
    folder = report.parent
    curve = json.loads((folder / "curve.json").read_text())
    rows = list(csv.DictReader((folder / "curve.csv").open()))
    assert len(rows) == sum(len(task["checkpoints"]) for task in [*curve["tasks"], curve["macro"]])
    scratch = next(row for row in rows if row["kind"] == "scratch" and not row["control"] and row["task"] == "qa")
    assert 0 < float(scratch["score_low"]) < float(scratch["score"]) < float(scratch["score_high"]) < 1
    pictures = sorted(file.name for file in (folder / "figures").iterdir())
    assert {"qa-gap.png", "qa-gap.svg", "qa-score.png", "qa-score.svg", "qa-labels.svg", "qa-loss.png"} <= set(pictures)
    assert (folder / "figures" / "qa-gap.png").read_bytes()[:4] == b"\x89PNG"


def with_outside_reference(folder: Path) -> SimulatedStudy:
    """A study whose reference is of another architecture: two scratch baselines."""
    made = SimulatedStudy(folder)
    for kind, budget, score in (("raw", 0, 0.15), ("reference_scratch", None, 0.22), ("reference", None, 0.95)):
        made.add("qa", kind, budget, score)
    for budget, score in ((1_000_000, 0.5), (2_000_000, 0.7)):
        made.add("qa", "annealed", budget, score)
    return made


def test_both_scratch_baselines_are_drawn_each_with_a_dash_of_its_own(tmp_path: Path) -> None:
    (task,) = analyse(with_outside_reference(tmp_path).scores, draws=DRAWS).tasks
    chart = score_chart(task)
    assert chart is not None
    levels = {one["name"]: one for one in chart["data"] if len(set(one["y"])) == 1}
    assert set(levels) == {"scratch", "reference", "reference from scratch"}
    assert len({one["line"]["dash"] for one in levels.values()}) == 3
    assert levels["reference from scratch"]["y"][0] > levels["scratch"]["y"][0]
    assert [path.suffix for path in draw_chart(chart, tmp_path / "score")] == [".png", ".svg"]


def test_the_seeds_of_scratch_and_of_an_outside_reference_are_dots_too(tmp_path: Path) -> None:
    task = analyse(with_outside_reference(tmp_path).scores, draws=DRAWS).tasks[0]
    chart = score_chart(task)
    assert chart is not None
    dots = {trace["name"]: trace for trace in chart["data"] if "each seed" in trace["name"]}
    smallest = min(one.budget_tokens for one in task.checkpoints if one.budget_tokens)
    for role in ("scratch", "reference", "other"):
        assert len(dots[f"{role}: each seed"]["y"]) >= 3
        assert max(dots[f"{role}: each seed"]["x"]) < smallest
        assert "cell " in dots[f"{role}: each seed"]["text"][0]


def test_five_runs_are_told_apart_on_paper_too(tmp_path: Path) -> None:
    (task,) = (one for one in analyse(write_study(tmp_path, raw=False), draws=DRAWS).tasks if one.task == "qa")
    chart = run_chart([(f"run {number}", task) for number in range(5)])
    assert chart is not None
    lines = [one for one in chart["data"] if one["name"].startswith("run")]
    assert len({(one["line"]["dash"], one["marker"]["symbol"]) for one in lines}) == 5
    assert all(path.stat().st_size for path in draw_chart(chart, tmp_path / "runs"))


def test_a_task_named_like_markup_stays_text(tmp_path: Path) -> None:
    made = SimulatedStudy(tmp_path)
    name = "</script><script>alert(1)</script>"
    made.add(name, "raw", 0, 0.1)
    for budget in (1000, 2000, 4000):
        made.add(name, "annealed", budget, 0.1 + budget / 5000)
    page = write_report(analyse(made.scores, draws=DRAWS), tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 900, False), (390, 844, True)])
def test_the_page_lives_in_a_browser(report: Path, tmp_path: Path, width: int, height: int, dark: bool) -> None:
    with chromium(width=width, height=height, dark=dark) as driver:
        driver.get(report.as_uri())
        assert driver.execute_script("return document.querySelectorAll('.chart .main-svg').length") >= 8
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(20, 23, 26)" if dark else "rgb(253, 253, 252)")
        titles = {}
        for unit in ("tokens", "flops", "hours", "money"):
            driver.execute_script(
                "const s = document.getElementById('unit'); s.value = arguments[0];"
                "s.dispatchEvent(new Event('change'));",
                unit,
            )
            titles[unit] = driver.execute_script(
                "const c = document.getElementById('gap-0');"
                "return [c.layout.xaxis.title.text, Math.max(...c.data[1].x), c.querySelector('.xtitle').textContent]"
            )
        assert len({title[0] for title in titles.values()}) == 4
        assert titles["flops"][1] == pytest.approx(6.0e7 * titles["tokens"][1])
        assert titles["money"][2] == "pretraining cost"
        driver.execute_script(
            "const c = document.getElementById('score-0'); c.scrollIntoView({block: 'center'});"
            "Plotly.Fx.hover(c, [{curveNumber: c.data.findIndex(t => t.name.includes('each seed')), pointNumber: 0}]);"
        )
        hover = driver.execute_script("return document.querySelector('#score-0 .hoverlayer').textContent")
        assert "fine-tuning seed" in hover
        assert "cell" in hover
        assert picture(driver, tmp_path / "page.png").stat().st_size > 20_000
        assert driver.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_the_right_edge_of_every_table_can_be_seen(report: Path, width: int) -> None:
    """Beside the text at the width of a laptop; by scrolling the table alone on a phone."""
    with chromium(width=width, height=900) as driver:
        driver.get(report.as_uri())
        tables = driver.execute_script(
            """
            document.querySelectorAll("details").forEach(one => { one.open = true; });
            return [...document.querySelectorAll("table")].map(table => {
              const frame = table.parentElement, before = table.getBoundingClientRect();
              frame.scrollLeft = frame.scrollWidth;
              const after = table.getBoundingClientRect();
              return {header: table.tHead.innerText, left: before.left, right: before.right, scrolled: after.right,
                      frame: frame.getBoundingClientRect().right};
            });
            """
        )
        assert len(tables) >= 8
        for table in tables:
            assert table["left"] >= 0, table
            assert table["scrolled"] <= table["frame"] + 1 <= width + 1, table
            assert width < 1000 or table["right"] <= table["frame"] + 1, table
        assert width > 1000 or any(table["right"] > width for table in tables)  # or it shows nothing
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_tables_and_sections_say_what_they_are(report: Path) -> None:
    own = re.sub(r"<script>.*?</script>", "", report.read_text(encoding="utf-8"), flags=re.DOTALL)
    bodies = re.findall(r"<tbody>(.*?)</tbody>", own, flags=re.DOTALL)
    assert len(bodies) >= 8
    rows = [row for body in bodies for row in re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)]
    assert all(row.startswith('<th scope="row"') and row.count("<th") == 1 for row in rows)
    heads = "".join(re.findall(r"<thead>(.*?)</thead>", own, flags=re.DOTALL))
    assert heads.count("<th ") == heads.count('<th scope="col"') > 20
    assert re.findall(r'<a href="#(section-\d+)"', own) == re.findall(r'<h2 id="(section-\d+)"', own)
    assert re.search(r'<body>\s*<a class="skip" href="#results">', own)
    assert own.count('id="results"') == 1


def press_enter(driver, link):
    """As a keyboard does: the driver's own send_keys refuses a link that is unseen until it has the focus."""
    from selenium.webdriver import ActionChains, Keys

    driver.execute_script("arguments[0].focus()", link)
    ActionChains(driver).send_keys(Keys.ENTER).perform()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_read_by_keyboard(report: Path, width: int) -> None:
    """Every stop of the Tab key is seen, in the order of the page, and what scrolls can be scrolled."""
    with chromium(width=width, height=844) as driver:
        from selenium.webdriver.common.keys import Keys

        driver.get(report.as_uri())
        stops = []
        for _ in range(80):
            driver.switch_to.active_element.send_keys(Keys.TAB)
            stop = driver.execute_script(
                """
                const one = document.activeElement, box = one.getBoundingClientRect();
                const bar = document.querySelector(".bar"), edge = bar.getBoundingClientRect().bottom;
                const covered = !bar.contains(one) && !one.matches(".skip") && box.bottom <= edge;
                return {name: one.tagName, text: one.id || one.className || one.textContent.slice(0, 30),
                        top: box.top + scrollY, wide: one.scrollWidth > one.clientWidth,
                        outline: getComputedStyle(one).outlineStyle,
                        seen: !covered && box.bottom > 0 && box.top < innerHeight && box.left >= 0};
                """
            )
            if stop["name"] == "BODY":
                break
            stops.append(stop)
        assert [stop["text"] for stop in stops[:3]] == ["skip", "unit", "theme"]
        assert [stop for stop in stops if not stop["seen"] or stop["outline"] == "none"] == []
        flow = [stop["top"] for stop in stops[3:]]
        assert flow == sorted(flow)
        assert all(stop["wide"] for stop in stops if stop["text"] == "scroll")
        assert {"A", "SUMMARY"} <= {stop["name"] for stop in stops}
        assert ("scroll" in {stop["text"] for stop in stops}) or width > 1000
        press_enter(driver, driver.find_element("css selector", ".skip"))
        assert driver.execute_script("return document.activeElement.id") == "results"
        press_enter(driver, driver.find_elements("css selector", "nav a")[-1])
        free = "document.querySelector(location.hash).getBoundingClientRect().top >= arguments[0].bottom"
        bar = driver.execute_script("return document.querySelector('.bar').getBoundingClientRect().toJSON()")
        assert driver.execute_script(f"return {free}", bar), "the bar covers the heading that a link leads to"


@pytest.mark.slow
def test_a_legend_of_four_lines_leaves_the_axis_title_free_on_a_phone(tmp_path: Path) -> None:
    page = write_report(analyse(with_outside_reference(tmp_path).scores, draws=DRAWS), tmp_path)
    with chromium(width=390, height=844) as driver:
        driver.get(page.as_uri())
        title, legend = (
            driver.execute_script(f"return document.querySelector('#score-0 {name}').getBoundingClientRect()")
            for name in (".xtitle", ".legend")
        )
        assert title["bottom"] < legend["top"]
