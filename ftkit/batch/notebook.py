"""Reads, judges, cleans and writes notebook files as plain JSON, without Jupyter's libraries."""

import ast
import errno
import hashlib
import json
import re
import tempfile
from pathlib import Path

from ftkit.assets import atomic
from ftkit.errors import DataError, FtkitError, SettingError

CLAIM = "application/vnd.ftkit.claim+json"
WIDGETS = ("application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
INJECTED = "injected-parameters"


def read(path):
    """Return the notebook in a file as a dict. Raises DataError when it is no Python notebook."""
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        if notebook["nbformat"] != 4:
            raise ValueError(f"its format is {notebook['nbformat']}")
        for number, cell in enumerate(notebook["cells"], 1):
            _check_cell(cell, f"cell {number}")
        language = _language(notebook["metadata"])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; name a notebook or a folder of lessons.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"it has no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path} is not a notebook of format 4: {wrong}. Open it in JupyterLab and "
                        "save it again.") from None
    if language.lower() not in ("python", "ipython", "python3", "ipython3"):
        raise DataError(f"{path} is a notebook for {language}, and only Python is run.")
    return notebook


def _check_cell(cell, name):
    """Raise ValueError unless a cell has what the rest of this module reads of it."""
    if cell.get("cell_type") not in ("code", "markdown", "raw"):
        raise ValueError(f"{name} is of the kind {cell.get('cell_type')!r}")
    lines = cell.get("source")
    if not isinstance(lines, str) and not (
            isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise ValueError(f"{name} has no text as its source")
    if not isinstance(cell.get("metadata", {}), dict):
        raise ValueError(f"{name} has metadata that are no table")
    if cell["cell_type"] == "code" and not isinstance(cell.get("outputs", []), list):
        raise ValueError(f"{name} has outputs that are no list")


def _language(metadata):
    kernel, info = metadata.get("kernelspec", {}), metadata.get("language_info", {})
    return kernel.get("language") or info.get("name") or "python"


def write(notebook, path):
    """Write a notebook as Jupyter would. The file is complete or, after an error, as it was."""
    write_file(json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n", path)


def write_file(content, path):
    """Write text or bytes, whole or not at all. Raises FtkitError when it cannot."""
    try:
        atomic.write(path, content)
    except OSError as error:
        raise FtkitError(f"{path} could not be written: {error.strerror}. What was there before is "
                         f"unchanged. {remedy(error)}, or choose another output folder.") from error


def remedy(error):
    """Return what to do, in a few words, about an OSError while writing."""
    return "Free some space" if error.errno in NO_SPACE else "Make the folder writable"


def source(cell):
    """Return a cell's source as one string."""
    return "".join(cell["source"])


def code_cells(notebook):
    """Return (position, cell) of each code cell that is not empty."""
    return [(i, c) for i, c in enumerate(notebook["cells"])
            if c["cell_type"] == "code" and source(c).strip()]


def tags(cell):
    """Return the tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def source_hash(notebook):
    """Return the sha256 of the code that makes the outputs; prose and injected values left out."""
    code = [source(c) for _, c in code_cells(notebook) if INJECTED not in tags(c)]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def whole_hash(notebook):
    """Return the sha256 of every cell's kind, tags and source: what a reader sees before a run."""
    cells = [(c["cell_type"], tags(c), source(c)) for c in notebook["cells"]]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def parameters(notebook, name="this notebook"):
    """Return the names and default values in the cell tagged `parameters`, {} without one.

    Raises SettingError when the cell is not Python, or a default is not a literal value.
    """
    cell = next((c for c in notebook["cells"] if "parameters" in tags(c)), None)
    code = re.sub(r"(?m)^[%!].*$", "", source(cell)) if cell else ""  # IPython's own commands
    try:
        lines = ast.parse(code).body
    except SyntaxError as error:
        raise SettingError(f"the parameters cell of {name} is not Python: {error.msg} in its line "
                           f"{error.lineno} ({(error.text or '').strip()!r}).") from None
    defaults = {}
    for line in lines:
        if isinstance(line, ast.Assign) and len(line.targets) == 1:
            target = line.targets[0]
        elif isinstance(line, ast.AnnAssign) and line.value is not None:
            target = line.target
        else:
            continue
        try:
            defaults[target.id] = ast.literal_eval(line.value)
        except (ValueError, AttributeError):
            raise SettingError(f"the parameters cell of {name} has `{ast.unparse(line)}`; write a "
                               "literal value (number, string, True, None), so that it can be "
                               "replaced from outside.") from None
    return defaults


def claims(notebook):
    """Return the claims that an executed notebook shows; of two with the same words, the later.

    Raises DataError for an output that says to be a claim and is none.
    """
    found = {}
    for number, cell in code_cells(notebook):
        for output in cell.get("outputs", ()):
            shown = output.get("data", {}).get(CLAIM, [])
            for claim in shown if isinstance(shown, list) else [shown]:
                if not _is_claim(claim):
                    raise DataError(f"cell {number + 1} shows a claim without what one has (see "
                                    f"ft.claim): {str(claim)[:100]}")
                found[claim["claim"]] = claim
    return list(found.values())


def _is_claim(claim):
    """Whether all that judges, tables and figures read of a claim is there."""
    try:
        parts = [claim[part] for part in ("before", "after", "difference")]
        numbers = [part[key] for part in parts if part for key in ("value", "low", "high")]
        return (isinstance(claim["claim"], str) and {"held", "judged", "metric", "relative"}
                <= claim.keys() and all(n is None or float(n) is not None for n in numbers))
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def failure(notebook):
    """Return what is wrong with an executed notebook, None when every code cell ran to its end.

    The answer has `cell` (position from 0), `error`, `message`, `traceback` and `source`.
    """
    for position, cell in code_cells(notebook):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                return {"cell": position, "error": output["ename"], "message": output["evalue"],
                        "traceback": [plain(line) for line in output.get("traceback", ())],
                        "source": source(cell)}
        if cell.get("execution_count") is None:
            return {"cell": position, "error": "NotExecuted", "traceback": [],
                    "message": "this cell was never executed", "source": source(cell)}
    return None


def plain(text):
    """Return text without the colour codes of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def scrub(notebook):
    """Return a copy without timings, paths, widget state and what a rerun would change for nothing.

    Streams that follow one another are joined, and a progress bar keeps its last state.
    """
    clean = json.loads(json.dumps(notebook))
    for key in ("papermill", "widgets"):
        clean["metadata"].pop(key, None)
    clean["cells"] = [c for c in clean["cells"] if "papermill-error-cell-tag" not in tags(c)]
    for cell in clean["cells"]:
        for key in ("papermill", "execution", "ExecuteTime"):
            cell["metadata"].pop(key, None)
        if cell["cell_type"] == "code":
            cell["outputs"] = _clean_outputs(cell["outputs"])
    return clean


def _clean_outputs(outputs):
    kept = []
    for output in outputs:
        if output["output_type"] == "stream":
            last = kept[-1] if kept else {}
            if last.get("output_type") == "stream" and last["name"] == output["name"]:
                last["text"] = [*last["text"], *output["text"]]
                continue
        elif any(kind in output.get("data", {}) for kind in WIDGETS):
            continue
        kept.append(output)
    for output in kept:
        if output["output_type"] == "stream":
            lines = "".join(output["text"]).replace("\r\n", "\n").split("\n")
            lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines]
            output["text"] = "\n".join(lines).splitlines(keepends=True)
    return [o for o in kept if o["output_type"] != "stream" or "".join(o["text"]).strip()]


def file_hash(path):
    """Return the sha256 of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def machine_paths(notebook, forbidden=()):
    """Return (cell position, text) for outputs that show a path of the machine that ran it.

    forbidden: paths to look for besides the user's home and the temporary folder.
    """
    paths = {str(p).rstrip("/") for p in (Path.home(), "/tmp", tempfile.gettempdir(), *forbidden)}
    words = "|".join(re.escape(p) for p in sorted(paths) if len(p) > 1)
    pattern = re.compile(rf"(?<![\w.])(?:{words}|/home/\w+|/Users/\w+)(?=[/\s\"'`.,:;)\]<]|$)")
    found = []
    for position, cell in code_cells(notebook):
        for output in cell.get("outputs", ()):
            texts = [output.get("text", ""), output.get("traceback", "")]
            texts += [v for k, v in output.get("data", {}).items() if k not in ("image/png",)]
            for text in texts:
                joined = "".join(text) if isinstance(text, list) else str(text)
                if match := pattern.search(joined):
                    start = max(0, match.start() - 30)
                    found.append((position, joined[start:match.end() + 50].strip()))
    return found


def commit(executed, target, *, profile=None, forbidden=()):
    """Copy the outputs of a default run of a lesson back into the lesson's own file.

    executed: the notebook after the run. target: the path of its source.
    Raises FtkitError when the run is not of this source, failed, or shows a path of this machine.
    """
    lesson, executed = read(target), scrub(executed)
    if [source(c) for c in executed["cells"]] != [source(c) for c in lesson["cells"]]:
        raise FtkitError(f"the run is not of {target} with its default parameters: their cells "
                         "differ. Run it again without -p and commit that.")
    if wrong := failure(executed):
        raise FtkitError(f"{target}: cell {wrong['cell'] + 1} did not succeed ({wrong['error']}: "
                         f"{wrong['message']}); only a run without errors can be committed.")
    if shown := machine_paths(executed, forbidden):
        position, text = shown[0]
        raise FtkitError(f"{target}: the output of cell {position + 1} shows a path of this "
                         f"machine (…{text}…). Print a name or a relative path there.")
    for cell, ran in zip(lesson["cells"], executed["cells"], strict=True):
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = ran["outputs"], ran["execution_count"]
    lesson["metadata"].pop("widgets", None)
    lesson["metadata"]["ftkit"] = {"source_hash": source_hash(lesson), "profile": profile}
    write(lesson, target)
