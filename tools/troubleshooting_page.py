"""Writes docs/troubleshooting.md, every message of the kit's own errors, read from the sources:
`python tools/troubleshooting_page.py`. It imports nothing that raises them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from api_page import escaped
from architecture import ROOMS, ROOT, files, module_of, room_of

from ftkit.display import markdown_table

PAGE = ROOT / "docs" / "troubleshooting.md"
ERRORS = ROOT / "ftkit" / "errors.py"
WIDEST = 24  # characters of code that a placeholder may show
LEAST = 12  # characters of a message that are its own; with fewer it is made elsewhere
INTRODUCTION = """# Troubleshooting

Every message that the kit's errors and warnings have, by the room of the package that it comes
from ([what the rooms are](architecture.md)). Search this page for a few words of yours; ‹…› stands
for what differs from case to case. `FTKIT_DEBUG=1` before a command shows the whole traceback. Read
from the sources by `python tools/troubleshooting_page.py`; a test fails when it is not current.

For a training that raises nothing and is wrong all the same there is `ft.sanity_checks(model,
data)` ([lesson 21](../notebooks/21_silent_failures.ipynb)); `ftkit doctor` looks at the machine,
and `ft.look(data, model)` at the data.
"""


@dataclass(frozen=True)
class Message:
    """A message in the sources: what it says, the name of its error, and where it stands."""

    text: str
    error: str
    file: Path

    def parts(self) -> tuple[str, str]:
        """What is wrong, and the rest: what was expected and what to do. That may be ""."""
        found = re.search(r"(?<=[^.\s])[.;] (?=\S)", self.text)
        if not found:
            return self.text, ""
        return self.text[: found.start() + 1].rstrip(";"), self.text[found.end() :]


def error_names(source: str) -> set[str]:
    """The names of the errors and warnings that a module of errors defines."""
    return {node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def messages(file: Path, known: set[str]) -> list[Message]:
    """All messages of a file, in its order. known: the names of errors."""
    tree, found = ast.parse(file.read_text(encoding="utf-8")), []

    def visit(node, where):
        if isinstance(node, ast.ClassDef):
            where = node.name
        if isinstance(node, ast.Call):
            name = _error(node, known, where)
            text = _clean(spelled(node.args[0])) if name and node.args else ""
            if len(re.sub(r"‹[^›]*›", "", text)) >= LEAST:
                found.append(Message(text, name, file))
        for child in ast.iter_child_nodes(node):
            visit(child, where)

    visit(tree, "")
    return found


def _error(call, known, where):
    """The name of the error that a call makes, or warns of; "" for any other call.

    where: the name of the class that it stands in.
    """
    called = call.func
    if isinstance(called, ast.Name) and called.id in known:
        return called.id
    if isinstance(called, ast.Attribute) and called.attr == "warn" and len(call.args) > 1:
        kind = call.args[1]
        return kind.id if isinstance(kind, ast.Name) and kind.id in known else ""
    own = isinstance(called, ast.Attribute) and called.attr == "__init__" and isinstance(
        called.value, ast.Call) and getattr(called.value.func, "id", "") == "super"
    return where if own and where in known else ""


def spelled(node: ast.expr) -> str:
    """The text that an expression makes, with ‹…› for what only a run knows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(spelled(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        text = ast.unparse(node.value)
        plain = len(text) <= WIDEST and re.fullmatch(r"[\w.]+", text)
        return f"‹{text if plain else '…'}›"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return spelled(node.left) + spelled(node.right)
    return "‹…›"


def _clean(text):
    return " ".join(text.split())


def page() -> str:
    """The whole page."""
    known = error_names(ERRORS.read_text(encoding="utf-8"))
    every = [one for file in files() for one in messages(file, known)]
    parts = [INTRODUCTION]
    for room in ROOMS:
        here = [one for one in every if room_of(module_of(one.file)) == room]
        rows = []
        for one in dict.fromkeys(here):
            wrong, remedy = one.parts()
            place = one.file.relative_to(ROOT).as_posix()
            rows.append([escaped(wrong), escaped(remedy or "–"),
                         f"`{one.error}` in [{place}](../{place})"])
        if rows:
            table = markdown_table(["message", "what was expected, what to do", "where"], rows)
            parts.append(f"## {room}\n\n{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: written")
