"""Opens the lessons of a folder in JupyterLab, set up for somebody who learns.

Loaded into each kernel of that JupyterLab, too, where it explains what a restart leaves behind.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from ftkit.errors import SettingError

# By JupyterLab's own plugins and settings: no news and no question whether they are wanted, data
# cards shown as pages, memory given back when a lesson is closed, and widgets saved with what they
# show, so that the next day there is no error in their place.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {
        "defaultViewers": {"markdown": "Markdown Preview"}},
    "@jupyterlab/notebook-extension:tracker": {"kernelShutdown": True},
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
}


def command(folder: str | Path, page: Path) -> tuple[list[str], dict[str, str]]:
    """How JupyterLab is started on a folder: its arguments and its environment.

    It listens on this machine alone, and its token is a new one each time.
    Raises SettingError where JupyterLab is not installed.
    """
    if not find_spec("jupyterlab"):
        raise SettingError("JupyterLab is not installed here: pip install 'ftkit[lab]'.")
    folder = Path(folder).resolve()
    own = folder / ".ftkit"
    _write(own / "config" / "labconfig" / "default_setting_overrides.json", SETTINGS)
    _write(own / "data" / "kernels" / "python3" / "kernel.json", {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                 "--ext", __name__],
        "display_name": "Python 3 (ipykernel)", "language": "python",
        "metadata": {"debugger": True}})
    environment = dict(os.environ)
    for name, first in (("JUPYTER_PATH", own / "data"), ("JUPYTER_CONFIG_PATH", own / "config"),
                        ("PATH", Path(sys.executable).parent)):  # there `ftkit` is, for !ftkit
        environment[name] = os.pathsep.join(filter(None, [str(first), environment.get(name)]))
    # Bars of other libraries are widgets, of which the next day nothing is left but an error.
    for name in ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        environment.setdefault(name, "1")
    where = page.resolve().relative_to(folder).as_posix()
    arguments = [sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1",
                 f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{where}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container; refused otherwise
        arguments.append("--allow-root")
    return arguments, environment


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def open_lab(folder: str | Path, page: Path) -> None:
    """Start JupyterLab on a folder, at one of its pages, in place of this process."""
    arguments, environment = command(folder, page)
    sys.stdout.flush()
    os.execve(arguments[0], arguments, environment)


def load_ipython_extension(shell):
    """Called by IPython: from now on a name that is not known is explained below its error."""

    def explain(shell, kind, error, trace, tb_offset=None):
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        name = getattr(error, "name", None) or "That name"
        print(f"{name} is not known to this kernel. Was the kernel restarted, or a cell above not "
              "run?\nThen choose Run, Run All Above Selected Cell, and run this cell again.")

    shell.set_custom_exc((NameError,), explain)
