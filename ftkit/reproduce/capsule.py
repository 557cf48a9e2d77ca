"""A capsule: one file that holds what a run can be done again from, and what came out.

A zip archive without compression, so that the same run gives the same bytes and no member is larger
than it looks. manifest.json has the sha256 of all the others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import ftkit
from ftkit.assets import atomic, fetch
from ftkit.batch import notebook as nb
from ftkit.errors import DataError, FetchError, FtkitError, SettingError
from ftkit.models.load import load_model
from ftkit.reproduce import rerun
from ftkit.serving.hosted import PRIVATE
from ftkit.training import records

FORMAT = 1
MANIFEST, LOCK, NOTEBOOK, CLAIMS = "manifest.json", "requirements.lock", "notebook.ipynb", (
    "claims.json")
DATA, MODEL = "data", "model"
SECRETS = ("API key", "access token", "private key")  # of PRIVATE, which no example needs
_TIME = (1980, 1, 1, 0, 0, 0)  # of each member: when it was written is in the record


def capsule(run: Any, file: str | Path, *, model: str | Path | None = None,
            notebook: str | Path | None = None, data: Any = None, with_data: bool = False) -> Path:
    """Pack a run into one file, with which `ft.replay` does it again and compares.

    run: of ft.fit, or the folder of its record. file: to be written, whole or not at all. model:
    the folder in which the tuned model was saved; of a Run it is saved now, and of a folder it is
    looked for in its `model`. notebook: as it was executed, with its claims. data: what the run was
    trained on, as in ft.explain_difference; only needed with_data=True, which packs the rows.
    In it are the record (settings, losses, machine, hashes of the base and of the rows), the tuned
    weights as safetensors (of an adapter the adapter alone; the base by its name and hash), the
    names and versions of all packages, and the sha256 of each file. Rows stay outside unless they
    are asked for.
    Returns the path. Raises SettingError for a run that its record does not tell how to do again,
    DataError where weights or rows are not those of the run, for a notebook that did not succeed,
    and for what looks like a key or a token; FetchError where the file cannot be written.
    """
    found, path = rerun.recorded(run), Path(file)
    _check_run(found, notebook)
    _check_target(path)
    with tempfile.TemporaryDirectory(prefix="ftkit-") as scratch:
        folder = Path(scratch)
        for name in (records.FILE, records.HISTORY):
            shutil.copyfile(found.folder / name, folder / name)
        _put_model(run, found, model, folder / MODEL)
        if with_data:
            _put_rows(found.record, data, folder / DATA)
        if notebook:
            _put_notebook(notebook, folder)
        installed = {f"{one.name}=={one.version}" for one in metadata.distributions()}
        (folder / LOCK).write_text("\n".join(sorted(installed, key=str.lower)) + "\n")
        _check_secrets(folder)
        try:
            with atomic.new_file(path) as target:
                _write(folder, target)
        except OSError as error:
            raise FetchError(f"{path} could not be written: {error.strerror}. What was "
                             "there before is unchanged; free some space, or choose "
                             "another place.") from error
    return path


def _check_run(found, notebook):
    if found.missing:
        raise SettingError(f"the record in {found.folder} lacks {', '.join(found.missing)}, as an "
                           "earlier version of the kit wrote it, so that the run cannot be done "
                           "again from it. Train it again.")
    if stopped := found.record["settings"].get("interrupted"):
        raise SettingError(f"the run was interrupted {stopped}, and another would not stop at that "
                           "place. Train it to its end.")
    if not notebook:  # whose own code trains it
        rerun.arguments(found.record["fit"], found.record["base"]["dtype"])


def _check_target(path):
    if path.exists() and not is_capsule(path):
        raise SettingError(f"{path} exists and is no capsule; nothing was written. Choose another.")


def is_capsule(path: Path) -> bool:
    """Whether a file is a zip archive with a manifest in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return MANIFEST in archive.namelist()


def _put_model(run, found, given, target):
    if given is None and hasattr(run, "model"):
        tuned = run.model
        tuned.save(target)
    else:
        source = Path(given or found.folder / MODEL)
        if not source.is_dir():
            raise SettingError(f"{source} is no folder with the tuned model of the run; give "
                               "model=, the folder that run.model.save wrote.")
        tuned = load_model(str(source.resolve()), dtype=found.record["base"]["dtype"])
        shutil.copytree(source, target)
    if (weights := tuned.fingerprint()) != found.record["weights"]:
        raise DataError(f"the weights of {tuned.name} have the hash {weights[:12]}, and those of "
                        f"the run had {found.record['weights'][:12]} when it ended; give the model "
                        "as it was then.")


def _put_rows(record, given, target):
    splits = rerun.rows_of(record, given)
    if wrong := rerun.other_rows(record, splits):
        raise DataError(f"{wrong}; give the rows that fit was given, in their order.")
    target.mkdir()
    for name in record["splits"]:
        lines = [json.dumps(row, ensure_ascii=False, default=str) for row in splits[name]]
        (target / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if wrong := rerun.other_rows(record, read_rows(target)):
        raise DataError("the rows are not the same when they are read back as JSON lines "
                        f"({wrong}); leave with_data out, and hand the data over by itself.")


def read_rows(folder: Path) -> dict[str, Any]:
    """The splits in a capsule's folder of rows, {name: Dataset}."""
    from datasets import Dataset

    return {path.stem: Dataset.from_list([json.loads(line) for line in
                                          path.read_text(encoding="utf-8").split("\n") if line])
            for path in sorted(folder.glob("*.jsonl"))}


def _put_notebook(path, folder):
    notebook = nb.scrub(nb.read(path))
    if wrong := nb.failure(notebook):
        raise DataError(f"{path}: cell {wrong['cell'] + 1} did not succeed ({wrong['error']}: "
                        f"{wrong['message']}); pack a notebook that was run to its end, as by "
                        "`ftkit batch`.")
    nb.write(notebook, folder / NOTEBOOK)
    (folder / CLAIMS).write_text(json.dumps(nb.claims(notebook), indent=1))


def _check_secrets(folder):
    """Raise DataError for what looks like a key in what people wrote; a vocabulary is no text."""
    for path in [*folder.glob("*.*"), *folder.glob(f"{DATA}/*")]:
        if path.is_file() and path.name != LOCK:
            text = path.read_text(encoding="utf-8")
            for what in SECRETS:
                if found := PRIVATE[what].search(text):
                    raise DataError(f"{path.name} would hold what looks like an {what} "
                                    f"({found[0][:6]}…); take it out, and run it again. Nothing "
                                    "was written.")


def _write(folder, target):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): {"sha256": nb.file_hash(path),
                                                   "bytes": path.stat().st_size} for path in paths}
    manifest = {"format": FORMAT, "made by": f"ftkit {ftkit.__version__}", "files": files}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member(MANIFEST), json.dumps(manifest, indent=1))
        for path, name in zip(paths, files, strict=True):
            large = path.stat().st_size > 2**31
            with open(path, "rb") as source, archive.open(_member(name), "w",
                                                          force_zip64=large) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def _member(name):
    info = zipfile.ZipInfo(name, _TIME)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.create_system = 3  # Unix, wherever it is written
    return info


def unpack(file: str | Path, folder: Path) -> list[str]:
    """Write the members of a capsule into an empty folder. Returns what was changed, in words.

    Nothing is written outside of the folder. Raises DataError for a file that is no capsule, or is
    built in a way that none is, as with a member that would leave the folder.
    """
    path = Path(file)
    if not path.is_file() or not is_capsule(path):
        raise DataError(f"{path} is no capsule; `ftkit capsule RUN_FOLDER --out FILE` writes one.")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [info.filename for info in members]
        if len(set(names)) < len(names) or any(
                info.compress_type != zipfile.ZIP_STORED or info.is_dir() for info in members):
            raise DataError(f"{path} is no capsule as this kit writes it (a name twice, a folder, "
                            "or a compressed member); it is not opened.")
        try:
            manifest = json.loads(archive.read(MANIFEST))
            files, version = dict(manifest["files"]), manifest["format"]
            wanted = {name: facts["sha256"] for name, facts in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} has a {MANIFEST} that cannot be read: {error!r}.") from None
        if version != FORMAT:
            raise DataError(f"{path} has the format {version!r}, and this kit reads {FORMAT}.")
        try:
            targets = [(info, fetch.safe_target(folder, info)) for info in members]
        except FetchError as error:
            raise DataError(f"{path} is not opened: {error}") from None
        wrong = [f"{name} is missing" for name in sorted(set(wanted) - set(names))]
        for info, target in targets:
            if info.filename == MANIFEST:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            try:
                with archive.open(info) as source, open(target, "wb") as sink:
                    while part := source.read(1 << 20):
                        digest.update(part)
                        sink.write(part)
            except zipfile.BadZipFile:
                pass  # the checksum of zip itself; ours differs as well
            if digest.hexdigest() != wanted.get(info.filename):
                wrong.append(f"{info.filename} "
                             + ("has another content" if info.filename in wanted else "was added"))
    return wrong


def packages(folder: Path) -> list[str]:
    """What is installed here in other versions than a capsule names, in words."""
    found = []
    for line in (folder / LOCK).read_text().splitlines():
        name, _, wanted = line.partition("==")
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "none"
        if here != wanted:
            found.append(f"{name} {wanted} ({here} here)")
    return found


def readable(error: Exception) -> str:
    """An error in a sentence: of the kit its own words, of another its kind before."""
    return str(error) if isinstance(error, FtkitError) else f"{type(error).__name__}: {error}"
