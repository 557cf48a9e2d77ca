"""Looks at this machine for `ftkit doctor`: what works, what does not, why, and the remedy."""

import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path

OK, WARN, FAIL = "OK", "WARN", "FAIL"
GIB = 1024**3
ADDRESSES = ("https://pypi.org/simple/", "https://huggingface.co/")


def examine():
    """Yield (level, what, words) for each check; words hold the remedy of a WARN or FAIL."""
    yield OK, "Python", f"{platform.python_version()} at {sys.executable}"
    yield from _place()
    torch_works = _torch()
    yield torch_works
    if torch_works[0] != FAIL:
        yield from _compute()
    yield _memory()
    yield from _cache()
    yield _network()
    yield _jupyter()
    yield _versions()


def hosted():
    """Where somebody else's machine shows this in a browser: "Colab", "Binder" or ""."""
    if "COLAB_RELEASE_TAG" in os.environ:
        return "Colab"
    return "Binder" if {"BINDER_SERVICE_HOST", "BINDER_LAUNCH_HOST"} & set(os.environ) else ""


def _place():
    """What a kind of machine lacks by its nature, and what a checkout needs of any."""
    if os.name == "nt":
        yield WARN, "system", "Windows by itself is not tested; work in WSL 2, in its own files"
    place = hosted()
    if place == "Colab":
        yield OK, "system", ("Google Colab, whose disk is emptied when the session ends: mount "
                             "Drive, and set FTKIT_HOME and FTKIT_RUNS to folders there")
    elif place == "Binder":
        yield OK, "system", ("Binder, whose disk is emptied when the session ends: download what "
                             "you wrote. It gives about 2 GB of memory: choose the profile smoke")
    elif "microsoft" in platform.release().lower():
        from ftkit.assets import fetch

        slow = [path for path in (Path.cwd(), fetch.cache_home()) if re.match(r"/mnt/[a-z](/|$)",
                                                                              str(path))]
        if slow:
            yield WARN, "system", (f"WSL, and {slow[0]} is on the disk of Windows, where files are "
                                   "opened slowly and locks may fail; work in a folder below ~")
        else:
            yield OK, "system", "WSL, in its own files"
    if (Path(__file__).parents[1] / "Makefile").exists():
        missing = [name for name in ("make", "git") if not shutil.which(name)]
        if missing:
            remedy = ("xcode-select --install" if sys.platform == "darwin" else
                      f"sudo apt install {' '.join(missing)}")
            yield WARN, "commands", f"{' and '.join(missing)} missing, for `make lab`: {remedy}"


def _torch():
    try:
        import torch
    except Exception as error:  # a broken build raises OSError and more: all mean the same here
        return FAIL, "torch", f"cannot be imported ({error}); run `pip install torch`"
    return OK, "torch", f"{torch.__version__}, {torch.get_num_threads()} threads"


def _compute():
    from ftkit.models import hardware, precision
    from ftkit.models.peak import matrix_peak

    machine = hardware.this_machine()
    many = f", {machine.devices} of them" if machine.devices > 1 else ""
    yield OK, "device", f"{machine.device}: {machine.name}{many}, {machine.memory / GIB:.1f} GiB"
    chosen = precision.choose_dtype(machine)
    yield OK, "dtype", f"{chosen.why}"
    yield OK, "attention", hardware.choose_attention(machine, 128).why
    rates = {name: matrix_peak(name) for name in dict.fromkeys(["float32", chosen.value])}
    words = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s {name}" for name, rate in rates.items())
    yield OK, "matrix peak", f"{words} (measured)"


def _memory():
    import psutil

    from ftkit.models.hardware import usable_cores, usable_memory

    memory, total = psutil.virtual_memory(), usable_memory()
    words = (f"{usable_cores()} cores, {total / GIB:.1f} GiB of memory, "
             f"{min(memory.available, total) / GIB:.1f} free")
    # What has ended by now, or may not be looked at, has None.
    every = [one.info for one in psutil.process_iter(["cmdline", "memory_info"])]
    kernels = [one["memory_info"].rss for one in every
               if "ipykernel_launcher" in (one["cmdline"] or ()) and one["memory_info"]]
    if kernels:
        words += f"; {len(kernels)} notebook kernels hold {sum(kernels) / GIB:.1f} GiB"
    if min(memory.available, total) < 3 * GIB:
        remedy = {"Binder": "the profile smoke takes less, and other lessons need another machine",
                  "Colab": "choose Runtime, then Restart session, which frees what it holds"}.get(
            hosted(), "give this container more, or choose the profile smoke" if total < 3 * GIB
            else "shut down the kernels of other notebooks, or close other programs")
        return WARN, "cores, memory", f"{words}; lessons take up to 3: {remedy}"
    return OK, "cores, memory", words


def _cache():
    from ftkit.assets import fetch
    from ftkit.data import recipe

    home = fetch.cache_home()
    there = next(path for path in [home, *home.parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            writable = True
    except OSError as error:
        writable = False
        why = error.strerror
    archives = recipe.archives()
    cached = {name for name in archives if fetch.is_cached(name, deep=True)}
    damaged = [fetch.archive_path(name).name for name in archives
               if name not in cached and fetch.archive_path(name).exists()]
    damaged += [f"{key} ({wrong})" for key, wrong in fetch.damaged_folders()]
    words = f"{home}: {len(cached)} of {len(archives)} archives"
    if not writable:
        yield FAIL, "cache", (f"{words}, cannot be written ({why}); make it writable, or set "
                              "FTKIT_HOME to a folder that is")
    elif damaged:
        yield WARN, "cache", (f"{words}; damaged: {', '.join(damaged)}; `ftkit fetch --all` gets "
                              "them again")
    else:
        hint = "" if len(cached) == len(archives) else "; `ftkit fetch --all` gets the rest"
        yield OK, "cache", f"{words}, writable{hint}"
    free = shutil.disk_usage(there).free
    level = FAIL if free < 0.2 * GIB else WARN if free < 3 * GIB else OK
    remedy = "" if level == OK else "; about 3 are needed: free some, or set FTKIT_HOME elsewhere"
    yield level, "disk", f"{free / GIB:.1f} GiB free for the cache{remedy}"


def _network():
    from ftkit.assets import fetch

    if fetch.offline():
        return OK, "network", "not used: FTKIT_OFFLINE is set"
    import urllib.error
    import urllib.request

    unreached = []
    for address in ADDRESSES:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=3)
        except urllib.error.HTTPError:
            pass  # it answered, which is all that is asked
        except (OSError, ValueError):
            unreached.append(address.split("/")[2])
    if unreached:
        return WARN, "network", (f"no answer from {' and '.join(unreached)}; what is cached works "
                                 "without, and pip may use another index (`pip config list`)")
    return OK, "network", "the package index and the model hub answer"


def _jupyter():
    missing = [name for name in ("papermill", "ipykernel") if not util.find_spec(name)]
    if missing:
        return FAIL, "notebooks", f"{', '.join(missing)} missing; run `pip install -e .`"
    words = f"papermill {metadata.version('papermill')}, kernel of this Python"
    if lab := [name for name in ("jupyterlab", "ipywidgets") if not util.find_spec(name)]:
        return WARN, "notebooks", f"{words}; without {' and '.join(lab)}: pip install 'ftkit[lab]'"
    return OK, "notebooks", f"{words}, JupyterLab {metadata.version('jupyterlab')}"


def _versions():
    path = Path(__file__).parents[1] / "constraints.txt"
    if not path.exists():
        return WARN, "versions", "not compared: constraints.txt is not beside this installation"
    other, count = [], 0
    for name, tested in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE):
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
        count += 1
        if installed != tested:
            other.append(f"{name} {installed} (tested: {tested})")
    if other:
        return WARN, "versions", (f"{', '.join(other)}; for the tested ones run "
                                  "`pip install -c constraints.txt -e .`")
    return OK, "versions", f"{count} installed packages are the tested ones"


def main():
    """Print every check as it ends. Returns 1 when one failed, else 0."""
    levels = []
    colours = {OK: "32", WARN: "33", FAIL: "31"}
    for level, what, words in examine():
        levels.append(level)
        mark = f"[{level}]".ljust(7)
        if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            mark = f"\033[{colours[level]}m{mark}\033[0m"
        print(f"{mark}{what:<14} {words}", flush=True)
    return 1 if FAIL in levels else 0
