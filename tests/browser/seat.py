"""A learner's browser: JupyterLab as `ftkit start FOLDER --lab` starts it, and Chromium."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ftkit.batch import index, lab
from ftkit.batch import notebook as nb
from ftkit.batch.start import start

ROOT = Path(__file__).parents[2]
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
SHOTS = ROOT / "artifacts" / "browser"
# What JupyterLab itself says on a good day, and no learner sees.
NOISE = ("Failed to load resource", "WebSocket connection", "ResizeObserver",
         "Could not restore the debugger state: Canceled")  # of a kernel that has just ended


def chromium():
    """Debian's or another Chromium of this machine, or playwright's own; None without one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


@contextmanager
def running_lab(folder, home):
    """JupyterLab on the working copies in a folder. Yields its address, token included."""
    start(folder)
    page = index.write(folder)
    arguments, environment = lab.command(folder, page)
    token = secrets.token_hex(16)
    own = {"JUPYTER_RUNTIME_DIR": home / "runtime", "JUPYTERLAB_SETTINGS_DIR": home / "settings",
           "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces", "JUPYTER_CONFIG_DIR": home / "config",
           "JUPYTER_DATA_DIR": home / "data", "IPYTHONDIR": home / "ipython",
           "FTKIT_RUNS": home / "runs", "JUPYTER_TOKEN": token}
    for name in ("FTKIT_PLAIN", "MPLBACKEND", "PYTEST_VERSION", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)  # a learner has none of them
    with open(home / "lab.log", "w") as log:
        process = subprocess.Popen(
            [*arguments, "--no-browser", "--ServerApp.port=0", "--expose-app-in-browser"],
            env=environment | {k: str(v) for k, v in own.items()}, stdout=log, stderr=log,
            start_new_session=True)
    try:
        yield _address(process, home), token
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _address(process, home):
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        for told in (home / "runtime").glob("jpserver-*.json"):
            try:
                return json.loads(told.read_text())["url"]
            except ValueError:
                pass
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{(home / 'lab.log').read_text()}")


def on_smoke(path):
    """Choose the profile smoke in a lesson's copy, as its first cell asks for it."""
    notebook = nb.read(path)
    cell = next(c for c in notebook["cells"] if "parameters" in nb.tags(c))
    cell["source"] = nb.source(cell).replace('profile = "cpu"', 'profile = "smoke"')
    nb.write(notebook, path)


class Seat:
    """What a learner does in front of the page, by mouse and keyboard, and what is there."""

    def __init__(self, page, address, token):
        self.page, self.address, self.token, self.said = page, address, token, []
        page.on("console", lambda one: one.type == "error" and self.said.append(one.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))

    def errors(self):
        """The errors in the browser's console that are not JupyterLab's own noise."""
        return [text for text in self.said if not any(noise in text for noise in NOISE)]

    def open(self, path=""):
        """Go to a page of JupyterLab and wait until it stands."""
        where = f"lab/tree/{path}?reset&" if path else "?"  # no tabs of an earlier test
        self.page.goto(f"{self.address}{where}token={self.token}")
        self.page.wait_for_selector(f"{PANEL} .jp-Cell", timeout=60000)
        self.page.wait_for_function("() => !document.querySelector('#jupyterlab-splash')")
        self.until_idle()

    def kernels(self):
        """The notebooks whose kernels run: {name: id of the session}."""
        answer = self.page.request.get(f"{self.address}api/sessions?token={self.token}")
        return {Path(one["path"]).name: one["id"] for one in answer.json()}

    def shut_down(self):
        """End all kernels, so that the next test has the memory."""
        for session in self.kernels().values():
            self.page.request.delete(f"{self.address}api/sessions/{session}?token={self.token}")

    def cells(self):
        """The notebook's cells as they are in the page: source, outputs and number of each."""
        return self.page.evaluate("""() => [...jupyterapp.shell.currentWidget.content.model.cells]
            .map(cell => cell.toJSON())""")

    def select(self, number):
        """Go to a cell, counted from 0, in command mode."""
        self.page.evaluate("""async number => {
            const notebook = jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = number; notebook.mode = 'command';
            notebook.deselectAll(); await notebook.scrollToItem(number, 'center');
            notebook.activate(); }""", number)
        self.page.locator(f"{PANEL} .jp-Cell.jp-mod-active").wait_for()

    def run(self, number, source=None, seconds=60):
        """Type a cell's new source where one is given, and run it. Returns the cell after it."""
        self.select(number)
        if source is not None:
            self.page.locator(f"{PANEL} .jp-Cell.jp-mod-active .cm-content").click()
            self.page.locator(f"{PANEL} .jp-Cell.jp-mod-active .cm-editor.cm-focused").wait_for()
            self.page.keyboard.press("Control+A")
            self.page.keyboard.insert_text(source)
        before = self.cells()[number]["execution_count"]
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function("""([number, before]) => {
            const cell = jupyterapp.shell.currentWidget.content.model.cells.get(number);
            return cell.executionState === 'idle' && cell.executionCount !== null
                && cell.executionCount !== before; }""",
            arg=[number, before], timeout=1000 * seconds)
        return self.cells()[number]

    def run_all(self, seconds):
        """Choose Run All Cells and wait until every cell has run, or one has failed."""
        self.choose("Run", "Run All Cells")
        self.page.wait_for_function("""() => {
            const code = [...jupyterapp.shell.currentWidget.content.model.cells]
                .filter(cell => cell.type === 'code' && cell.sharedModel.getSource().trim());
            const done = cell => cell.executionCount !== null && cell.executionState === 'idle';
            const failed = cell => cell.outputs.toJSON().some(o => o.output_type === 'error');
            return code.every(done) || code.some(failed); }""", timeout=1000 * seconds)

    def save(self):
        """Save the notebook, as Control and S do, and wait until it is written."""
        self.page.keyboard.press("Control+s")
        self.page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")

    def shot(self, name):
        """Keep a picture of the page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def choose(self, menu, entry):
        """Choose an entry of the menu bar."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()

    def until_idle(self, seconds=60):
        """Wait until the kernel of the notebook in front is there and has nothing to do."""
        self.page.wait_for_function("""() => {
            const session = jupyterapp.shell.currentWidget?.sessionContext;
            return session?.isReady && session.session?.kernel?.status === 'idle'; }""",
            timeout=1000 * seconds)

    def until(self, text, seconds=60):
        """Wait until a text stands on the page."""
        self.page.wait_for_function("text => document.body.innerText.includes(text)", arg=text,
                                    timeout=1000 * seconds)


def serious(learner, area=f"{PANEL} .jp-Cell.jp-mod-active .jp-OutputArea"):
    """What axe-core finds wrong with the outputs of the cell in front, as far as it is serious."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright",
                              reason="needs axe-playwright-python")
    told = axe.Axe().run(learner.page, context={"include": [[area]]}).response
    assert told["passes"], "axe-core looked at nothing"
    return [f"{one['id']}: {one['nodes'][0]['html'][:300]}" for one in told["violations"]
            if one["impact"] in ("serious", "critical")]


def within(found):
    """The controls and pictures that stick out of a cell's outputs in letters twice as large.

    A table may be wider, since its area is scrolled.
    """
    found.page.set_viewport_size({"width": 640, "height": 500})  # as a zoom to 200% makes it
    out = found.evaluate("""area => {
        const edge = area.getBoundingClientRect().right + 1;
        return [...area.querySelectorAll('button, input, img')].filter(one =>
            one.getBoundingClientRect().right > edge).map(one => one.outerHTML.slice(0, 90)); }""")
    found.page.set_viewport_size({"width": 1280, "height": 1000})
    return out


if __name__ == "__main__":  # of `make test-browser`
    sys.exit(None if chromium() else (
        "test-browser: nothing is tested in a browser, for there is no Chromium here. Debian: sudo "
        "apt-get install chromium; elsewhere: .venv/bin/python -m playwright install chromium"))
