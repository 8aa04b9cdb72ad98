"""The explorer in JupyterLab, driven by a real browser as a person would."""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import dimlab
from dimlab import Representation, explore
from tests.reading import fit_knn, fit_ridge

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CELLS = [
    """\
import numpy as np
from dimlab import ImageSet, Representation, explore

train, test = (Representation.load(f"{name}.safetensors") for name in ("train", "test"))
pixels = np.round(255 * test.features).astype(np.uint8).reshape(-1, 1, 8, 8)
images = ImageSet(pixels, test.labels, name="digits")""",
    "view = explore(train, test, images=images)\nview",
]
VIEW = Path(dimlab.__file__).parent / "_explore" / "view.js"
STUB = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<div id="el"></div><script type="module">
const state = {state}, sent = [];
Object.assign(window, {{ state, sent }});
const model = {{
  get: (name) => state[name], set: (name, value) => {{ state[name] = value; }}, save_changes() {{}},
  send: (message) => sent.push(message), on() {{}}, off() {{}},
}};
const url = URL.createObjectURL(new Blob([{source}], {{ type: "text/javascript" }}));
(await import(url)).default.render({{ model, el: document.getElementById("el") }});
</script>"""
SMALL = """() => [...document.querySelectorAll("#el *")].filter(
  (each) => each.getClientRects().length && each.textContent.trim()
    && parseFloat(getComputedStyle(each).fontSize) < 12).map((each) => each.outerHTML)"""
QUIET = {  # no question about news, no look for updates
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    }
}

pytestmark = pytest.mark.slow


def digits():
    found = load_digits()
    features = (found.data / 16).astype(np.float32)
    return (
        Representation(features[part], labels=found.target[part])
        for part in (slice(0, 1200), slice(1200, None))
    )


def write_notebook(folder, sources):
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{place}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for place, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}}
    path = folder / "explore.ipynb"
    path.write_text(json.dumps({**notebook, "nbformat": 4, "nbformat_minor": 5}))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def jupyter_lab(folder):
    """Serve a folder; yields the address and the token. Nobody's own settings are read."""
    home = folder / "home"
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(QUIET))
    port, token = free_port(), secrets.token_hex(16)
    environment = {
        **os.environ,
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder)
            yield f"http://127.0.0.1:{port}", token
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(20)


def wait_for(url, server, folder, seconds=90):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("jupyter lab did not start: " + (folder / "server.log").read_text()[-2000:])


@contextmanager
def browser_page(folder, width=1280):
    drawn = random.getstate()  # playwright names its messages by it
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        try:
            page = browser.new_page(viewport={"width": width, "height": 1250})
            page.set_default_timeout(60_000)
            try:
                yield page
            except BaseException:
                page.screenshot(path=folder / "failed.png")
                raise
        finally:
            browser.close()
    random.setstate(drawn)


def run_notebook(page, address, token, sources):
    page.goto(f"{address}/doc/tree/explore.ipynb?token={token}")
    page.get_by_text("| Idle").wait_for()
    page.locator(".cm-content").first.click()
    for _ in sources:
        page.keyboard.press("Shift+Enter")
    wait_for_exact(page)


def wait_for_exact(page):
    page.locator(".dimlab-knn-kind", has_text="exact").wait_for()


def accuracy(page, name):
    return float(page.locator(f".dimlab-{name}").get_attribute("value"))


def exported_mask(page):
    text = page.get_by_label("mask", exact=True).input_value()  # of a part that is folded away
    return np.array(json.loads(text), dtype=bool)


def knn_and_ridge(train, test, kept):
    bank, queries = train.select(kept).features, test.select(kept).features
    return [fit(bank, train.labels).accuracy(queries, test.labels) for fit in (fit_knn, fit_ridge)]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [375, 1000])
def test_the_view_needs_no_jupyter_and_no_network(tmp_path, width):
    """The module is drawn from a plain object in the place of a notebook's model."""
    view = explore(*digits(), removed=[3])
    view.n_removed = 20
    assert view.wait(60)
    state = {name: getattr(view, name) for name in view.trait_names(sync=True) if name[0] != "_"}
    del state["layout"], state["tabbable"], state["tooltip"]
    view.close()
    (tmp_path / "view.html").write_text(
        STUB.format(state=json.dumps(state), source=json.dumps(VIEW.read_text("utf-8"))), "utf-8"
    )
    with browser_page(tmp_path, width) as page:
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "view.html").as_uri())
        page.get_by_text(f"kept {view.explorer.kept.sum()} of 64").wait_for()
        assert accuracy(page, "knn") == view.exact_accuracy
        np.testing.assert_array_equal(exported_mask(page), view.explorer.kept)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button").first.click()
        assert page.evaluate("sent") == [{"toggle": int(view._sorted[0])}]
        page.get_by_role("slider").press("ArrowRight")
        assert page.evaluate("state.n_removed") == 21
        small = page.evaluate(SMALL)
        assert not small, small
    assert not said, said
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_person_moves_the_slider_and_gets_the_exact_answer(tmp_path):
    train, test = digits()
    train.save(tmp_path / "train.safetensors")
    test.save(tmp_path / "test.safetensors")
    write_notebook(tmp_path, CELLS)
    with jupyter_lab(tmp_path) as (address, token), browser_page(tmp_path) as page:
        run_notebook(page, address, token, CELLS)
        everything = np.ones(64, dtype=bool)
        assert [accuracy(page, n) for n in ("knn", "ridge")] == knn_and_ridge(
            train, test, everything
        )

        handle = page.get_by_role("slider")
        handle.focus()
        for _ in range(20):
            handle.press("ArrowRight")
        page.get_by_text("kept 44 of 64").wait_for()
        wait_for_exact(page)
        kept = exported_mask(page)
        assert kept.sum() == 44
        found = [accuracy(page, n) for n in ("knn", "ridge")]
        assert found == knn_and_ridge(train, test, kept)

        page.get_by_role("button", name="✕").first.press("Space")  # the first is kept after all
        page.get_by_text("kept 45 of 64").wait_for()
        wait_for_exact(page)
        page.screenshot(path=tmp_path / "explore.png", full_page=True)
        kept = exported_mask(page)
        assert kept.sum() == 45
        found = [accuracy(page, n) for n in ("knn", "ridge")]
        assert found == knn_and_ridge(train, test, kept)

        page.locator("summary", has_text="Images").click()
        page.get_by_text("Largest activations, class and value from the left:").wait_for()
        page.screenshot(path=tmp_path / "images.png", full_page=True)
        page.locator("summary", has_text="Export").click()
        page.screenshot(path=tmp_path / "export.png", full_page=True)
    keep = os.environ.get("DIMLAB_SCREENSHOTS")  # a folder to look at them afterwards
    for picture in tmp_path.glob("*.png"):
        assert picture.stat().st_size > 10_000
        if keep:
            shutil.copy(picture, Path(keep))
