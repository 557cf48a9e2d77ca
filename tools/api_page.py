"""Writes docs/api.md, each public name's signature and docstring: `python tools/api_page.py`.

It reads the source and imports only `ftkit` itself, so that the page is the same on every machine.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from architecture import ROOMS, ROOT, module_of, room_of

import ftkit

PAGE = ROOT / "docs" / "api.md"
WIDTH = 100
INTRODUCTION = """# The public names

Every name of `import ftkit as ft`, by the room of the package that it stands in
([what the rooms are](architecture.md)). Written from signatures and docstrings by
`python tools/api_page.py`; a test fails when it is not current.
"""


@dataclass(frozen=True)
class Public:
    """A public name, the file that defines it, and its definition there."""

    name: str
    file: Path
    node: ast.FunctionDef | ast.ClassDef

    @property
    def room(self) -> str:
        """The room that its file stands in."""
        return room_of(module_of(self.file))


def public_names() -> list[Public]:
    """All names of ftkit.__all__ but the version, in that order."""
    return [
        find(name, ftkit._MODULE_OF[name]) for name in ftkit.__all__ if name != "__version__"
    ]


def find(name: str, module: str) -> Public:
    """Where a name of a module is defined, also when the module only passes it on.

    Raises LookupError when it is nowhere.
    """
    path = ROOT / "ftkit" / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return Public(name, file, node)
        if isinstance(node, ast.ImportFrom) and any(each.name == name for each in node.names):
            return find(name, (node.module or "").removeprefix("ftkit."))
    raise LookupError(f"{name} is neither defined nor imported in {file.relative_to(ROOT)}")


def signature(
    node: ast.FunctionDef | ast.ClassDef, constants: dict[str, object] | None = None
) -> tuple[str, list[str]]:
    """How something is called, wrapped to WIDTH, and the names of its parameters.

    constants: of the file, whose values are shown in place of their names.
    """
    constants = constants or {}
    if isinstance(node, ast.FunctionDef):
        arguments = [
            each for each in _arguments(node.args, constants) if each not in ("self", "cls")
        ]
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    elif _is_dataclass(node):
        arguments, result = list(_fields(node)), ""
    else:
        made = next((e for e in node.body if getattr(e, "name", "") == "__init__"), None)
        arguments, result = _arguments(made.args, constants)[1:] if made else [], ""
    name = f"class {node.name}" if isinstance(node, ast.ClassDef) else node.name
    bases = [ast.unparse(base) for base in getattr(node, "bases", ())]
    if bases and not arguments and not result:
        return f"{name}({', '.join(bases)})", []
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) > WIDTH:
        whole = ", ".join(each.replace(" ", "\0") for each in arguments)
        inside = textwrap.fill(whole, WIDTH - 1, initial_indent="    ", subsequent_indent="    ",
                               break_long_words=False, break_on_hyphens=False)
        line = f"{name}(\n{inside},\n){result}".replace("\0", " ")
    return line, [re.match(r"\**(\w*)", each)[1] for each in arguments]


def _arguments(args, constants):
    """Parameters as they are written: `*, seed=0`."""

    def one(arg, default=None):
        text = arg.arg + (f": {ast.unparse(arg.annotation)}" if arg.annotation else "")
        if default is None:
            return text
        known = isinstance(default, ast.Name) and default.id in constants
        value = repr(constants[default.id]) if known else ast.unparse(default)
        return f"{text}{' = ' if arg.annotation else '='}{value}"

    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    found = [one(*each) for each in zip(plain, defaults, strict=True)]
    if args.posonlyargs:
        found.insert(len(args.posonlyargs), "/")
    if args.vararg or args.kwonlyargs:
        found.append("*" + (one(args.vararg) if args.vararg else ""))
    found += [one(*each) for each in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return found + ([f"**{one(args.kwarg)}"] if args.kwarg else [])


def _constants(file):
    """The names that a file gives to literal values at its top."""
    found = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                pass
    return found


def _is_dataclass(node):
    return any("dataclass" in ast.unparse(each) for each in node.decorator_list)


def _fields(node):
    """The fields that a dataclass is made with, with their defaults."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and not each.target.id.startswith("_"):
            text = f"{each.target.id}: {ast.unparse(each.annotation)}"
            yield text if each.value is None else f"{text} = {ast.unparse(each.value)}"


def described(doc: str, parameters: list[str]) -> str:
    """A docstring as Markdown: a list of parameters, Returns and Raises by themselves."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        lines = paragraph.splitlines()
        if all(line.startswith(("    ", ">>>", "...")) for line in lines):
            parts.append(f"```python\n{textwrap.dedent(paragraph)}\n```")
        elif lines[0].startswith("- "):
            parts.append(escaped(paragraph))
        else:
            parts += _sentences(" ".join(line.strip() for line in lines), parameters)
    text = "\n\n".join(parts)
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", text)


def _sentences(text, parameters):
    names = "|".join(map(re.escape, filter(None, parameters)))
    starts = [r"(?=(?:Returns|Raises|Gives) )"]
    if names:
        starts.insert(0, rf"(?=(?:{names})(?:, (?:{names}))*: )")
    # Only where a sentence begins, or a parameter's name would be split from a text about it.
    for part in re.split(rf"(?:^|(?<=[.;] ))(?:{'|'.join(starts)})", text):
        part = part.strip()
        told = re.match(rf"((?:{names})(?:, (?:{names}))*): (.*)", part) if names else None
        if told:
            listed = ", ".join(f"`{name}`" for name in told[1].split(", "))
            yield f"- {listed}: {escaped(told[2])}"
        elif part:
            yield escaped(part)


def escaped(text: str) -> str:
    """Text in which Markdown takes nothing for a tag or for emphasis, outside of code."""
    return "".join(
        part if i % 2 else part.replace("<", "&lt;").replace("*", r"\*")
        for i, part in enumerate(re.split(r"(`[^`]+`)", text))
    )


def entry(one: Public) -> str:
    """The part of the page about one name."""
    called, parameters = signature(one.node, _constants(one.file))
    place = one.file.relative_to(ROOT).as_posix()
    doc = ast.get_docstring(one.node) or ""
    fields = [*parameters, *(n for n, _, _ in _attributes(one.node))]
    lines = [f"### {one.name}", "", f"```python\n{called}\n```", "", described(doc, fields), ""]
    told = [each for each in _attributes(one.node) if each[2]]
    if told:
        lines += ["It has:", ""]
    lines += [f"- `.{call if call else name}`: {escaped(first)}" for name, call, first in told]
    return "\n".join([*lines, "", f"Defined in [{place}](../{place}).", ""])


def _attributes(node):
    """(name, how it is called or "", first sentence) of a class's public methods and properties."""
    for each in getattr(node, "body", ()):
        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
            marks = [ast.unparse(mark) for mark in each.decorator_list]
            call = "" if "property" in marks else " ".join(signature(each)[0].split())
            first = (ast.get_docstring(each) or "").partition("\n\n")[0]
            yield each.name, call, " ".join(first.split())


def page() -> str:
    """The whole page."""
    names = public_names()
    parts = [INTRODUCTION]
    for room in ROOMS:
        here = [one for one in names if one.room == room]
        if here:
            links = ", ".join(f"[{one.name}](#{one.name.lower()})" for one in here)
            purpose = ROOMS[room][0].upper() + ROOMS[room][1:]
            parts += [f"## ftkit/{room}\n\n{purpose}.\n\n{links}\n", *map(entry, here)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(public_names())} names")
