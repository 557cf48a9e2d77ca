"""The site as a reader sees it, on a phone and on a desk, by mouse, keyboard and screen reader."""

import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import seat
import website

pytestmark = pytest.mark.browser
PAGES = ("index", "notebooks/12_continual", "docs/api", "search", "notebooks/21_silent_failures",
         "notebooks/questions/01_supervised", "notebooks/templates/your_own", "data/vader",
         "docs/glossary")
A4 = {"width": 718, "height": 1047}  # between margins of a centimetre
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *told):
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of this checkout: (its folder, its address on this machine)."""
    if not all(map(website.find_spec, website.NEEDED)):
        pytest.skip("needs what makes the site: pip install -e '.[site]'")
    folder = tmp_path_factory.mktemp("website") / "site"
    assert website.main(["--out", str(folder)]) == 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def reader(browser):
    """Opens pages; none may load anything from elsewhere, nor err."""
    asked, said, contexts = [], [], []

    def open_(size, scheme="light"):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda one: one.type == "error" and said.append(one.text))
        return page

    yield open_
    for context in contexts:
        context.close()
    here = ("http://127.0.0.1", "data:", "file:")
    assert [url for url in asked if not url.startswith(here)] == []
    # From files a browser fetches no extracts of what the search found; titles are all there.
    assert [text for text in said if "file:" not in text and "net::ERR_FAILED" not in text] == []


@pytest.mark.parametrize("size, scheme", [(PHONE, "light"), (DESK, "dark")],
                         ids=["phone", "desk in the dark"])
def test_pages_can_be_read_by_everybody(site, reader, size, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright",
                              reason="needs axe-playwright-python")
    page, found = reader(size, scheme), []
    for name in PAGES:
        page.goto(f"{site[1]}/{name}.html{'?q=perplexity' * (name == 'search')}")
        page.wait_for_load_state("networkidle")
        told = axe.Axe().run(page).response
        assert told["passes"], "axe-core looked at nothing"
        found += [f"{name}: {one['id']}: {one['nodes'][0]['html'][:200]}"
                  for one in told["violations"] if one["impact"] in ("serious", "critical")]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
        page.screenshot(path=seat.SHOTS /
                        f"site_{name.replace('/', '_')}_{size['width']}_{scheme}.png")
    assert found == []


def test_the_start_page_leads_into_the_lessons_in_their_order(site, reader):
    page = reader(DESK)
    page.goto(f"{site[1]}/index.html")
    part = page.locator("section#more-than-one-task")
    assert part.locator("th").all_inner_texts()[0] == "lesson"
    part.locator("a", has_text="12 · Continual learning").click()
    page.locator("h1", has_text="Continual learning").wait_for()


def test_on_paper_there_is_the_text_alone_and_all_of_it(site, reader, tmp_path):
    page = reader(A4)
    page.goto(f"{site[1]}/notebooks/12_continual.html")
    page.emulate_media(media="print")
    for aside in (".sidebar-drawer", ".toc-drawer", ".mobile-header", ".related-pages"):
        assert not page.locator(aside).first.is_visible(), aside
    assert page.locator("h1").is_visible() and page.locator("article img").first.is_visible()
    cut = page.evaluate("""() => {
        const edge = document.documentElement.clientWidth + 1;
        return [...document.querySelectorAll('article table, article pre, article img')].filter(
            one => one.getBoundingClientRect().right > edge || one.scrollWidth > one.clientWidth + 1
        ).map(one => one.outerHTML.slice(0, 200)); }""")
    assert cut == []
    paper = page.pdf(path=seat.SHOTS / "site_12_on_paper.pdf", format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) > 10


@pytest.mark.parametrize("by", ["server", "file"])
def test_the_search_finds_a_lesson(site, reader, by):
    page = reader(DESK)
    page.goto(f"{site[1]}/index.html" if by == "server" else f"file://{site[0]}/index.html")
    page.locator(".sidebar-search").fill("perplexity")
    page.keyboard.press("Enter")
    page.locator("#search-results li a", has_text="Domain tuning").first.click()
    page.locator("h1", has_text="Domain tuning").wait_for()


def test_the_menu_opens_by_keyboard_on_a_phone(site, reader):
    page = reader(PHONE)
    page.goto(f"{site[1]}/docs/api.html")
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Site menu"
    link = page.locator(".sidebar-tree a", has_text="12 · Continual learning: what")
    assert not link.is_visible()
    page.keyboard.press("Enter")
    link.click()
    page.locator("h1", has_text="Continual learning").wait_for()
