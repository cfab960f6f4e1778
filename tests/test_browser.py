"""The page in a browser: it fits a phone, sorts by mouse and keyboard, and asks for nothing."""

from __future__ import annotations

import shutil

import pytest
from pages import CLAIM, fill
from records import save

from dvbench.report.compare import compare
from dvbench.report.html import page
from dvbench.report.table import NONE

pytestmark = pytest.mark.slow
TAB, ENTER, SPACE = "\ue004", "\ue007", " "


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    results = fill(tmp_path_factory.mktemp("results"))
    save(results, run_id="bare", metrics=[], **{"method.basis": "bare"})
    return page(compare(results=results), [CLAIM])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, which says on its console whatever it does not like."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser: pip install selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("the page is tried in Chromium: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for word in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(params=[(360, 740), (1280, 900)], ids=["phone", "desktop"])
def opened(request, browser, text, tmp_path):
    """The page on a screen of that size, which a headless window cannot be by itself."""
    width, height = request.param
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    browser.get(path.as_uri())
    assert browser.execute_script("return innerWidth") == width
    yield browser
    assert browser.get_log("browser") == []


def column(browser, number):
    """Return the raw values of a column of the first table, and its heading's aria-sort."""
    return browser.execute_script(
        """const table = document.querySelector("table.sortable");
        const cells = [...table.querySelector("tbody.rows").rows].map((row) => row.cells[arguments[0]]);
        const head = table.querySelector(`button[data-column="${arguments[0]}"]`).closest("th");
        return [cells.map((cell) => cell.dataset.value ? Number(cell.dataset.value) : cell.innerText.trim()),
                head.getAttribute("aria-sort")];""",
        number,
    )


def button(browser, number):
    return browser.find_element("css selector", f"table.sortable button[data-column='{number}']")


def test_the_page_fits_its_screen_and_everything_in_it_has_a_size(opened):
    wide, height = opened.execute_script("return [document.documentElement.scrollWidth, document.body.scrollHeight]")
    assert wide <= opened.execute_script("return innerWidth")
    assert height > 1000
    sizes = opened.execute_script(
        """return [...document.querySelectorAll("svg, img")].filter((e) => e.closest("[hidden]") === null)
        .map((e) => e.getBoundingClientRect()).map((box) => [box.width, box.height, box.right])"""
    )
    assert len(sizes) > 10
    assert all(width > 5 and height > 5 for width, height, _ in sizes)
    plots = opened.execute_script(
        """return [...document.querySelectorAll(".plot, img")].map((e) => e.getBoundingClientRect().right)"""
    )
    assert all(right <= opened.execute_script("return innerWidth") for right in plots)


def test_clicking_a_heading_sorts_by_raw_value_both_ways_with_what_is_missing_last(opened):
    before, way = column(opened, 2)
    numbers = [value for value in before if value != NONE]
    assert (len(numbers), len(before), way) == (3, 4, "none")
    button(opened, 2).click()
    assert column(opened, 2) == [[*sorted(numbers), NONE], "ascending"]
    button(opened, 2).click()
    assert column(opened, 2) == [[*sorted(numbers, reverse=True), NONE], "descending"]
    assert sorted(numbers) != sorted(numbers, key=str)  # so that they were sorted as numbers
    button(opened, 0).click()
    names, way = column(opened, 0)
    assert ([name.split()[0] for name in names], way) == (["bare", "dct", "DDPM", "haar"], "ascending")
    assert column(opened, 2)[1] == "none"


def test_the_keyboard_sorts_too(opened):
    before, _ = column(opened, 3)
    numbers = [value for value in before if value != NONE]
    opened.execute_script("arguments[0].focus()", button(opened, 2))
    opened.switch_to.active_element.send_keys(TAB)
    assert opened.switch_to.active_element == button(opened, 3)
    opened.switch_to.active_element.send_keys(ENTER)
    assert column(opened, 3) == [[*sorted(numbers), NONE], "ascending"]
    opened.switch_to.active_element.send_keys(SPACE)
    assert column(opened, 3) == [[*sorted(numbers, reverse=True), NONE], "descending"]


def test_another_metric_shows_its_own_plots(opened):
    def seen():
        return opened.execute_script(
            """return [...document.querySelectorAll("[data-metric]")].filter((e) => e.offsetHeight > 0)
            .map((e) => e.dataset.metric)"""
        )

    assert seen() == ["FD (lite0)", "FD (lite0)"]  # of both benchmarks
    opened.find_element("css selector", "select").send_keys("recall")
    assert seen() == ["recall (lite0)", "FD (lite0)"]


def test_the_page_requests_nothing_but_itself(opened):
    entries = opened.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in entries if not name.startswith("data:")] == []
