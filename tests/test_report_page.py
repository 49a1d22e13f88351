"""The report as files: a page that needs nothing else, Markdown, and how the page looks in a browser."""

import csv
import json
import math
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from crafted_results import FLAT, history, one_grid, settings, write, write_grid
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from tune_cnn.errors import ResultError, StorageError
from tune_cnn.report import write_report
from tune_cnn.report.figure_files import level_colour, write_figures
from tune_cnn.report.grids import Cell, Grid, load_grids
from tune_cnn.report.page import markdown, markdown_text, page
from tune_cnn.report.page_figures import cost_figure
from tune_cnn.report.runs import Run
from tune_cnn.texts import printable
from tune_cnn.train_results import FitResult

# The assignment's two experiments: K by L, as one grid.
ASSIGNMENT = {
    (32, 2): 62.6, (32, 4): 67.2, (32, 8): FLAT, (32, 16): 10.5, (64, 2): 63.9, (64, 4): 69.2, (64, 8): FLAT,
    (64, 16): FLAT, (128, 2): 63.0, (128, 4): 69.7, (128, 8): FLAT, (256, 2): 60.5, (256, 4): 71.4, (256, 8): FLAT,
}  # fmt: skip
SEEDS = {(k, depth): [60 + depth + k / 64 + seed / 4 for seed in range(3)] for k in (32, 64, 128) for depth in (2, 4)}
TEN = {(32, depth): 50 + 3 * depth - depth**2 / 5 for depth in range(1, 11)}
VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


class Reader(HTMLParser):
    """Collects texts and attributes, and fails where a tag is not closed by its own."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def page_of(folder: Path, cells, **changes) -> str:
    return page("exp", load_grids(write_grid(folder, cells, **changes)))


@pytest.mark.parametrize("cells", [ASSIGNMENT, SEEDS, TEN, {(32, 1): 60.0}, {(32, 8): FLAT}], ids="aston")
def test_page_needs_nothing_from_elsewhere_and_is_well_formed(tmp_path, cells):
    content = page_of(tmp_path, cells)
    reader = Reader(content)
    assert {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "base"} == set()
    assert not [attributes for _, attributes in reader.tags if attributes.keys() & {"src", "href", "srcset"}]
    assert all(
        str(link).startswith("#") for _, attributes in reader.tags for link in [attributes.get("xlink:href", "#")]
    )
    assert not re.search(r"url\((?!#)|@import|https?:|nan\b|inf\b|DOCTYPE", content)
    assert len(content) < 1_000_000


def test_texts_from_files_are_escaped_in_the_page_and_in_markdown(tmp_path):
    asked = {"<b>a|b*": settings(32, 2), "plain": settings(32, 4)}
    failures = {"<b>a|b*": "epoch 1: <script>alert('1')</script> & `rm` | _x_ [link](http://x)"}
    html, md, table = write_report("a&b", [], tmp_path, asked=asked, failures=failures)
    content = html.read_text()
    assert "<script" not in content
    assert "<b>a" not in content
    sentence = "failed: epoch 1: <script>alert('1')</script> & `rm` | _x_ [link](http://x)"
    assert sentence in "".join(Reader(content).texts).replace("\N{NO-BREAK SPACE}", " ")
    assert "<title>Report: a&amp;b</title>" in content
    lines = md.read_text().splitlines()
    (row,) = (
        line for line in lines if line.startswith(r"| \<b\>a\|b\* | 32 | 2 | – | – | – | – | – | – | – | failed: epoch")
    )
    assert row.endswith(" | – | failed |")
    assert r"\<script\>alert('1')\</script\> \& \`rm\` \| \_x\_ \[link\](http://x)" in row
    assert [row["experiment"] for row in csv.DictReader(table.read_text().splitlines())] == ["<b>a|b*", "plain"]


@pytest.mark.parametrize(
    "name", ["$x^2$", r"a\frac{b}", "bell\x07 null\x00 del\x7f", "{{ 7 * 7 }}{% if %}", "a\nb", "<!--", "€ 名"]
)
def test_any_name_is_shown_literally(tmp_path, name):
    path = write(tmp_path, "first", settings(32, 2), history(60.0))
    content = json.loads(path.read_text())
    content["config"] |= {"model_type": name}
    path.write_text(json.dumps(content))
    html, md, table = write_report("a", [path, write(tmp_path, "b", settings(32, 2), history(50.0))], tmp_path)
    shown = printable(name, keep="\n")
    assert f"Best first: model_type = {shown} (60.0 %)" in "".join(Reader(html.read_text()).texts).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html.read_text() + md.read_text())
    assert f"model_type = {' '.join(shown.split())}" in re.sub(r"\\([\W_])", r"\1", md.read_text())
    with table.open(newline="") as file:
        assert {row["experiment"]: row["model_type"] for row in csv.DictReader(file)} == {"first": name, "b": ""}


def test_page_and_markdown_have_the_same_table_map_and_answers(tmp_path):
    result_files = write_grid(tmp_path, {**ASSIGNMENT, (512, 2): [60.0, 61.0]})
    figure = tmp_path / "exp_K32.png"
    html, md, table = write_report("exp", result_files, tmp_path, figures=[figure])
    assert (html.name, md.name, table.name) == ("exp_report.html", "exp_report.md", "exp.csv")
    in_page = "".join(Reader(html.read_text()).texts).replace("\N{NO-BREAK SPACE}", " ")
    lines = md.read_text().splitlines()
    told = [line[2:].replace("\\", "") for line in lines if line.startswith("- ")]
    assert len(told) > 15
    for line in told:  # conditions are a table in the page
        assert line in in_page or line.replace(": ", "", 1) in in_page
    assert "| | K = 32 | K = 64 | K = 128 | K = 256 | K = 512 |" in lines
    assert "| L = 2 | 62.6 | 63.9 | 63.0 | 60.5 | 60.5 ± 6.4 |" in lines
    assert "| L = 16 | 10.5 (did not learn) | 10.0 (did not learn) | not run | not run | not run |" in lines
    assert (
        "| exp_K512_L2 (seeds 1, 2) | 512 | 2 | 1,024,000 | 1,024.0 M | 4 | 60.50 ± 6.35 | 3 | 59.50 ± 6.35 | "
        "2 min 0 s | stopped early: no better for 5 epochs | – | learned |"
    ) in lines
    widths = {line.replace("\\|", "").count("|") for line in lines if line.startswith(("| exp", "| ---"))}
    assert widths == {14, 7}
    assert "![exp_K32](<exp_K32.png>)" in lines


def test_several_variants_are_told_apart(tmp_path):
    result_files = write_grid(tmp_path, {(32, 2): 60.0, (32, 8): FLAT}) + write_grid(
        tmp_path, {(32, 8): 70.0}, "y", ycn=True
    )
    html, md, _ = write_report("exp", result_files, tmp_path)
    titles = re.findall(r"<h2>(.*?)</h2>", html.read_text())
    assert titles == [
        "Map: ConvClassifier", "Answers: ConvClassifier", "Map: YourCodeNet", "Answers: YourCodeNet", "Results",
        "Learning curves", "Conditions", "How to read it",
    ]  # fmt: skip
    assert "| y_K32_L8 | YourCodeNet | 32 | 8 |" in md.read_text()


def test_cells_of_the_map_are_marked_where_nothing_was_learned_or_run(tmp_path):
    asked = {"exp_K32_L2": settings(32, 2), "late": settings(64, 4)}
    content = page("exp", load_grids(write_grid(tmp_path, {(32, 2): 60.0, (64, 2): FLAT}), asked, {"late": "lost"}))
    marks = re.findall(r'<td class="(\w+)[^>]*>(?:<b>([^<]*)</b>)?(?:<small>([^<]*)</small>)?</td>', content)
    assert marks == [
        ("shaded", "60.0", ""),
        ("flat", "10.0", "did not learn"),
        ("none", "", "not run"),
        ("none", "", "failed"),
    ]


def test_single_seed_is_said_once_at_the_top_and_not_with_several(tmp_path):
    note = "This report cannot tell whether a difference between networks that were trained once"
    assert page_of(tmp_path, ASSIGNMENT).count(note) == 1
    assert note not in page_of(tmp_path, SEEDS)


def key_of(content: str, title: str) -> list[str]:
    """What the key of the figure of this title says."""
    content = content.replace("\N{NO-BREAK SPACE}", " ")
    figure = content.partition(f"<figcaption>{title}</figcaption>")[2].partition("</figure>")[0]
    return re.findall(r"<span[^>]*>([^<]+)</span>", figure)


def test_figures_have_a_key_and_the_colours_of_the_files(tmp_path):
    files = write_grid(tmp_path, ASSIGNMENT)
    for (k, depth), accuracy in ASSIGNMENT.items():  # which two experiments share
        if depth < 16:
            files.append(write(tmp_path, f"wide_L{depth}_K{k}", settings(k, depth), history(accuracy)))
    content = page("exp", load_grids(files)).replace("\N{NO-BREAK SPACE}", " ")
    assert re.findall("<figcaption>(.*?)</figcaption>", content)[:-1] == [
        *(f"exp: K = {k} fixed, L varies" for k in (32, 64, 128, 256)),
        *(f"wide: L = {depth} fixed, K varies" for depth in (2, 4, 8)),
    ]
    assert key_of(content, "exp: K = 32 fixed, L varies") == [
        "L = 2 (62.6 %)", "L = 4 (67.2 %)", "L = 8 (10.0 %, did not learn)", "L = 16 (10.5 %, did not learn)",
        "chance (10 %)",
    ]  # fmt: skip
    assert key_of(content, "wide: L = 4 fixed, K varies") == [
        "K = 32 (67.2 %)",
        "K = 64 (69.2 %)",
        "K = 128 (69.7 %)",
        "K = 256 (71.4 %)",
    ]
    for parameter, level in (("L", "4"), ("K", "256")):
        colour = level_colour(parameter, level, 0)
        assert f"--c: light-dark({colour}, " in content
        assert f"stroke: {colour}; stroke: light-dark({colour}, " in content


def test_an_unfinished_training_is_marked_in_map_table_and_key(tmp_path):
    files = write_grid(tmp_path, {(32, 2): 60.0})
    files.append(write(tmp_path, "exp_K32_L4", settings(32, 4), history(65.0), stop_reason=None, unfinished=True))
    content = page("exp", load_grids(files)).replace("\N{NO-BREAK SPACE}", " ")
    assert '<td class="none"><b>65.0</b><small>unfinished: 4 of 30 epochs</small></td>' in content
    assert '<td class="w verdict odd">unfinished: 4 of 30 epochs</td>' in content
    assert key_of(content, "exp: K = 32 fixed, L varies") == ["L = 2 (60.0 %)", "L = 4 (65.0 %, unfinished)"]


@pytest.mark.parametrize(
    ("verdict", "facts"),
    [
        ("unfinished", {"stop_reason": None, "unfinished": True}),
        ("stopped before it was clear", {"stop_reason": "scheduler"}),
    ],
)
def test_a_figures_legend_marks_a_training_without_all_its_epochs_which_is_not_said_not_to_learn(
    tmp_path, verdict, facts
):
    files = write_grid(tmp_path, {(32, 2): 60.0})
    files.append(write(tmp_path, "exp_K32_L4", settings(32, 4), history(FLAT), **facts))
    (figure,) = write_figures(files, tmp_path, "svg")
    legend = re.findall(r"<!-- (L = .*?) -->", figure.read_text())
    assert legend == ["L = 2 (60.0 %)", f"L = 4 (10.0 %, {verdict})"]


def test_costs_are_of_cells_that_learned_with_every_seed_and_no_accuracy_is_beyond_its_scale(tmp_path):
    grid = one_grid(tmp_path, {(32, 2): [60.0, 68.0], (64, 2): [61.0, 62.0], (128, 2): [65.0, FLAT]})
    figure = cost_figure(grid)
    assert figure is not None
    texts = re.findall(r">([\d.−]+)</text>", figure.panels[0])
    assert {"32", "64"} <= set(texts)
    assert "128" not in texts
    assert not {"120", "−20"} & set(texts)


def test_a_diverged_training_leaves_a_gap(tmp_path):
    broken = history(30.0)._replace(train_loss=[2.0] * 20 + [math.nan] * 20)
    result_files = [
        write(tmp_path, "exp_K32_L2", settings(32, 2), history(60.0)),
        write(tmp_path, "exp_K32_L4", settings(32, 4), broken, stop_reason="diverged"),
    ]
    assert "nan" not in page("exp", load_grids(result_files))
    assert key_of(page("exp", load_grids(result_files)), "exp: K = 32 fixed, L varies") == [
        "L = 2 (60.0 %)", "L = 4 (30.0 %, diverged)"
    ]  # fmt: skip


OUTCOMES = st.one_of(
    st.floats(16, 100).map(history), st.just(history(FLAT)), st.sampled_from(["failed: no room", None]),
    st.just(history(40.0)._replace(test_loss=[math.nan] * 20)),
)  # fmt: skip
GRIDS = st.dictionaries(
    st.tuples(st.sampled_from([(8,), (32,), (32, 64)]), st.integers(1, 4), st.booleans(), st.integers(1, 3)),
    OUTCOMES,
    min_size=1,
    max_size=16,
)


@given(GRIDS)
@example_settings(max_examples=12, deadline=None)
def test_whatever_the_cells_hold_there_is_a_report(outcomes):
    cells: dict[tuple[object, ...], list[Run]] = {}
    for (k, depth, ycn, seed), outcome in outcomes.items():
        trial = settings(k, depth, ycn=ycn, seed=seed)
        known = (outcome, {"parameters": 10 * depth}) if isinstance(outcome, FitResult) else (None, {}, outcome)
        cells.setdefault((ycn, k, depth), []).append(Run((f"run {len(cells)}",), trial, *known))
    grids = [
        Grid(tuple(Cell(tuple(runs)) for (ycn, *_), runs in sorted(cells.items()) if ycn == which))
        for which in {ycn for ycn, *_ in cells}
    ]
    content = "\n".join(map(str.strip, Reader(page("any", grids)).texts)).replace("\N{NO-BREAK SPACE}", " ")
    assert not re.search(r"nan|None|\(\)|(?<!al)[.,;:]{2}|  |\band \.|: \.", content)
    assert markdown("any", grids, []).startswith("# Report: any\n")


def test_nothing_to_report_is_told(tmp_path):
    with pytest.raises(
        ResultError, match="exp: no result file to report on; run the sweep, or check the folder of results"
    ):
        write_report("exp", [], tmp_path)


def test_a_report_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "exp_report.html").mkdir()
    with pytest.raises(StorageError, match=r"exp_report\.html: cannot be written .*; free some space"):
        write_report("exp", write_grid(tmp_path, {(32, 1): 60.0}), tmp_path)


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [("exp1_1_K32", "exp1_1_K32"), ("_a_", r"\_a\_"), ("a\nb", "a b"), ("# 1", r"\# 1"), ("5 * 3", r"5 \* 3")],
)
def test_markdown_shows_texts_as_they_are(plain, escaped):
    assert markdown_text(plain) == escaped


# In a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium here; install it with: apt-get install chromium"
)

# Loads pages into frames of some widths, and tells what overflows and which texts of a chart overlap.
PROBE = """<!doctype html><meta charset="utf-8"><pre id="found"></pre><script>
const cases = CASES, found = {};
function examine(frame, width) {
  const page = frame.contentDocument, styleOf = part => frame.contentWindow.getComputedStyle(part), overlaps = [];
  for (const chart of page.querySelectorAll("svg")) {
    const texts = [...chart.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
      const [a, b] = [texts[i][1], texts[j][1]];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 4) overlaps.push(texts[i][0] + " / " + texts[j][0]);
    }
  }
  const outside = [...page.querySelectorAll("svg text, svg path, h1, h2, h3, p, li, .map, .settings")]
    .filter(part => part.getBoundingClientRect().right > width + 1 && !part.closest(".scroll"))
    .map(part => part.tagName + " " + part.textContent.slice(0, 40));
  return {
    width: page.documentElement.scrollWidth, overlaps, outside,
    ink: styleOf(page.body).color, paper: styleOf(page.body).backgroundColor,
    charts: page.querySelectorAll("svg").length, rows: page.querySelectorAll(".results tbody tr").length,
    curve: styleOf(page.querySelector(".panels path[style*='light-dark']")).stroke,
  };
}
for (const [name, width, page] of cases) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 9000px`;
  frame.onload = () => {
    found[name] = examine(frame, width);
    document.getElementById("found").textContent = JSON.stringify(found);
  };
  frame.srcdoc = page;
  document.body.append(frame);
}
</script>"""
PAGES = {"assignment": ASSIGNMENT, "seeds": SEEDS, "ten": TEN}


def browse(folder: Path, target: Path, *options: str) -> str:
    """What a headless browser prints about a page."""
    assert BROWSER
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *options, target.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def probe(folder: Path, cases: list[tuple[str, int, str]], *options: str) -> dict[str, dict[str, Any]]:
    """What the browser finds in pages, by their names."""
    quoted = json.dumps(cases).replace("</", "<\\/")
    (folder / "probe.html").write_text(PROBE.replace("CASES", quoted))
    printed = browse(folder, folder / "probe.html", "--dump-dom", *options)
    found = re.search(r'<pre id="found">(.*?)</pre>', printed)
    assert found
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Each page at two widths, as the browser sees it."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {}
    for name, cells in PAGES.items():
        (folder / name).mkdir()
        pages[name] = page_of(folder / name, cells)
    return probe(folder, [(f"{name} {width}", width, pages[name]) for name in pages for width in (1280, 420)])


@needs_browser
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("name", PAGES)
def test_in_a_browser_nothing_overflows_or_overlaps(seen, name, width):
    found = seen[f"{name} {width}"]
    assert found["width"] == width
    assert found["outside"] == []
    assert found["overlaps"] == []


@needs_browser
def test_a_browser_shows_all_of_it_in_its_style(seen, tmp_path):
    found = seen["assignment 1280"]
    assert found["charts"] == page_of(tmp_path, ASSIGNMENT).count("<svg ") == 18
    assert found["rows"] == len(ASSIGNMENT)
    assert (found["ink"], found["paper"]) == ("rgb(28, 32, 37)", "rgb(255, 255, 255)")


@needs_browser
def test_in_a_browser_that_prefers_dark_the_page_is_dark(tmp_path):
    case = ("dark", 800, page_of(tmp_path, {(32, 2): 60.0}))
    found = probe(tmp_path, [case], "--blink-settings=preferredColorScheme=0")["dark"]
    assert (found["ink"], found["paper"]) == ("rgb(228, 231, 234)", "rgb(20, 23, 26)")


@needs_browser
def test_a_browser_prints_it(tmp_path):
    target = tmp_path / "page.html"
    target.write_text(page_of(tmp_path, ASSIGNMENT))
    browse(tmp_path, target, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 8
