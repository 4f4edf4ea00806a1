"""report.html in a real browser, without a network: curves, legend, hover, a phone's width, hostile names.

Needs playwright (in the `dev` extra) and a Chromium of the system: `apt-get install chromium`, or another browser of
its kind whose path stands in $LOTTERYFW_CHROMIUM.
"""

import csv
import os
import shutil
from dataclasses import replace

import pytest
from support.fake_runs import CLAIM, EVIL, A, B, curves, fake_run, finding, measured, row

from lotteryfw.report import write_page

api = pytest.importorskip(
    "playwright.sync_api", reason='playwright is missing: pip install "lotteryfw[dev]"'
)
CHROMIUM = os.environ.get("LOTTERYFW_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium here: `apt-get install chromium`, or name one in $LOTTERYFW_CHROMIUM",
    ),
]

LONG = {"criterion": "random", "mask1": "constant(keep_sign=false, rescale=true)"}
PHONE, DESK = {"width": 375, "height": 800}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as play:
        # Chromium's own sandbox refuses to work for root, as which containers often run
        started = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    rows = curves("criteria", [A, B], seeds=range(5), levels=12)
    rows += curves(
        "controls",
        [LONG, {**LONG, "criterion": "movement"}],
        variants=("ticket", "reinit"),
        levels=24,
    )
    rows += curves(
        "hostile",
        [{"criterion": EVIL}, {"criterion": "<img src=x onerror=document.title='broken in'>"}],
    )
    folder = fake_run(
        tmp_path_factory.mktemp("page") / "run", rows, [CLAIM, {**CLAIM, "text": EVIL}]
    )
    folder.write_manifest(
        folder.read_manifest()
        | {"title": f"Tickets {EVIL}", "versions": {"torch": "9.9.9", "a<b>|c": "1\n2"}}
    )
    folder.write_curves(measured(rows))
    folder.write_findings(findings_of(rows))
    return write_page(folder).as_uri()


def findings_of(rows):
    """An analysis of one study: numbers, pairs of cells and samples of weights."""
    level_rows = [level_row for level_row in rows if level_row.study == "criteria"]
    lines = [
        finding(level_row, f"edges.{name}", level_row.density)
        for name in ("dying", "turnover")
        for level_row in level_rows
    ]
    first, other = (
        next(
            level_row for level_row in level_rows if level_row.axes == axes and level_row.level == 1
        )
        for axes in (A, B)
    )
    lines += [finding(first, "overlap.overlap", 0.5, against=other.cell)]
    for role in ("before", "after"):
        lines.append(finding(first, f"scatter.{role}", [0.1, 0.9], layer="fc1", role=role))
    return [*lines, finding(first, "scatter.mask", [0.0, 1.0], layer="fc1", role="kept")]


@pytest.fixture
def opened(browser, address):
    """Opens the page offline at a size; whatever it asks for or complains of fails the test."""
    contexts, troubles = [], []

    def open_page(size, **options):
        context = browser.new_context(viewport=size, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console",
            lambda message: troubles.append(message.text) if message.type == "error" else None,
        )
        page.on("request", lambda request: troubles.extend(elsewhere(request.url, address)))
        page.goto(address)
        page.wait_for_selector(".chart:last-of-type .legend")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def elsewhere(url, address):
    """The address of a request that leaves the page; what a button saves is made in the page."""
    return [] if url == address or url.startswith(("blob:", "data:")) else [url]


def chart(page, key):
    return page.locator(f'.chart[data-chart="{key}"]')


def lines(figure, name):
    """How many curves of that name are drawn and seen."""
    groups = figure.locator(".plot").evaluate(
        "plot => plot._fullData.filter(trace => trace.visible === true).map(trace => trace.legendgroup)"
    )
    return groups.count(name)


def eventually(page, condition):
    """Waits in Python: the page's security policy forbids the evaluation that the browser's own waiting needs."""
    for _ in range(50):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not happen in 5 s")


def test_every_chart_is_drawn(opened):
    page = opened(DESK)
    assert page.title() == f"Tickets {EVIL} · lotteryfw"
    assert page.locator(".chart").count() == page.locator(".chart .plotly").count() == 13
    assert page.locator(".badge.supported").first.is_visible()
    assert (
        chart(page, "criteria/analysis/overlap/pairs").locator(".heatmaplayer image").count() == 1
    )
    assert chart(page, "criteria/weights").locator(".scatterlayer .points path").count() == 2
    assert (
        chart(page, "criteria/analysis/edges/accuracy")
        .locator(".scatterlayer .points path")
        .count()
        == 2 * 5 * 13
    )
    curves = [
        chart
        for chart in page.locator(".chart").all()
        if chart.locator(".scatterlayer .js-line").count()
    ]
    assert len(curves) == 11
    for figure in curves:
        assert figure.locator(".g-xtitle").text_content()
        assert figure.locator(".g-ytitle").text_content()


def test_a_click_in_the_legend_hides_curve_and_band_and_another_shows_them(opened):
    figure = chart(opened(DESK), "criteria/accuracy")
    entry = figure.locator(".legend .traces").filter(has_text="b (n = 5)").locator(".legendtoggle")
    assert lines(figure, "b") == 2  # the curve and its band
    entry.click()
    eventually(figure.page, lambda: lines(figure, "b") == 0)
    assert lines(figure, "a") == 2
    entry.click()
    eventually(figure.page, lambda: lines(figure, "b") == 2)


def test_pointing_at_a_curve_tells_its_figures(opened):
    figure = chart(opened(DESK), "criteria/accuracy")
    figure.scroll_into_view_if_needed()
    figure.locator(".scatterlayer .trace .points path").nth(3).hover(force=True)
    tooltip = figure.locator(".hoverlayer .hovertext").first
    tooltip.wait_for()
    text = tooltip.text_content()
    assert text.startswith(("a", "b"))
    assert "51.2 % of the weights, level 3" in text
    assert "(mean ± sd, n = 5)" in text
    assert "95 % interval" in text


def test_an_analysis_has_a_chart_whose_views_and_points_tell_its_figures(opened):
    figure = chart(opened(DESK), "criteria/analysis/edges")
    figure.scroll_into_view_if_needed()
    assert figure.locator(".g-ytitle").text_content() == "dying (%)"
    figure.locator("select").select_option(label="turnover (%)")
    eventually(figure.page, lambda: figure.locator(".g-ytitle").text_content() == "turnover (%)")
    figure.locator(".scatterlayer .trace .points path").nth(3).hover(force=True)
    tooltip = figure.locator(".hoverlayer .hovertext").first
    tooltip.wait_for()
    assert "51.2 % of the weights, level 3" in tooltip.text_content()
    assert "51.20 ± 0.00 % (mean ± sd, n = 5)" in tooltip.text_content()


def test_another_view_is_chosen_and_what_was_hidden_stays_hidden(opened):
    figure = chart(opened(DESK), "criteria/accuracy")
    figure.locator(".legend .traces").filter(has_text="b (n = 5)").locator(".legendtoggle").click()
    eventually(figure.page, lambda: lines(figure, "b") == 0)
    figure.locator("select").select_option(label="validation accuracy (%)")
    assert figure.locator(".g-ytitle").text_content() == "validation accuracy (%)"
    assert (lines(figure, "a"), lines(figure, "b")) == (2, 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_only(opened, scheme):
    page = opened(PHONE, is_mobile=True, has_touch=True, color_scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    for table in page.locator(".scroll").all():
        assert table.bounding_box()["width"] <= 375
    for figure in page.locator(".chart").all():  # a long name must not press the curves together
        assert figure.locator(".plot .nsewdrag").bounding_box()["width"] > 200
        assert figure.locator(".plot .nsewdrag").bounding_box()["height"] > 180
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")


def test_a_turned_phone_gets_the_wide_layout(opened):
    page = opened(PHONE)
    plot = chart(page, "controls/accuracy").locator(".plot")
    below = plot.evaluate("plot => plot.layout.legend.y === 0")
    page.set_viewport_size(DESK)
    eventually(page, lambda: plot.evaluate("plot => plot.layout.legend.y === 1"))
    assert below
    assert page.evaluate("document.documentElement.scrollWidth") == DESK["width"]


def test_no_button_sends_a_chart_away(opened):
    figure = chart(opened(DESK), "criteria/accuracy")
    figure.locator(".nsewdrag").hover()
    buttons = [
        button.get_attribute("data-title") for button in figure.locator(".modebar-btn").all()
    ]
    assert buttons == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"]


def test_the_bar_of_buttons_leaves_the_legend_alone(opened):
    figure = chart(opened(DESK), "controls/accuracy")
    figure.locator(".nsewdrag").hover()
    bar, legend = (
        figure.locator(selector).bounding_box() for selector in (".modebar-group", ".legend")
    )
    assert bar["y"] + bar["height"] <= legend["y"]


def test_names_are_text_in_the_charts_too(opened):
    page = opened(DESK)
    figure = chart(page, "hostile/accuracy")
    assert "<img src=x onerror" in figure.locator(".legend").text_content()
    assert page.locator("img").count() == 0
    assert page.title().startswith("Tickets ")


# No text over another and none cut, at any width and on paper

FAULTS = """() => {
  const faults = [], box = element => element.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  if (document.documentElement.scrollWidth > innerWidth) faults.push('the page is wider than its window');
  for (const figure of document.querySelectorAll('.chart')) {
    const plot = box(figure.querySelector('.plot')), area = box(figure.querySelector('.nsewdrag'));
    const ticks = '.xtick text, .ytick text, .y2tick text', titles = '.g-xtitle text, .g-ytitle text, .g-y2title text';
    const texts = [...figure.querySelectorAll(`${ticks}, ${titles}, .legendtext`)]
      .filter(text => box(text).width);
    texts.forEach((text, index) => {
      const one = box(text), name = `${figure.dataset.chart}: ${text.textContent}`;
      if (one.left < plot.left - 1 || one.right > plot.right + 1 || one.top < plot.top - 1 || one.bottom > plot.bottom + 1)
        faults.push(`cut: ${name}`);
      for (const other of texts.slice(index + 1)) if (meet(one, box(other))) faults.push(`${name} over ${other.textContent}`);
      if (text.matches('.legendtext') && meet(one, area)) faults.push(`over the curves: ${name}`);
    });
  }
  for (const cell of document.querySelectorAll('th, td')) {
    if (cell.scrollWidth > cell.clientWidth + 1 || box(cell).right > innerWidth + 1) faults.push(`cut: ${cell.textContent}`);
  }
  for (const region of document.querySelectorAll('.scroll:has(table)')) {
    if (region.scrollWidth > region.clientWidth + 1) faults.push(`must be scrolled: ${region.getAttribute('aria-label')}`);
  }
  for (const bar of document.querySelectorAll('.legend .scrollbar')) {
    if (box(bar).height > 1) faults.push(`a legend must be scrolled: ${bar.closest('.chart').dataset.chart}`);
  }
  return faults;
}"""
CRITERIA = ("large_final", "small_final", "large_init", "small_init", "large_init_large_final",
            "small_init_small_final", "magnitude_increase", "movement", "random")  # fmt: skip


ACTIONS = (
    "rewind",
    "reinit",
    "reinit(keep_sign=false)",
    "reinit_empirical(keep_sign=false)",
    "constant",
)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A page of studies with 8, 12 and 25 levels, of nine series each, and one of 15 long names."""
    rows = []
    for levels in (8, 12, 25):
        combinations = [{"criterion": name} for name in CRITERIA]
        rows += curves(f"study{levels}", combinations, levels=levels)
    actions = [{"mask1": name} for name in ACTIONS]
    rows += curves("controls", actions, variants=("ticket", "random_mask", "reinit"), levels=12)
    steps = [
        {"rewind.step": f"{step}it"} for step in (0, 30, 100, 500, 600, 1000, 2000, 2100, 5000)
    ]
    rewound = curves("rewound", steps, variants=("ticket", "reinit"), levels=8)
    rows += rewound
    layered = []
    for level_row in rows:
        density = level_row.density
        layered.append(
            replace(level_row, layer_densities=f"fc1={density:.6g};fc2={density**0.5:.6g}")
        )
    folder = fake_run(tmp_path_factory.mktemp("large") / "run", layered)
    folder.write_curves(measured(layered))
    lines = []
    for level_row in rewound:
        error = 1 - (level_row.test_accuracy or 0.0)
        lines.append(finding(level_row, "line_between_networks.error_barrier", error / 10))
        lines.append(
            finding(level_row, "line_between_networks.alpha", [0.0, 0.5, 1.0], role="along")
        )
        lines.append(finding(level_row, "line_between_networks.error", [error, 1.2 * error, error]))
    folder.write_findings(lines)
    return write_page(folder).as_uri()


def opened_at(browser, address, width, scheme="light"):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".chart:last-of-type .legend")
    return page


@pytest.mark.large
@pytest.mark.parametrize("width", [1400, 800, 400])
def test_no_text_lies_over_another_or_is_cut(browser, large, width):
    page = opened_at(browser, large, width, "dark" if width == 800 else "light")
    for summary in page.locator("details.tickets > summary").all():
        summary.click()
    page.wait_for_timeout(200)
    assert page.evaluate(FAULTS) == []
    page.context.close()


@pytest.mark.large
def test_a_figure_of_an_analysis_has_the_accuracy_in_a_panel_below(browser, large):
    page = opened_at(browser, large, 1400)
    figure = chart(page, "rewound/analysis/line_between_networks/rewind.step")
    assert figure.locator(".g-ytitle").text_content() == "error barrier (%)"
    assert figure.locator(".g-y2title").text_content() == "test accuracy (%)"
    assert figure.locator(".legendtext").count() == 2
    with page.expect_download() as saving:
        figure.locator(".save button", has_text="CSV").click()
    with open(saving.value.path(), encoding="utf-8") as file:
        table = file.read().splitlines()
    assert table[0] == "series,rewind step,error barrier (%),test accuracy (%)"
    assert table[1].startswith("ticket (n = 3),0it,")
    assert table[1].endswith(",")  # the accuracies have rows of their own
    along = chart(page, "rewound/analysis/line_between_networks/along")
    assert along.locator(".g-xtitle").text_content() == "alpha"
    page.context.close()


@pytest.mark.large
def test_a_table_that_is_too_wide_is_wrapped_with_its_heads(browser, large):
    page = opened_at(browser, large, 400)
    tables = page.locator("#study-1 .wrapped table[data-levels]")
    cells = tables.first.locator("tbody tr").first.locator("td")
    heads = cells.evaluate_all("cells => cells.map(cell => cell.dataset.head)")
    assert heads[:3] == ["100 %", "80 %", "64 %"]
    assert len(heads) == 9
    with page.expect_download() as saving:  # the file has what the table had
        tables.first.locator("xpath=../following-sibling::p[1]/button[text()='CSV']").click()
    with open(saving.value.path(), encoding="utf-8") as file:
        assert file.readline().startswith('"weights remaining, %",100,80,64,')
    page.set_viewport_size({"width": 1400, "height": 900})
    eventually(page, lambda: tables.count() == 0)
    page.context.close()


@pytest.mark.large
def test_on_paper_every_level_and_series_is_there_in_light_colours(browser, large):
    page = opened_at(browser, large, 1400, "dark")
    page.set_viewport_size({"width": 690, "height": 900})  # A4 between its margins
    page.emulate_media(media="print")
    plots = page.locator(".plot")
    eventually(page, lambda: plots.first.evaluate("plot => plot.layout.width === 660"))
    assert page.evaluate(FAULTS) == []
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 40)"
    assert not page.locator("select").first.is_visible()
    assert not page.locator(".note .screen").first.is_visible()
    # no room is kept that the charts do not take: two of them fit a page
    heights = page.locator(".chart").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert max(heights[:3]) < 500
    # the tables of levels are folded on a screen
    folded = page.locator("details.tickets")
    assert folded.evaluate_all("all => all.every(details => details.open)")
    widest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('table')].map(table => table.getBoundingClientRect().right))"
    )
    assert widest <= 690
    page.emulate_media(media="screen")
    eventually(page, lambda: folded.evaluate_all("all => all.every(details => !details.open)"))
    page.context.close()


@pytest.mark.large
def test_paper_has_no_heading_at_the_foot_of_a_page(browser, large):
    page = opened_at(browser, large, 1400)
    page.emulate_media(media="print")
    breaks = page.locator("h2, h3, summary, caption").evaluate_all(
        "all => all.map(element => getComputedStyle(element).breakAfter)"
    )
    assert set(breaks) == {"avoid"}
    page.context.close()


@pytest.mark.parametrize(
    ("kind", "start"),
    [("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("CSV", b"series,weights remaining (%),")],
)
def test_a_chart_is_saved_by_one_click(opened, kind, start):
    figure = chart(opened(DESK), "criteria/accuracy")
    with figure.page.expect_download() as saving:
        figure.locator(".save button", has_text=kind).click()
    assert saving.value.suggested_filename == f"criteria-accuracy.{kind.lower()}"
    with open(saving.value.path(), "rb") as file:
        assert file.read(100).startswith(start)


QUOTED = {"criterion": "a<b", "mask1": 'y & "z" of a name that is long'}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A page of log-spaced errors, of dots by variant, and of figures against twelve steps."""
    rows = []
    for axes in (QUOTED, {"criterion": "b", "mask1": "x"}):
        for level, accuracy in enumerate((0.99, 1.0, 0.976645, 0.2)):
            rows.append(row(axes, accuracy, study="spaced", level=level, density=0.5**level))
        for variant in ("ticket", "reinit"):
            rows.append(row(axes, 0.9, study="dots", variant=variant, level=1, density=0.5))
    for step in range(0, 1200, 100):
        for level in (0, 1):
            axes = {"rewind.step": f"{step}it"}
            rows.append(row(axes, 0.8, study="steps", level=level, density=0.5**level))
    return write_page(fake_run(tmp_path_factory.mktemp("exported") / "run", rows)).as_uri()


def saved_rows(page, key):
    """Return the rows of a chart's CSV file."""
    with page.expect_download() as saving:
        chart(page, key).locator(".save button", has_text="CSV").click()
    with open(saving.value.path(), encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("width", [1400, 400])
def test_a_chart_is_saved_with_the_figures_and_names_that_it_shows(browser, exported, width):
    page = opened_at(browser, exported, width)
    name = 'a<b · y & "z" of a name that is long (n = 1)'
    other = "b · x (n = 1)"
    head, *table = saved_rows(page, "spaced/accuracy")
    assert head == ["series", "weights remaining (%)", "test accuracy (%)"]
    # the accuracy and not the error; 100 % is drawn at the end of the axis, but is 100 % here
    assert [cells[1:] for cells in table if cells[0] == name] == [
        ["100", "99"], ["50", "100"], ["25", "97.6645"], ["12.5", "20"],
    ]  # fmt: skip
    _, *table = saved_rows(page, "dots/accuracy")
    assert sorted(cells[:2] for cells in table) == [
        [name, "reinit"], [name, "ticket"], [other, "reinit"], [other, "ticket"],
    ]  # fmt: skip
    legend = chart(page, "dots/accuracy").locator(".legend").text_content()
    assert 'y & "z" of a name' in legend
    _, *table = saved_rows(page, "steps/rewind.step")
    assert [cells[1] for cells in table] == [f"{step}it" for step in range(0, 1200, 100)]
    page.context.close()


def test_a_table_is_saved_as_csv_and_latex(opened):
    page = opened(DESK)
    bar = page.locator("p.save").filter(has=page.locator("button")).last
    texts = {}
    for kind in ("CSV", "LaTeX"):
        with page.expect_download() as saving:
            bar.locator("button", has_text=kind).click()
        with open(saving.value.path(), encoding="utf-8") as file:
            texts[kind] = file.read()
    assert "versions,torch,9.9.9" in texts["CSV"]
    assert "\\begin{tabular}{lrr}" in texts["LaTeX"]
    assert "  versions & torch & 9.9.9 \\\\" in texts["LaTeX"]
    assert "  versions & a\\textless{}b\\textgreater{}\\textbar{}c & 1 2 \\\\" in texts["LaTeX"]


def test_a_chart_is_printed_alone(opened):
    page = opened(DESK)
    page.evaluate(
        "() => { window.print = () => { window.shown = "
        "document.querySelectorAll('.printed').length; window.alone = document.body.className; }; }"
    )
    chart(page, "criteria/accuracy").locator(".save button", has_text="PDF").click()
    assert page.evaluate("[window.shown, window.alone]") == [1, "one"]
    assert page.evaluate("document.body.className") == ""
