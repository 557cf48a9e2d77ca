"""Chromium before a JupyterLab of its own, for the tests of what a learner sees."""

import pytest
import seat


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium; the tests are skipped where there is none."""
    library = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not (path := seat.chromium()):
        pytest.skip("needs Chromium: sudo apt-get install chromium")
    with library.sync_playwright() as playwright:
        # Without a sandbox, which a container's root may not make; only this machine is visited.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def jupyterlab(tmp_path_factory):
    """JupyterLab on working copies of the lessons: (their folder, its address, its token)."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "my lessons"
    with seat.running_lab(folder, home) as (address, token):
        yield folder, address, token


@pytest.fixture
def learner(browser, jupyterlab, request):
    """A page of a browser with no memory of others. Its console must stay without errors."""
    folder, address, token = jupyterlab
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    made = seat.Seat(context.new_page(), address, token)
    made.folder = folder
    yield made
    made.shot(request.node.name.replace("[", "_").strip("]"))
    made.shut_down()
    context.close()
    assert not made.errors()
