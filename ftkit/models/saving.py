"""Puts a saved model into its folder, whole, and leaves there what others put beside it."""

import json
import os
import shutil
import warnings
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import distributed

from ftkit.assets import atomic, checksums
from ftkit.errors import FetchError
from ftkit.models.specs import CARD

README = "README.md"  # a model card: peft writes one, and people write theirs over it
# What a model is loaded from; if another program wrote it, it is of the model all the same.
_LOADED = ("adapter_config.json", "*.safetensors", "*.safetensors.index.json")
# What a model saved before its card listed the files consists of.
_USUAL = ("*config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json",
          "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja",
          "*.model")


def save_folder(folder, build):
    """Fill a folder with a model and return its path; a model that was there gives way in one step.

    build(empty_folder) writes the files and returns what the card says; the list of files is added.
    Files of others (notes, a README.md that was edited, checkpoints) stay. Of several processes
    that train together the first alone writes.
    Raises FetchError where the folder holds something else, or cannot be written; what was there
    before then is as it was.
    """
    folder = Path(folder)
    place = folder.resolve() if folder.is_symlink() else folder
    empty = place.is_dir() and not any(place.iterdir())
    if place.exists() and not (place / CARD).is_file() and not empty:
        raise FetchError(f"{folder} exists and is no saved ftkit model; nothing was written. "
                         "Choose another folder.")
    if distributed.is_available() and distributed.is_initialized() and distributed.get_rank():
        return folder
    try:
        with atomic.new_folder(place) as scratch:
            card = build(scratch)
            atomic.open_to_readers(scratch)
            card["files"] = {
                path.relative_to(scratch).as_posix(): [path.stat().st_size, checksums.digest(path)]
                for path in sorted(scratch.rglob("*")) if path.is_file()
            }
            for path in _of_others(place):
                _keep(path, scratch / path.relative_to(place))
            (scratch / CARD).write_text(json.dumps(card, indent=1))
    except (OSError, SafetensorError) as error:
        raise FetchError(f"the model could not be saved to {folder}: {error}. What was there "
                         "before is unchanged. Free some space or make the folder writable, or "
                         "choose another.") from error
    return folder


def read_card(folder):
    """Return what a saved folder says about itself, {} where it is none of the kit's.

    Warns of weights that another program wrote since (peft, transformers, a merge), which are
    loaded. Raises FetchError for a card or weights that cannot be read, and for such as differ from
    what was saved though nobody has written the file since (it is no younger than the card).
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise _damaged(path, f"is not JSON ({error})") from None
    if rewritten := list(_rewritten(folder, card.get("files") or {}, path)):
        warnings.warn(f"{folder}: {', '.join(rewritten)} was written by another program since "
                      "ftkit saved the model, so that these are other weights than the card and "
                      "earlier results speak of", stacklevel=4)
    return card


def _rewritten(folder, files, card):
    """Yield the names of weights that are whole and not those listed. Raises FetchError for damage.

    files: {name: [bytes, checksum]}. The card was written after all that it lists.
    """
    if not files:
        return
    now = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
    for name, path in now.items():
        size, checksum = files.get(name, (None, None))
        found = path.stat()
        try:
            with safe_open(path, "pt"):  # reads the head, and compares it with the length
                pass
        except (SafetensorError, OSError) as error:
            saved = "" if size in (None, found.st_size) else f" and was saved with {size:,}"
            wrong = f"has {found.st_size:,} bytes{saved}, and cannot be read ({error})"
            raise _damaged(path, wrong) from None
        if size is not None and found.st_size == size and checksums.digest(path) == checksum:
            continue
        if size is not None and found.st_mtime_ns <= card.stat().st_mtime_ns:
            wrong = "has another content than was saved, and has not been written since"
            more = f" If it was changed on purpose, take its line out of {card}."
            raise _damaged(path, wrong, more)
        yield name
    if gone := [n for n in files if fnmatch(n, "*.safetensors") and "/" not in n and n not in now]:
        if not now:
            raise _damaged(folder / gone[0], "is missing, and no other weights are there")
        yield f"{gone[0]} (removed)"


def _damaged(path, wrong, more=""):
    return FetchError(f"{path} {wrong}: it was damaged. Save the model again, or take the folder "
                      f"from where it was copied.{more}")


def _of_others(folder):
    """Yield what is in a saved model's folder, and not of the model."""
    if not folder.is_dir():
        return
    try:
        card = json.loads((folder / CARD).read_text())
    except (OSError, ValueError):
        card = {}
    written = card.get("files")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == CARD:
            continue
        usual = path.parent == folder and any(fnmatch(name, pattern) for pattern in _USUAL)
        ours = written and path.parent == folder and any(fnmatch(name, one) for one in _LOADED)
        own = name in written or ours if written else usual
        edited = name == README and own and checksums.digest(path) != written[name][1]
        if not own or edited:
            yield path


def _keep(path, target):
    """Give a file a second name in another folder; the first is about to go."""
    if path.is_dir() and not path.is_symlink():
        target.mkdir(exist_ok=True)
        return
    target.unlink(missing_ok=True)
    if path.is_symlink():
        os.symlink(os.readlink(path), target)
        return
    try:
        os.link(path, target)
    except OSError:  # the file system has no second names
        shutil.copy2(path, target)
