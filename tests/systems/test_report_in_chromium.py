"""The report in a real browser: quiet, offline, readable, usable by keyboard, in every colour."""

import os
import runpy
import shutil
from pathlib import Path

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from pipeline.reporting import report

SAMPLES = runpy.run_path(str(Path(__file__).parents[1] / "report_samples.py"))
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 800}
AA_TEXT, AA_GRAPHICS = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11
MIN_TARGET_PX = 24  # WCAG 2.2, 2.5.8

# Colours as the browser computes them, so that light-dark() is resolved.
CONTRAST = """([front, back]) => {
  const probe = document.createElement("span");
  document.body.append(probe);
  const luminance = token => {
    probe.style.color = `var(${token})`;
    const rgb = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const [r, g, b] = rgb.map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [luminance(front), luminance(back)].sort((x, y) => y - x);
  probe.remove();
  return (a + 0.05) / (b + 0.05);
}"""
FOCUSED = """() => {
  const e = document.activeElement;
  const ring = e.matches("input") ? e.nextElementSibling : e;
  const style = getComputedStyle(ring);
  const box = ring.getBoundingClientRect();
  return {
    key: [...document.querySelectorAll("*")].indexOf(e), tag: e.tagName,
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    onScreen: box.width > 0 && box.bottom > 0 && box.top < innerHeight
      && box.right > 0 && box.left < innerWidth,
  };
}"""
# A group of radio buttons is one stop; what lies in a closed <details> is none.
INTERACTIVE = """() => {
  const all = [...document.querySelectorAll("*")];
  return all.filter(e => e.matches("a[href], summary, input:checked, [tabindex='0']")
    && e.checkVisibility()).map(e => all.indexOf(e));
}"""
OVERFLOWING = """() => [...document.querySelectorAll("main *")].filter(e => {
  if (e.closest(".scroll, .hidden, svg, thead") !== null) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.outerHTML.slice(0, 120))"""
CUT_TEXT = """() => [...document.querySelectorAll("svg.chart")].flatMap(chart => {
  const frame = chart.getBoundingClientRect();
  return [...chart.querySelectorAll("text")].filter(t => {
    const box = t.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(t => `${chart.querySelector("title").textContent}: ${t.textContent}`);
})"""
TEXT_THAT_TOUCHES = """() => [...document.querySelectorAll("svg.chart")].flatMap(chart => {
  const found = [...chart.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()]);
  return found.flatMap(([t, a], i) => found.slice(i + 1).filter(([, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3
  ).map(([u]) => `${chart.id} ${t.textContent}, ${u.textContent}`));
})"""


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is absent; scripts/setup-systems installs it")
    # Chromium's sandbox refuses to run as root, as in a container
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def write(root, answers):
    sources = SAMPLES["write_evidence"](root / "evidence", answers)
    agreements = SAMPLES["write_agreements"](root, answers)
    made = report.Report(
        model="doorbell", answers=answers, stages=SAMPLES["STAGES"], agreements=agreements
    )
    report.write(made, root, sources)
    return root / "report.html"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"), SAMPLES["all_shapes"]())


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hostile"), (SAMPLES["hostile"](),))


class Opened:
    """A page with all that it said and asked for."""

    def __init__(self, browser, path, viewport, scheme):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.said, self.requested = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def open_page(chromium, path):
    opened = []

    def make(viewport=WIDE, scheme="light", path=path):
        opened.append(Opened(chromium, path, viewport, scheme))
        return opened[-1]

    yield make
    for each in opened:
        each.context.close()


def open_all(page):
    """Open every <details>, so that what it holds is looked at too."""
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")


def test_a_strict_parser_finds_no_error(path):
    parser = html5lib.HTMLParser()
    parser.parse(path.read_text(encoding="utf-8"))
    assert parser.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_says_nothing_on_the_console_and_asks_the_network_for_nothing(open_page, path, scheme):
    opened = open_page(scheme=scheme)
    open_all(opened.page)
    opened.page.wait_for_load_state("networkidle")
    assert opened.said == []
    assert opened.requested == [path.as_uri()]


def test_names_from_outside_start_nothing(open_page, hostile_path):
    opened = open_page(path=hostile_path)
    open_all(opened.page)
    assert opened.said == []
    assert opened.requested == [hostile_path.as_uri()]
    assert opened.page.locator("script").count() == 0
    assert "<script>alert(1)</script>" in opened.page.locator("main").inner_text()


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_runs_out_of_the_page(open_page, viewport):
    page = open_page(viewport).page
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_text_in_a_chart_is_cut_or_touches_another(open_page, viewport):
    page = open_page(viewport).page
    assert page.evaluate(CUT_TEXT) == []
    assert page.evaluate(TEXT_THAT_TOUCHES) == []


def test_what_ships_on_three_targets_is_seen_without_scrolling(open_page, tmp_path):
    answers = (SAMPLES["many"]("a"), SAMPLES["estimated"]("b"), SAMPLES["built"]("c"))
    page = open_page(path=write(tmp_path, answers)).page
    artifacts = page.locator(".answer .artifact")
    assert artifacts.count() == 3
    for index, shown in enumerate(("pruned int8-static", "dense int8-static", "dense int8-static")):
        assert " ".join(artifacts.nth(index).inner_text().split()) == shown
        box = artifacts.nth(index).bounding_box()
        assert box["y"] + box["height"] < WIDE["height"]
        assert artifacts.nth(index).evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 20
    badges = page.locator(".answer .badge").all_inner_texts()
    assert badges == ["measured", "estimated", "built"]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_tab_reaches_everything_interactive_with_a_visible_focus(open_page, viewport):
    page = open_page(viewport).page
    page.emulate_media(reduced_motion="reduce")  # else the page is still on its way
    wanted = page.evaluate(INTERACTIVE)
    assert len(wanted) > 50
    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        assert found["outline"] >= 2, found
        assert found["onScreen"], found
        reached.append(found["key"])
    assert reached == wanted, "in the order of the page, none twice"


def test_the_first_stop_skips_to_the_answer(open_page):
    page = open_page().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    page.keyboard.press("Enter")
    assert page.url.endswith("#answer")


def test_tables_beside_charts_open_by_keyboard(open_page):
    page = open_page().page
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open] table").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_no_barrier(open_page, viewport, scheme):
    page = open_page(viewport, scheme).page
    open_all(page)
    result = Axe().run(page)
    assert result.violations_count == 0, result.generate_report()
    checked = {rule["id"] for rule in result.response["passes"]}
    rules = {"color-contrast", "heading-order", "svg-img-alt", "landmark-one-main", "region"}
    assert rules <= checked, "these rules had something to judge"


TEXT = ("--ink", "--muted", "--accent", "--good", "--warn", "--bad")
GROUNDS = ("--page", "--surface", "--raised", "--good-soft")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_and_of_marks_has_contrast(open_page, scheme):
    page = open_page(scheme=scheme).page
    for front in TEXT:
        for back in GROUNDS:
            assert page.evaluate(CONTRAST, [front, back]) >= AA_TEXT, (front, back)
    for index in range(1, 7):
        assert page.evaluate(CONTRAST, [f"--series-{index}", "--surface"]) >= AA_GRAPHICS


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_follows_the_system_and_can_be_chosen(open_page):
    light, dark = open_page(scheme="light").page, open_page(scheme="dark").page
    assert background(light) != background(dark)
    expected = background(dark)
    light.get_by_text("Dark", exact=True).click()
    assert background(light) == expected
    dark.get_by_text("Light", exact=True).click()
    dark.keyboard.press("ArrowRight")
    assert background(dark) == expected, "by the arrow keys too"


def test_what_can_be_pressed_is_large_enough(open_page):
    page = open_page(PHONE).page
    for element in page.locator("summary, .theme label, .contents a").all():
        assert element.bounding_box()["height"] >= MIN_TARGET_PX, element.inner_text()


PICTURES = {
    "Throughput against batch: pruned, int8-static": ".rate",
    "Energy against latency, metered (rail)": ".mark",
    "Energy against latency, modelled": ".modelled .mark",
    "Roofline of Raspberry Pi 5, measured": ".roof",
    "Roofline of Arm Ethos-U55-128, estimated": ".roof",
    "Layer by layer: pruned, int8-static against dense, fp32": ".bar",
    "Layer by layer: dense, int8-static": ".bar",
}
FILL = "e => getComputedStyle(e).fill"


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_picture_of_a_measurement_is_drawn_with_its_table_below(open_page, viewport):
    page = open_page(viewport).page
    for title, parts in PICTURES.items():
        heading = page.get_by_role("heading", name=title, exact=True)
        figure = page.locator("figure").filter(has=heading)
        assert figure.count() == 1, title
        frame = figure.locator("svg.chart").bounding_box()
        assert frame["width"] > 200, title
        drawn = figure.locator(f"svg.chart {parts}")
        assert drawn.count() >= 1, title
        for part in drawn.all():
            box = part.bounding_box()
            assert box["x"] >= frame["x"] - 1, title
            assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1, title
        figure.locator("summary").click()
        assert figure.locator("details[open] table tbody tr").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reference_and_what_is_modelled_are_hollow(open_page, scheme):
    page = open_page(scheme=scheme).page
    surface = page.locator("figure").first.evaluate("e => getComputedStyle(e).backgroundColor")
    for hollow in ("svg.chart .modelled .mark", "svg.chart .bar.outlined", ".legend .modelled g"):
        assert page.locator(hollow).first.evaluate(FILL) == surface, hollow
    for filled in ("svg.chart > g > .mark.ships", "svg.chart g > .bar:not(.outlined)"):
        assert page.locator(filled).first.evaluate(FILL) != surface, filled


def test_print_keeps_the_answer_and_the_evidence_on_white_paper(open_page):
    page = open_page(scheme="dark").page
    page.emulate_media(media="print")
    for needed in ("h1", ".answer", "figure svg.chart", ".data", ".refusals", "#lineage svg"):
        for element in page.locator(needed).all():
            if not element.evaluate("e => e.closest('details') !== null"):
                assert element.is_visible(), needed
    for screen_only in (".theme", ".contents", "summary"):
        assert not page.locator(screen_only).first.is_visible()
    assert page.evaluate(CONTRAST, ["--ink", "--surface"]) > 12
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_motion_stops_for_those_who_ask(open_page):
    page = open_page().page
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(behaviour) == "smooth"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(behaviour) == "auto"
