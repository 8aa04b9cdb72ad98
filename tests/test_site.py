"""The documentation site: the gallery's examples, and the built pages in a browser."""

import ast
import os
import random
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import dimlab
from dimlab import probes, readers
from dimlab.cli.door import COMMANDS
from dimlab.io import relevance
from dimlab.io.arrays import ENDINGS
from dimlab.io.layouts import layouts
from tests.pages import ROOT

GALLERY = {path.stem: path.read_text() for path in (ROOT / ".docs/gallery").glob("*/plot_*.py")}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

SMALL = """[...document.querySelectorAll(".bd-article img")].filter(
  (each) => !each.closest(".sphx-glr-thumbcontainer") && each.naturalWidth > 600
    && each.clientWidth < 600).map((each) => each.src)"""  # a picture pressed into a phone's width

every_example = pytest.mark.parametrize("name", GALLERY)


def blocks(source):
    """Return (text, code) of each block: the docstring, then every comment after ``# %%``."""
    head, *rest = source.split("\n# %%\n")
    title, _, code = head.lstrip('"\n').partition('\n"""')
    found = [(title, code)]
    for block in rest:
        lines = block.splitlines()
        n = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        text = " ".join(line.lstrip("# ") for line in lines[:n])
        found.append((text, "\n".join(lines[n:])))
    return found


def test_the_gallery_shows_every_probe():
    assert len(GALLERY) >= 15
    everything = "\n".join(GALLERY.values())
    for probe in probes.__all__:
        assert f"dimlab.{probe}(" in everything, f"{probe} has no example in .docs/gallery"


def test_the_guide_names_every_probe():
    """A probe is done when its page, its example and its line of the glossary are there."""
    pages = "\n".join(path.read_text() for path in (ROOT / ".docs/guide").glob("*.md"))
    assert [each for each in probes.__all__ if not re.search(rf"\b{each}\b", pages)] == []


def test_what_users_can_name_has_its_page_or_row():
    """A reader, a format, a layout, a command, an extra: done when it is documented."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    pages = {path.stem: path.read_text("utf-8") for path in (ROOT / ".docs").rglob("*.md")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    expected = {
        "glossary": [f"`{each}`" for each in probes.__all__],
        "readers": [f"`{each}" for each in readers.__all__],
        "capabilities": [
            *(f"| `{each.name}` |" for each in layouts()),
            *(f"`{each}`" for each in COMMANDS),
        ],
        "getting-started": [f"| `{each}` |" for each in extras["optional-dependencies"]],
    }
    pages["any page"] = "\n".join(pages.values())
    expected["any page"] = [f"`{each}`" for each in {*ENDINGS, *relevance.ENDINGS}]
    missing = {
        page: [each for each in wanted if each not in pages[page]]
        for page, wanted in expected.items()
    }
    assert not any(missing.values()), missing


@every_example
def test_a_page_of_the_guide_links_to_an_example(name):
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / ".docs/guide").glob("*.md"))
    title = GALLERY[name].partition("\n")[0].lstrip('"')
    assert re.search(rf"\[{re.escape(title)}\]\(\.\./examples/\w+/{name}\)", pages)


@every_example
def test_an_example_has_a_title_and_says_how_to_read_its_figure(name):
    (opening, _), *rest = blocks(GALLERY[name])
    title, underline, _, text = opening.split("\n", 3)
    assert underline == "=" * len(title)
    assert len(text.split()) > 15
    explained = [said for said, code in rest if re.search(r"\.plot\(|plot_\w+\(|subplots\(", code)]
    assert explained, "no figure"
    for said in explained:
        assert len(said.split()) > 15, said


@every_example
def test_an_example_uses_public_names(name):
    """The examples themselves run when ``.ci/full`` builds the site."""
    for node in ast.walk(ast.parse(GALLERY[name])):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "dimlab":
            assert node.module == "dimlab"
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "dimlab":
            assert node.attr in dimlab.__all__


@pytest.fixture
def python_random_restored():
    """Playwright draws from Python's global generator."""
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.fixture
def site(tmp_path):
    """The folder in ``DIMLAB_SITE``, or the pages built without executing examples."""
    if built := os.environ.get("DIMLAB_SITE"):
        return Path(built).resolve()
    if find_spec("sphinx_gallery") is None:
        pytest.skip('needs the packages of the documentation: pip install -e ".[docs]"')
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "state"]
    subprocess.run([*command, ROOT / ".docs", tmp_path / "site"], check=True, timeout=600)
    return tmp_path / "site"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_pages_work_as_files_without_errors_broken_links_or_requests(site, python_random_restored):
    """Every page is opened, at the width of a phone; the search finds a word."""
    from playwright import sync_api  # its first import draws from Python's random

    faults, pages = [], {}
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 375, "height": 800})
        page.on("console", lambda said: said.type == "error" and faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.on("request", lambda r: r.url[:5] in ("file:", "data:") or faults.append(r.url))
        for path in sorted({*site.rglob("*.html")} - {*site.glob("_static/*")}):
            page.goto(path.as_uri())
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
            links = page.evaluate("[...document.links].map(each => each.href)")
            pages[path.as_uri()] = {*ids}, links
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > 375:
                faults.append(f"{path.name} is {width} pixels wide")
            faults += [f"{path.name}: letters of {each} are small" for each in page.evaluate(SMALL)]
        page.set_viewport_size({"width": 1280, "height": 900})  # of a laptop
        page.goto((site / "what-loads.html").as_uri())
        boxes = "document.querySelectorAll('.pst-scrollable-table-container')"
        hidden = f"[...{boxes}].filter(box => box.scrollWidth > box.clientWidth + 1).length"
        if not page.evaluate(f"{boxes}.length") or page.evaluate(hidden):
            faults.append("the table of what loads is wider than its page")
        page.goto((site / "search.html").as_uri() + "?q=hypergradient")
        page.wait_for_selector("#search-results li", timeout=20_000)
        browser.close()
    assert len(pages) > 100
    for path, (_, links) in pages.items():
        for link in (each for each in links if each.startswith("file:")):
            target, _, anchor = link.partition("#")
            if target.partition("?")[0] not in pages:
                if not Path(target.removeprefix("file://")).is_file():
                    faults.append(f"{path}: {link} leads nowhere")
            elif anchor and anchor not in pages[target][0]:
                faults.append(f"{path}: {link} names no place")
    assert faults == [], "\n".join(faults)
