"""Without these, a page of the site could lead nowhere, or call home from a reader's browser."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import website

from ftkit.batch import index

ROOT = Path(__file__).parents[1]
README = """# Kit

Read [lesson 1](notebooks/01_x.ipynb), [a part of it](notebooks/01_x.ipynb#the-second-part),
[the solutions](notebooks/solutions/), [`the page`](docs/page.md), [a card](data/set.md) and
[the code](code/). `[no link](nowhere.md)`
"""
PAGE = "# A page\n\nThe rule is in [one.py](../code/one.py), by `hand`, see [above](#a-page).\n"
WORDS = 'A "line": it falls, [from] 3 to 1.'


def cell(source, *outputs):
    kind = "code" if outputs else "markdown"
    made = {"outputs": list(outputs), "execution_count": 1} if outputs else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **made}


def shown(metadata=None, **data):
    data = {kind.replace("_", "/"): text for kind, text in data.items()}
    return {"output_type": "display_data", "metadata": metadata or {}, "data": data}


def lesson(link):
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    figure = shown({"image/png": {"alt": WORDS}}, text_plain="Figure",
                   image_png=base64.b64encode(picture.getvalue()).decode())
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        cell("# 1 · A lesson\n\nBy the formula $R_{t} + \\frac{1}{2}$."),
        cell("## The second part\n\nSee " + link),
        cell("print('```')", {"output_type": "stream", "name": "stdout", "text": ["```\n<b>\n"]}),
        cell("table", shown(text_plain="t", text_html="<table><tr><td>7</td></tr></table>")),
        cell("plt.show()", figure),
    ]}


def checkout(root, link="[the page](../docs/page.md)"):
    """A small checkout with a page of each kind."""
    for name, text in {"README.md": README, "docs/page.md": PAGE, "data/set.md": "# set\n",
                       "code/one.py": "ONE = 1\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "notebooks" / "solutions").mkdir(parents=True)
    (root / "notebooks" / "01_x.ipynb").write_text(json.dumps(lesson(link)))
    shutil.copy(root / "notebooks" / "01_x.ipynb", root / "notebooks" / "solutions")
    solution = root / "notebooks" / "solutions" / "01_x.ipynb"
    solution.write_text(solution.read_text().replace("../docs", "../../docs"))
    return root


needs_sphinx = pytest.mark.skipif(
    not all(map(website.find_spec, website.NEEDED)),
    reason="needs what makes the site: pip install -e '.[site]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of a small checkout."""
    home = tmp_path_factory.mktemp("site")
    assert website.build(checkout(home / "checkout"), home / "site")
    return home / "site"


@needs_sphinx
def test_every_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    assert website.faults(site) == []
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert pages >= {"index.html", "search.html", "notebooks/01_x.html", "docs/page.html",
                     "notebooks/solutions/01_x.html", "data/set.html", "code/one.py.html"}
    start = (site / "index.html").read_text()
    assert "notebooks/01_x.html#the-second-part" in start
    assert "nowhere.md" in start and 'href="nowhere' not in start  # it is code
    assert "The lessons in their order" in start and "1 · A lesson</a>" in start


@needs_sphinx
def test_a_lesson_keeps_its_outputs_and_what_is_said_of_its_figures(site):
    page = (site / "notebooks" / "01_x.html").read_text()
    assert 'alt="A &quot;line&quot;: it falls, [from] 3 to 1."' in page
    assert "<table><tr><td>7</td> </tr></table>" in page and "```\n&lt;b&gt;" in page
    assert "<math" in page and "<mfrac>" in page
    assert website.Page(page).names >= {"the-second-part"}


@needs_sphinx
def test_lessons_are_found_by_the_search_and_solutions_are_not(site):
    index = (site / "searchindex.js").read_text()
    found = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    assert found["docnames"][found["terms"]["formula"]] == "notebooks/01_x"  # a list, were it two


@needs_sphinx
@pytest.mark.parametrize("link", ["[gone](../docs/gone.md)", "[gone](../docs/page.md#gone)"])
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, link, capfd):
    assert not website.build(checkout(tmp_path / "checkout", link), tmp_path / "site")
    assert "gone" in capfd.readouterr().err


@pytest.mark.parametrize("planted", [
    '<script src="https://cdn.example.org/x.js"></script>',
    '<link rel="stylesheet" href="//fonts.example.org/a.css">', '<img src="http://x.org/a.png">',
    '<p style="background: url(https://x.org/a.png)">', '<a href="gone.html">x</a>',
    '<a href="#gone">x</a>', '<img src="gone.png" alt="x">'])
def test_a_planted_fault_of_a_page_is_named(tmp_path, planted):
    page = tmp_path / "index.html"
    page.write_text('<h1 id="a">x</h1><a href="#a">x</a><a href="https://x.org">x</a>')
    assert website.faults(tmp_path) == []
    page.write_text(planted)
    assert len(website.faults(tmp_path)) == 1 and "index.html" in website.faults(tmp_path)[0]


def test_a_font_from_elsewhere_is_named(tmp_path):
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.example.org/a.woff') }")
    assert "a.css: it loads https://fonts.example.org" in website.faults(tmp_path)[0]


def test_all_lessons_documents_and_cards_of_the_checkout_get_a_page(tmp_path):
    website.Pages(ROOT, tmp_path).write()
    menus = "".join(path.read_text() for path in (
        tmp_path / "index.md", tmp_path / "data" / "index.md",
        tmp_path / "notebooks" / "solutions" / "index.md"))
    start = (tmp_path / "index.md").read_text()
    places = [start.index(f"### {part}") for part in index.PARTS.values()]
    shown = start[start.index("## The lessons in their order"):start.index("## Start")]
    assert places == sorted(places) and f"### {index.PARTS[20]}" in shown
    (row,) = re.findall(r"^\| \[12 · .+\]\(notebooks/12_continual\.md\) \| (.+) \|$", shown,
                        re.MULTILINE)
    assert re.fullmatch(r"about\W\d+\Wmin \| [\d, ]+", row)
    for path in [*(ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"), *(ROOT / "docs").glob("*.md"),
                 *(ROOT / "notebooks" / "templates").glob("*.ipynb"),
                 *(ROOT / "data").glob("*.md")]:
        if ".ipynb_checkpoints" not in path.parts:
            assert (tmp_path / path.relative_to(ROOT).with_suffix(".md")).exists(), path
            assert f"{path.stem}\n" in menus, f"{path.name} is in no menu"
    for name, hidden in (("hints", False), ("reasons", True), ("01_supervised", False)):
        page = (tmp_path / "notebooks" / "questions" / f"{name}.md").read_text()
        assert ("nosearch: true" in page) == hidden and "<details>" in page
