"""Runs one notebook with papermill in a process of its own; started by ftkit.batch, not by hand."""

import ctypes
import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path


def main(job_file, **options):
    """Run the job in a JSON file; returns 0 when papermill did. options: more of nbclient's."""
    job = json.loads(Path(job_file).read_text())
    set_subreaper(True)
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        return _execute(job, options)
    finally:
        _end_children()


def _tell(path, text):
    """Write a file that another process reads at any time: never empty, as between two states."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    os.replace(beside, path)


def _execute(job, options):
    # jsonschema takes 2 s to build a grammar of web addresses that no notebook needs.
    sys.modules["rfc3987_syntax"] = None
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.execute import execute_notebook

    class AnnouncingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            start = nb_man.cell_start

            def announce(cell, cell_index=None, **more):
                _tell(Path(job["progress"]), f"{cell_index + 1} {len(nb_man.nb.cells)}")
                return start(cell, cell_index, **more)

            nb_man.cell_start = announce
            super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("ftkit", AnnouncingEngine)
    try:
        execute_notebook(
            _path(job["input"]), _path(job["output"]), job["parameters"], engine_name="ftkit",
            kernel_name="python3", progress_bar=False, cwd=job["cwd"],
            # The batch ends a start that takes too long: Jupyter would go by a clock that may jump.
            start_timeout=10**9, execution_timeout=job["cell_timeout"],
            **options)
    except BaseException as error:
        verdict = {"error": type(error).__name__, "message": str(error),
                   "errno": getattr(error, "errno", None)}
        Path(job["verdict"]).write_text(json.dumps(verdict))
        print(f"{verdict['error']}: {verdict['message']}", file=sys.stderr)
        return 1
    Path(job["verdict"]).write_text(json.dumps({"error": None}))
    return 0


def _path(path):
    return path.replace("{", "{{").replace("}", "}}")  # papermill fills braces in file names


def set_subreaper(on):
    """Set whether this process adopts orphans of its descendants (on Linux); return as it was."""
    if sys.platform != "linux":
        return False
    was = ctypes.c_int()
    library = ctypes.CDLL(None)
    library.prctl(37, ctypes.byref(was), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    library.prctl(36, int(on), 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    return bool(was.value)


def _end_children():
    """End all descendants, those that a child starts while it is being ended included."""
    import psutil

    end = time.monotonic() + 5
    while (children := _alive(psutil)) and time.monotonic() < end:
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=1)


def _alive(psutil):
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [child] if child.status() != psutil.STATUS_ZOMBIE else []
    return found


def _leave_with_parent(parent):
    """End this process and its kernel when the batch that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    _end_children()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
