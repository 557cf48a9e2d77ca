"""The website of lessons, documents and data cards: `python tools/website.py`, or `make site`.

Every page is written as Markdown into build/site-source, lessons with their committed outputs, and
Sphinx makes build/site of it. Nothing is run and nothing is fetched. A link that leads nowhere
fails the build, and so does a page that would load a script, style, font or picture from elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ftkit.batch import index
from ftkit.batch import notebook as nb

ROOT = Path(__file__).resolve().parents[1]
THEME = Path(__file__).resolve().parent / "theme"
NEEDED = ("sphinx", "furo", "myst_parser")
# A link's target. Code is left out, so a link around code is found by its second half.
CODE = re.compile(r"(^```.*?^```|^~~~.*?^~~~|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
TARGET = re.compile(r"(\]\()([^)\s]+)((?:\s+\"[^\"]*\")?\))|((?:src|href)=\")([^\"]+)(\")")
# What the menu shows, in this order; what is not named here comes at the end of its part.
GUIDES = ("choosing", "your-data", "explore", "teaching", "glossary", "speed", "batch", "reproduce",
          "deployment", "hosted", "scale", "air-gapped")
REFERENCE = ("api", "methods", "troubleshooting", "results", "architecture")
PROJECT = ("CHANGELOG", "CONTRIBUTING")
# What the theme leaves without a name or level for those who hear the page.
NAMED = {'<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
         '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Site">',
         '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer'}


def main(arguments: list[str] | None = None) -> int:
    """Build the site and say what is wrong with it. Returns 1 when anything is, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    out = parser.parse_args(arguments).out
    if missing := [name for name in NEEDED if not find_spec(name)]:
        print(f"The site needs {', '.join(missing)}: pip install -e '.[site]'")
        return 1
    if not build(ROOT, out):
        return 1
    if wrong := faults(out):
        print(*wrong, f"{len(wrong)} faults in the pages of {out}", sep="\n")
        return 1
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{len([*out.rglob('*.html')])} pages, {size / 1e6:.0f} MB: open {out / 'index.html'}")
    return 0


def build(root: Path, out: Path) -> bool:
    """Write the pages of a checkout into out. Returns whether Sphinx had nothing to complain of."""
    source = out.with_name(out.name + "-source")
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    Pages(root, source).write()
    shutil.copytree(THEME, source / "_theme")
    shutil.move(source / "_theme" / "conf.py", source / "conf.py")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html",
         "-d", str(source / "_doctrees"), str(source), str(out)])
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for old, new in NAMED.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return done.returncode == 0


class Pages:
    """The pages of a checkout as Markdown, at the places where they stand in it."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root, self.source = root.resolve(), source
        self.linked: list[Path] = []  # files and folders that a page links and that need one

    def write(self) -> None:
        """Write all pages into the source folder."""
        lessons = self._notebooks("notebooks")
        solutions = self._notebooks("notebooks/solutions")
        templates = self._notebooks("notebooks/templates", "*.ipynb")
        documents = {folder: [path.stem for path in sorted((self.root / folder).glob("*.md"))]
                     for folder in ("docs", "data", "notebooks/questions", ".")}
        for folder, names in documents.items():
            for name in names:
                path = self.root / folder / f"{name}.md"
                text = self._linked(path.read_text(encoding="utf-8"), path)
                self._put(path, _apart((folder, name) == ("notebooks/questions", "reasons")) + text)
        docs = _ordered(documents["docs"], GUIDES + REFERENCE)
        start = self.source / "index.md"
        start.write_text(self._with_map(start.read_text(encoding="utf-8")) + "".join((
            _menu("Lessons", [f"notebooks/{name}" for name in lessons]
                  + ["notebooks/questions/index"] * bool(documents["notebooks/questions"])
                  + ["notebooks/solutions/index"] * bool(solutions)
                  + [f"notebooks/templates/{name}" for name in templates]),
            _menu("Guides", [f"docs/{name}" for name in docs if name not in REFERENCE]),
            _menu("Reference", [f"docs/{name}" for name in REFERENCE if name in docs]
                  + ["data/index"] * bool(documents["data"])),
            _menu("Project", [name for name in PROJECT if name in documents["."]]),
        )), encoding="utf-8")
        self._list(self.root / "notebooks" / "solutions", "Solutions", solutions)
        self._list(self.root / "notebooks" / "questions", "Questions on the lessons",
                   documents["notebooks/questions"])
        self._list(self.root / "data", "Data sets", documents["data"])
        self._sources()

    def _with_map(self, text):
        """The start page with the lessons in their parts, above how to start where it says so."""
        shown = index.lessons(self.root / "notebooks").markdown("notebooks/", with_done=False)
        words = ("The times are those of two cores. A lesson refers to earlier ones, which are not "
                 "needed to run it.")
        whole = f"\n## The lessons in their order\n\n{words}\n{shown}\n"
        head, mark, rest = text.partition("\n## Start\n")
        return head + self._linked(whole, self.root / "README.md") + mark + rest

    def _notebooks(self, folder, pattern="[0-9][0-9]_*.ipynb"):
        """Write the notebooks of a folder; their names without the ending."""
        paths = sorted((self.root / folder).glob(pattern))
        for path in paths:
            self._put(path, self._lesson(path))
            shutil.copy(path, self._place(path).with_name(path.name))
        return [path.stem for path in paths]

    def _lesson(self, path):
        """A notebook with its outputs, as Markdown."""
        parts, solution = [], path.parent.name == "solutions"
        for number, cell in enumerate(nb.read(path)["cells"]):
            text = nb.source(cell)
            if cell["cell_type"] == "markdown":
                parts.append(self._linked(text, path))
            elif cell["cell_type"] == "code" and text.strip():
                parts.append(_fenced(text, "{code-block} python"))
                parts += [self._output(output, path, f"{number}-{i}")
                          for i, output in enumerate(cell["outputs"])]
        twin = path.parent.parent / path.name if solution else path.parent / "solutions" / path.name
        links = f"[Download this notebook]({path.name})"
        if twin.exists():
            there = f"../{twin.stem}.md" if solution else f"solutions/{twin.stem}.md"
            links += f" · [{'Lesson' if solution else 'Solutions'}]({there})"
        head, _, rest = parts[0].partition("\n")
        parts[0] = f"{head}\n\n{links}\n\n{rest}"
        return _apart(solution) + "\n\n".join(parts) + "\n"

    def _output(self, output, path, name):
        """One output of a cell: a picture with its alternative, HTML, or text."""
        data = output.get("data", {"text/plain": output.get("text", "")})
        shown = {kind: "".join(text) for kind, text in data.items() if isinstance(text, str | list)}
        if "image/png" in shown:
            picture = self._place(path).parent / f"{path.stem}-{name}.png"
            picture.write_bytes(base64.b64decode(shown["image/png"]))
            words = output["metadata"].get("image/png", {}).get("alt", "")
            return _fenced(f":alt: {json.dumps(words, ensure_ascii=False)}",
                           f"{{image}} {picture.name}")
        if "text/html" in shown:
            apart = re.sub("(</t[dh]>)", r"\1 ", shown["text/html"])  # as words, for the search
            return _fenced(f'<div class="output">{apart}</div>', "{raw} html")
        if "text/markdown" in shown:
            return self._linked(shown["text/markdown"], path)
        text = nb.plain(shown["text/plain"]).rstrip()
        return _fenced(f":class: output\n\n{text}", "{code-block} text") if text else ""

    def _linked(self, text, path):
        """Markdown whose links lead to pages of the site."""
        def led(match):
            before, target, after = (part for part in match.groups() if part is not None)
            return before + self._target(target, path) + after
        parts = CODE.split(text)
        parts[::2] = [TARGET.sub(led, part) for part in parts[::2]]
        return "".join(parts)

    def _target(self, target, path):
        file, mark, anchor = target.partition("#")
        found = (path.parent / unquote(file)).resolve()
        if not file or urlsplit(target).scheme or not found.is_relative_to(self.root):
            return target
        if not found.exists():  # left as it is, for Sphinx to complain of
            return target
        if found.is_dir():
            self.linked.append(found)
            return f"{file.rstrip('/')}/index.md"
        if found.suffix == ".png":
            shutil.copy(found, self._place(found))
            return target
        if found.suffix not in (".md", ".ipynb"):
            self.linked.append(found)
        return file[:len(file) - len(found.name)] + self._place(found).name + mark + anchor

    def _place(self, path):
        """Where the page of a file of the checkout stands."""
        path = path.relative_to(self.root)
        if path == Path("README.md"):
            path = Path("index.md")
        elif path.suffix == ".ipynb":
            path = path.with_suffix(".md")
        elif path.suffix not in (".md", ".png"):
            path = path.with_name(path.name + ".md")
        place = self.source / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def _put(self, path, text):
        self._place(path).write_text(text, encoding="utf-8")

    def _list(self, folder, title, names):
        """The page of a folder whose pages are in the menu."""
        if names:
            page = self._place(folder / "index.md")
            page.write_text(f"# {title}\n\n" + _menu("", names, hidden=False), encoding="utf-8")

    def _sources(self):
        """The pages of code that is linked, and of folders: in no menu and not searched."""
        for path in self.linked:
            place = self._place(path / "index.md" if path.is_dir() else path)
            if place.exists():
                continue
            name = path.relative_to(self.root).as_posix()
            if path.is_dir():
                inside = [one for one in sorted(path.rglob("*.py")) if one.stat().st_size]
                self.linked.extend(inside)
                text = "\n".join(f"- [{one.relative_to(path)}]({one.relative_to(path)}.md)"
                                 for one in inside)
            else:
                kind = {".py": "python", ".yaml": "yaml", ".sbatch": "bash", ".cff": "yaml"}
                text = _fenced(path.read_text(encoding="utf-8"),
                               f"{{code-block}} {kind.get(path.suffix, 'text')}")
            place.write_text(f"{APART}# {name}\n\n{text}\n", encoding="utf-8")


APART = "---\norphan: true\nnosearch: true\n---\n\n"


def _apart(gives_away):
    """What keeps a page that gives answers away out of the search."""
    return "---\nnosearch: true\n---\n\n" if gives_away else ""


def _ordered(names, first):
    return [*(name for name in first if name in names), *(n for n in names if n not in first)]


def _fenced(text, kind):
    """Text in a fence that is longer than any in it."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text) or [""]))
    return f"{fence}{kind}\n{text}\n{fence}"


def _menu(caption, names, hidden=True):
    if not names:
        return ""
    options = ":hidden:\n" * hidden + f":caption: {caption}\n" * bool(caption)
    return "\n\n" + _fenced(f":titlesonly:\n{options}\n" + "\n".join(names), "{toctree}") + "\n"


class Page(HTMLParser):
    """What a page of HTML holds: names that links can lead to, links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of one element."""
        own = dict(attrs)
        self.names.update(filter(None, (own.get("id"), own.get("name") if tag == "a" else None)))
        if tag == "a" and own.get("href"):
            self.links.append(str(own["href"]))
        elif tag == "link" and own.get("rel") not in ("search", "next", "prev", "index", "author"):
            self.loaded.append(str(own.get("href")))
        elif own.get("src"):
            self.loaded.append(str(own["src"]))
        if "url(" in (own.get("style") or ""):
            self.loaded += re.findall(r"url\(['\"]?([^'\")]+)", str(own["style"]))


def faults(site: Path) -> list[str]:
    """What is wrong with the pages of a folder, a sentence each; [] when nothing is.

    Looked for are links that lead nowhere, and scripts, styles, fonts and pictures from elsewhere.
    """
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in page.loaded + page.links:
            parts = urlsplit(html.unescape(target))
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if target in page.loaded:
                    found.append(f"{name}: it loads {target} from elsewhere")
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            other = pages.get(there)
            if not there.exists() or (parts.fragment and other and target in page.links
                                      and unquote(parts.fragment) not in other.names):
                found.append(f"{name}: a link leads nowhere: {target}")
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(site)}: it loads {target} from elsewhere" for target in
                  re.findall(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)", text)]
    return found


if __name__ == "__main__":
    sys.exit(main())
