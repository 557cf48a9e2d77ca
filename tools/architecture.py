"""The rooms of ftkit and the imports between them: `python tools/architecture.py` brings
docs/architecture.md and its picture up to date."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "architecture.png"

# From the bottom up: a room imports from rooms above it in this table, and from no other.
ROOMS = {
    "errors": "what a user can get wrong, and how it is said",
    "compat": "every use of a library's private interface, with the version it was read in",
    "display": "tables and figures, as plain text and in a notebook",
    "assets": "what is downloaded, verified and kept: the catalog, archives, the disk cache",
    "data": "a user's own files and the course's data sets, in splits that do not leak",
    "models": "a network, its tokenizer and its parts: loading, saving, hardware, precision",
    "tasks": "which columns a task reads, and how rows become tensors and a loss",
    "speed": "what saves time, each part by itself: batches, attention, caches, CUDA graphs",
    "methods": "one file a method: what becomes trainable, or what the loss adds",
    "training": "`fit`, and what happens while it runs: checkpoints, callbacks, records",
    "evaluation": "metrics with intervals, paired comparisons, scoring, generation",
    "deploy": "from a run to a model in use: parity, export, registry, ship gate",
    "serving": "a model for other people: a server with its page and feedback, files for hosting",
    "course": "what only a lesson needs: claims, exercises, plots, the model card",
    "batch": "notebooks run in parallel, resumable, each believed only when whole",
    "reproduce": "why two runs differ, and one file by which a run is done again",
    "pytest_plugin": "pytest's option `--claims`: stored notebooks run again and are compared",
    "doctor": "what works on this machine, why, and what to do about the rest",
    "cli": "the command `ftkit`, a thin door to the above",
}


@dataclass(frozen=True)
class Import:
    """One import of a module of ftkit. top: whether it is run when the importing file is."""

    file: Path
    line: int
    module: str
    name: str | None
    top: bool


def files(package: Path = ROOT / "ftkit") -> list[Path]:
    """The package's Python files, sorted."""
    return sorted(package.rglob("*.py"))


def module_of(file: Path) -> str:
    """The dotted name that a file is imported by, such as "ftkit.models.structure"."""
    package = next(folder for folder in file.parents if folder.name == "ftkit")
    parts = list(file.relative_to(package.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room that a module of ftkit stands in; "ftkit" for the package's own __init__.

    `python -m ftkit` is the command by another way, so its file is of the command's room.
    """
    room = module.split(".")[1] if "." in module else module
    return "cli" if room == "__main__" else room


def imports(file: Path) -> list[Import]:
    """Every import of a module of ftkit in a file, also those within functions."""
    found = []

    def walk(node, top):
        if isinstance(node, ast.Import):
            found.extend(
                Import(file, node.lineno, each.name, None, top)
                for each in node.names if each.name.split(".")[0] == "ftkit"
            )
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(file, node)
            if module.split(".")[0] == "ftkit":
                found.extend(
                    Import(file, node.lineno, module, each.name, top) for each in node.names
                )
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            top = False
        skipped = getattr(node, "body", []) if _is_type_checking(node) else []
        for child in ast.iter_child_nodes(node):
            walk(child, top and not any(child is each for each in skipped))

    walk(ast.parse(file.read_text(encoding="utf-8")), True)
    return found


def _absolute(file, node):
    if not node.level:
        return node.module or ""
    base = module_of(file).split(".")
    up = node.level - (file.name == "__init__.py")
    return ".".join(base[: len(base) - up] + ([node.module] if node.module else []))


def _is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def target(one: Import, modules: set[str]) -> str:
    """The module that an import needs: `from ftkit.models import structure` needs the file."""
    full = f"{one.module}.{one.name}"
    return full if full in modules else one.module


def arrows(package: Path = ROOT / "ftkit") -> Counter:
    """(importing room, imported room) and by how many imports of a module; within rooms none."""
    modules = {module_of(file) for file in files(package)}
    pairs = {
        (module_of(file), target(one, modules)) for file in files(package) for one in imports(file)
    }
    rooms = Counter((room_of(one), room_of(two)) for one, two in pairs)
    return Counter({
        (one, two): n for (one, two), n in rooms.items() if one != two and "ftkit" not in (one, two)
    })


def upward(package: Path = ROOT / "ftkit") -> list[str]:
    """What breaks the order, in words: imports that go up, and rooms that ROOMS does not have."""
    rank = {room: i for i, room in enumerate(ROOMS)}
    modules, wrong = {module_of(file) for file in files(package)}, []
    for file in files(package):
        me = room_of(module_of(file))
        for one in imports(file):
            other = room_of(target(one, modules))
            where = f"{file.relative_to(package.parent)}:{one.line}"
            if me == "ftkit" or other == me:
                continue
            if other == "ftkit" and one.name != "__version__" and rank.get(me, 0) < rank["batch"]:
                wrong.append(f"{where} imports ftkit itself, whose names are of every room")
            elif other != "ftkit" and other not in rank:
                wrong.append(f"{where} imports {other!r}, which is no room")
            elif other != "ftkit" and me in rank and rank[other] > rank[me]:
                wrong.append(f"{where}: {me} imports {other}, which is above it")
    return wrong


def circle(package: Path = ROOT / "ftkit") -> list[str]:
    """The modules of one circle of imports that run at import time; [] where there is none."""
    modules = {module_of(file): file for file in files(package)}
    needs = {}
    for module, file in modules.items():
        own = module if file.name == "__init__.py" else module.rpartition(".")[0]
        needs[module] = set()
        for one in imports(file):
            if one.top:
                found = target(one, set(modules))
                needs[module].add(found)
                # The __init__ of another package runs first.
                parent = found.rpartition(".")[0]
                if parent in modules and parent not in (own, "ftkit"):
                    needs[module].add(parent)
        needs[module] -= {module, "ftkit"}
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module):] + [module]
        if module in done or module not in needs:
            return []
        path.append(module)
        for other in sorted(needs[module]):
            if found := visit(other):
                return found
        path.pop()
        done.add(module)
        return []

    return next((found for module in sorted(needs) if (found := visit(module))), [])


def present(package: Path = ROOT / "ftkit") -> list[str]:
    """The rooms of ROOMS that the package has."""
    found = {room_of(module_of(file)) for file in files(package)}
    return [room for room in ROOMS if room in found]


def tables() -> dict[str, str]:
    """The generated parts of the page, by the name of their marks."""
    found = arrows()
    rooms = ["| room | what it is for |", "| --- | --- |"]
    lists = ["| room | imports from |", "| --- | --- |"]
    for room in present():
        path = ROOT / "ftkit" / room
        link = f"[{room}](../ftkit/{room})" if path.is_dir() else f"[{room}](../ftkit/{room}.py)"
        rooms.append(f"| {link} | {ROOMS[room]} |")
        lower = [other for other in present() if (room, other) in found]
        lists.append(f"| {room} | {', '.join(lower) or '–'} |")
    return {"rooms": "\n".join(rooms), "arrows": "\n".join(lists)}


def rewritten(text: str) -> str:
    """The page with its tables as the imports are now."""
    for name, table in tables().items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


def fingerprint() -> str:
    """What the picture carries in its metadata: a hash of the table of arrows."""
    return hashlib.sha256(tables()["arrows"].encode()).hexdigest()


def draw(path: Path = PICTURE) -> None:
    """Draw the rooms on a diagonal, and each arrow as a way to the right and then down.

    A dot where a room's row meets another's column is an arrow; its area is the number of imports.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rooms, found = present()[::-1], arrows()
    last, wide, high = len(rooms) - 1, 0.48, 0.3
    colours = plt.get_cmap("tab10").colors
    figure, axes = plt.subplots(figsize=(14, 8.5))
    for i, room in enumerate(rooms):
        colour = colours[i % 10]
        right = [j for j, other in enumerate(rooms) if (room, other) in found]
        above = [j for j, other in enumerate(rooms) if (other, room) in found]
        if right:
            axes.plot([i + wide, max(right)], [-i, -i], color=colour, linewidth=1.3, zorder=1)
        if above:
            axes.annotate("", (i, -i + high), (i, -min(above)), zorder=1, arrowprops={
                "arrowstyle": "-|>", "color": "0.65", "linewidth": 1, "shrinkA": 0, "shrinkB": 0})
        for j in right:
            axes.scatter(j, -i, s=22 * found[room, rooms[j]], color=colour, zorder=3)
        axes.add_patch(plt.Rectangle((i - wide, -i - high), 2 * wide, 2 * high, zorder=4,
                                     facecolor="white", edgecolor=colour, linewidth=2))
        axes.text(i, -i, room, ha="center", va="center", fontsize=9, zorder=5)
    axes.set(xlim=(-0.6, last + 0.6), ylim=(-last - 0.5, 0.6))
    axes.axis("off")
    axes.set_title(
        "Rooms of ftkit and the imports between them: from the importing room to the right, then "
        "down\nto the imported one; a dot's area is the number of imports. No arrow goes up.",
        fontsize=11, loc="left")
    most = max(found.values())
    for place, n in enumerate((1, 5, most)):
        y = -last + 1.6 - 0.7 * place
        axes.scatter(0.2, y, s=22 * n, color="0.4")
        axes.text(0.6, y, f"{n} import{'s' * (n > 1)}", va="center", fontsize=10)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"ftkit": fingerprint()})
    plt.close(figure)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw()
    print(*upward(), *([" -> ".join(circle())] if circle() else []), sep="\n")
