"""Links resolve, generated tables and figures are current, and the code keeps its style."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import before_after
import pytest

from ftkit.batch import notebook as nb
from ftkit.batch import report

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [p for folder in (".", "docs", "data") for p in sorted((ROOT / folder).glob("*.md"))]
NOTEBOOKS = [p for p in sorted((ROOT / "notebooks").rglob("*.ipynb"))
             if ".ipynb_checkpoints" not in p.parts]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")


def text_of(path):
    """The Markdown of a document or notebook, without its code."""
    if path.suffix == ".ipynb":
        cells = nb.read(path)["cells"]
        text = "\n\n".join(nb.source(c) for c in cells if c["cell_type"] == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """The names that headings give to links, as the usual renderers make them."""
    heads = re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS + NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(path):
    broken = []
    for plain, html in LINK.findall(text_of(path)):
        target = unquote(plain or html)
        if re.match(r"(https?|mailto|attachment|data):", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists():
            broken.append(target)
        elif anchor and found.suffix in (".md", ".ipynb") and anchor.lower() not in anchors(found):
            broken.append(target)
    assert not broken, f"these links lead nowhere: {broken}"


@pytest.mark.parametrize("name, mark", [("README.md", "lessons"), ("docs/results.md", "results")])
def test_documents_show_what_the_lessons_measured(name, mark):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert f"<!-- {mark}:start -->" in text
    link = "../notebooks/" if name.startswith("docs") else "notebooks/"
    shown = report.with_tables(text, ROOT / "notebooks", link)
    assert shown == text, f"run `ftkit report --write {name}`"


def test_the_readme_shows_what_lessons_keep_for_it():
    text = README.read_text(encoding="utf-8")
    shown = report.insert_table(text, before_after.examples(ROOT / "notebooks"), "examples")
    assert shown == text, "run `python tools/before_after.py`"
    assert text.count("| after |") >= 1


def test_the_glossary_is_in_order_and_names_each_lesson_it_sends_to():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.MULTILINE)
    assert len(terms) > 50 and terms == sorted(terms, key=str.lower)
    for number, target in re.findall(r"\[Lesson (\d+)\]\(../notebooks/(\d+)", text):
        assert int(number) == int(target)


def test_the_readmes_figure_shows_the_same_claims():
    from PIL import Image

    figures = [ROOT / link for link, _ in LINK.findall(README.read_text(encoding="utf-8"))
               if link.endswith("results.png")]
    assert figures, "README.md shows no results.png"
    with Image.open(figures[0]) as image:
        assert image.text["ftkit"] == report.claims_hash(report.committed(ROOT / "notebooks")), (
            f"run `ftkit report --figure {figures[0].relative_to(ROOT)}`")


def test_the_readme_names_the_two_commands():
    text = README.read_text(encoding="utf-8")
    assert "make run" in text and "make test" in text


def test_ruff_finds_nothing():
    folders = ("ftkit", "data", "tests", "tools", "benchmarks", "notebooks")
    ours = [str(ROOT / name) for name in folders]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", *ours],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_teachers_plans_are_of_the_lessons_and_leave_out_none():
    import teaching_page

    text = teaching_page.PAGE.read_text(encoding="utf-8")
    assert text == teaching_page.page(text), "run `python tools/teaching_page.py`"
    planned = [number for part in teaching_page.SIX_WEEKS.values() for number in part]
    assert len(planned) == len(set(planned)) and set(planned) == set(teaching_page.lessons())
