"""Reports as people see and use them: in a real browser, on a screen and on a phone."""

import json

import pytest
import recorded_results
from chromium import NoBrowser, browser, chromium

pytestmark = pytest.mark.skipif(browser() is None, reason="no Chromium: no page is looked at")
WIDTHS = (1300, 390)

# What is wider than the page, except in the box of a table, which scrolls by itself.
OVERFLOW = """
[...document.querySelectorAll('body *:not(.wide *)')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))
"""
# Texts that are cut off, by their cell or by their drawing, and numbers of an axis that touch.
CLIPPED = """
(() => {
  const found = [];
  const apart = (a, b) => a.right < b.left || b.right < a.left || a.bottom < b.top + 4
    || b.bottom < a.top + 4;
  for (const cell of document.querySelectorAll('th, td, p, li, figcaption'))
    if (cell.scrollWidth > cell.clientWidth + 1) found.push(cell.textContent);
  for (const svg of document.querySelectorAll('figure svg')) {
    const box = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll('text')];
    for (const text of texts) {
      const own = text.getBoundingClientRect();
      if (own.left < box.left - 1 || own.right > box.right + 1 || own.bottom > box.bottom + 1
        || own.top < box.top - 1) found.push(text.textContent);
    }
    if (svg.matches('.panel svg')) texts.forEach((a, i) => texts.slice(i + 1).forEach(b => {
      if (!apart(a.getBoundingClientRect(), b.getBoundingClientRect()))
        found.push(a.textContent + ' on ' + b.textContent);
    }));
  }
  return found;
})()
"""
# The least contrast of texts to their background, and of the shapes of files to the page.
CONTRAST = """
(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const paper = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.querySelectorAll('body *:not(script)')].filter(e =>
    e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const words = texts.map(e => ratio(paper(e),
    getComputedStyle(e)[e instanceof SVGElement ? 'fill' : 'color']));
  const shapes = [...document.querySelectorAll('.mark .shape')].map(e => {
    const style = getComputedStyle(e);
    return Math.max(ratio(paper(e), style.fill), ratio(paper(e), style.stroke));
  });
  return [Math.min(...words), Math.min(...shapes)];
})()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("reports")
    for kind in ("compress", "search", "prune"):
        (found / kind).mkdir()
        recorded_results.write_report(kind, found / kind)
    return found


@pytest.fixture(scope="module")
def page():
    try:
        with chromium() as found:
            yield found
    except NoBrowser as error:
        pytest.skip(f"Chromium does not run here: {error}")


def texts(page, selector):
    return page.value(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent.trim())"
    )


def seen(page, selector):
    """How many elements are visible."""
    return page.value(
        f"[...document.querySelectorAll({json.dumps(selector)})]"
        ".filter(e => e.checkVisibility() && e.getClientRects().length).length"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["compress", "search", "prune"])
def test_nothing_is_cut_off_and_all_is_legible(page, folder, kind, width):
    page.open(folder / kind / "report.html", width)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(OVERFLOW) == []
    assert page.value(CLIPPED) == []
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        words, shapes = page.value(CONTRAST)
        assert words >= 4.5
        assert shapes >= 3


def test_paper_is_white_whatever_the_screen_is(page, folder):
    page.open(folder / "compress" / "report.html", 800)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.send("Emulation.setEmulatedMedia", media="print", features=features)
    white = page.value("getComputedStyle(document.body).backgroundColor")
    words, shapes = page.value(CONTRAST)
    assert white == "rgb(255, 255, 255)"
    assert words >= 4.5
    assert shapes >= 3
    assert seen(page, ".controls") == seen(page, ".comparison") == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_names_of_rows_stay_in_sight_and_no_column_is_lost(page, folder, width):
    page.open(folder / "compress" / "report.html", width)
    moved = page.value("""
    [...document.querySelectorAll('.wide:has(tbody)')].map(box => {
      box.scrollLeft = 1e6;
      const row = box.querySelector('tbody tr'), own = box.getBoundingClientRect();
      const [first, last] = [row.firstElementChild, row.lastElementChild]
        .map(e => e.getBoundingClientRect());
      return [first.left - own.left, own.right - last.right];
    })""")
    assert len(moved) > 5
    for left, right in moved:
        assert 0 <= left <= 2
        assert -1 <= right <= 2


@pytest.mark.parametrize("width", WIDTHS)
def test_a_file_that_is_pointed_at_says_its_name_and_numbers(page, folder, width):
    page.open(folder / "compress" / "report.html", width)
    assert seen(page, ".tip") == 0
    page.move_to('.panel:last-child .mark[data-item="1"] .target')
    [tip] = texts(page, ".tip")
    assert tip.startswith("int8")
    assert "latency, ratio: 0.500x" in tip
    left, right = page.value(
        "(b => [b.left, b.right])(document.querySelector('.tip').getBoundingClientRect())"
    )
    assert 0 <= left < right <= width
    assert seen(page, ".mark.hot") == 2  # in both panels
    page.move_to("h1")
    assert seen(page, ".tip") == seen(page, ".mark.hot") == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_two_files_are_compared(page, folder, width):
    page.open(folder / "compress" / "report.html", width)
    page.click('.mark[data-item="1"] .target')
    assert "int8 is selected. Select another" in texts(page, ".comparison")[0]
    page.click('.panel:last-child .mark[data-item="2"] .target')
    cells = texts(page, ".comparison th, .comparison td")
    assert cells[:4] == ["compared", "int8", "original, float32", "the second to the first"]
    assert cells[8:12] == ["latency, ratio", "0.500x", "1.000x", "2.00 times"]
    page.click('.mark[data-item="0"] .target')  # instead of the first
    assert texts(page, ".comparison th")[1:3] == ["original, float32", "float16"]
    assert page.value("document.documentElement.scrollWidth") <= width


def test_files_are_looked_at_and_compared_by_keys_alone(page, folder):
    page.open(folder / "compress" / "report.html", 1300)
    assert page.value("document.querySelectorAll('.panel .mark[tabindex=\"0\"]').length") == 2
    page.value("document.querySelector('.mark[tabindex=\"0\"]').focus()")
    assert texts(page, ".tip strong") == ["int8"]  # the fastest
    page.press("Enter")
    page.press("ArrowRight")
    assert texts(page, ".tip strong") == ["float16"]
    page.press("Enter")
    assert texts(page, ".comparison th")[1:3] == ["int8", "float16"]
    page.press("Escape")
    assert seen(page, ".tip") == 0


def test_files_beyond_a_limit_are_hidden(page, folder):
    page.open(folder / "search" / "report.html", 1300)
    assert texts(page, "output") == ["8 of 8 files"]
    assert seen(page, ".mark") == 16
    for field, value in ((1, "0.85"), (0, "0.88")):
        page.value(
            f"(e => {{ e.value = {value}; e.dispatchEvent(new Event('input')); }})"
            f"(document.querySelector('input[data-field=\"{field}\"]'))"
        )
    assert texts(page, "output") == ["3 of 8 files"]  # of 4 as fast
    assert seen(page, ".mark") == 6
    assert seen(page, ".line") == 3  # what they decided, too
    page.value("document.querySelector('.controls').open = true")
    page.click(".controls button")
    assert seen(page, ".mark") == 16


def test_tables_are_sorted_by_their_titles(page, folder):
    page.open(folder / "search" / "report.html", 1300)
    column = "table.sorted tbody td:nth-child(2)"
    page.value(
        "[...document.querySelectorAll('table')].find(e => e.textContent.includes('decision'))"
        ".classList.add('sorted')"
    )
    assert len(texts(page, column)) > 3
    for name, order in (("ascending", 1), ("descending", -1)):
        page.click("table.sorted th:nth-child(2) button")
        shown = [float(text) for text in texts(page, column) if text]
        assert shown == sorted(shown)[::order]
        assert page.value("document.querySelector('[aria-sort]').ariaSort") == name
    page.click("table.sorted th:first-child button")
    names = texts(page, "table.sorted tbody th")
    assert names == sorted(names)


def test_without_the_script_all_is_there(page, folder):
    page.open(folder / "compress" / "report.html", 390, script=False)
    assert seen(page, ".mark") == 6
    assert seen(page, ".controls") == 0
    assert texts(page, ".mark title")[0]
    assert page.value(OVERFLOW) == []
    page.send("Emulation.setScriptExecutionDisabled", value=False)
