"""Which checkpoint a training goes on from: the newest that was written to its end."""

import json
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ftkit.training.callbacks import BEST

STATE = "trainer_state.json"  # the last file that the Trainer writes


def last_whole(folder, processes=1):
    """The newest whole checkpoint in a folder, a Path; None where there is none.

    processes: that trained, each of which writes its random numbers. Parts of one are passed over.
    """
    if folder is None or not Path(folder).is_dir():
        return None
    found = [path for path in Path(folder).iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)]
    whole = [path for path in found if _whole(path, processes)]
    return max(whole, key=lambda path: (path / STATE).stat().st_mtime_ns, default=None)


def _whole(path, processes):
    try:
        state = json.loads((path / STATE).read_text())
        kept = state.get("stateful_callbacks", {}).get("KeepBest", {}).get("attributes", {})
        weights = list(path.rglob("*.safetensors"))
        for file in weights:
            with safe_open(file, "pt"):  # looks at the length of the file
                pass
        parts = set()  # of weights that do not fit in one file
        for index in path.glob("*.index.json"):
            parts |= set(json.loads(index.read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError):
        return False
    random = [path / name for name in (
        ["rng_state.pth"] if processes == 1 else [f"rng_state_{i}.pth" for i in range(processes)]
    )]
    if not any(file.exists() for file in random):  # of another number of processes
        random = list(path.glob("rng_state*.pth")) or random
    archives = [path / "optimizer.pt", path / "scheduler.pt", *random]
    names = {file.name for file in weights}
    if kept.get("best") is not None and BEST not in names or not parts <= names:
        return False
    # The last thing in such an archive says what is in it.
    return bool(names - {BEST}) and all(zipfile.is_zipfile(file) for file in archives)
