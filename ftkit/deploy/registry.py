"""Versions of a model with where they come from, names for those in use, and the way back."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from ftkit.assets import catalog, mlflow_store
from ftkit.assets.versions import versions as library_versions
from ftkit.data.fingerprint import row_hashes
from ftkit.display import Table
from ftkit.errors import FetchError, SettingError
from ftkit.models.model import Model

HISTORY = "ftkit.history."  # the tag that an alias's earlier versions stand in
ROWS, CLAIMS, RUN = "rows.json", "claims.json", "run.json"
FACTS = ("base", "base hash", "weights", "task", "data", "data hash", "rows", "code", "parent",
         "claims", "note")


@dataclass(frozen=True)
class Version:
    """A registered version of a model.

    reference: what ft.load_model takes. lineage: strings by name: base and its hash, the hash of
    the weights, data and its hash, code, parent, claims. aliases: the names that point to it.
    """

    name: str
    number: int
    aliases: tuple[str, ...]
    lineage: Mapping[str, str]
    folder: Path | None

    @property
    def reference(self) -> str:
        return f"{mlflow_store.PREFIX}{self.name}/{self.number}"

    def row(self) -> dict[str, str]:
        """The version as a table row, hashes shortened."""
        shown = {k: v[:12] if "hash" in k or k == "weights" else v for k, v in self.lineage.items()}
        return {"version": str(self.number), "aliases": ", ".join(self.aliases), **shown}


def register(run_or_model: Any, name: str, *, data: Any = None, base: Model | None = None,
             claims: Sequence[Any] = (), aliases: Sequence[str] = (), note: str = "") -> Version:
    """Put a model into the registry as a new version, with where it comes from.

    run_or_model: of ft.fit, or a Model. name: of the model over all its versions, such as
    "support-voice". data: what it was trained on (splits or one of them): the version records a
    hash of its content, which one changed byte changes, and a hash of each row, so that
    ft.compare_versions can say which came or went. base: the Model it was trained from, whose
    hash is recorded; without it that of the version it was loaded from, else the archive that the
    catalog pins. claims: of ft.claim. aliases: names to point to it, such as "candidate". note: a
    sentence. Recorded besides: the hash of the weights, the run's settings and metrics, the
    versions of the libraries, the commit of the working folder, and the parent: the version that
    the model was loaded from before it was trained on.
    The store is MLflow's, by default a SQLite file in the cache; MLFLOW_TRACKING_URI names
    another. Weights are kept as safetensors.
    Returns a Version. Raises SettingError for a name that cannot be one, or without MLflow;
    FetchError where the store cannot be written: then no version appears.
    """
    model = run_or_model if isinstance(run_or_model, Model) else run_or_model.model
    run = None if isinstance(run_or_model, Model) else run_or_model
    for one in (name, *aliases):
        if not mlflow_store.NAME.fullmatch(one):
            raise SettingError(f"{one!r} cannot name a model or an alias; begin with a letter and "
                               "use letters, digits, points, hyphens and underscores.")
    store = mlflow_store.client()
    rows = row_hashes(data) if data is not None else None
    record = _record_of(run)
    facts = _facts(model, record, data, rows, base, claims, note)
    tags = {f"ftkit.{key}": value[:4900] for key, value in facts.items()}
    files = {CLAIMS: [_plain(one) for one in claims], ROWS: rows, RUN: record}
    with mlflow_store.said_plainly(f"{name} was not registered"):
        made = store.create_run(mlflow_store.experiment(), run_name=name)
        identity, address = made.info.run_id, made.info.artifact_uri
        try:
            digest = _put(store, model, identity, address)
            for file, content in files.items():
                if content:
                    store.log_dict(identity, content, file)
            for key, value in record.get("metrics", {}).items():
                if isinstance(value, (int, float)):
                    store.log_metric(identity, key, value)
            _registered(store, name)
            found = store.create_model_version(name, f"{address}/{mlflow_store.MODEL}", identity,
                                               tags=tags | {mlflow_store.DIGEST: digest})
        except BaseException:
            store.set_terminated(identity, "FAILED")
            raise
        store.set_terminated(identity)
    for alias in aliases:
        promote(f"{name}/{found.version}", alias)
    return version(f"{name}/{found.version}")


def _put(store, model, identity, address):
    """Save the model among the files of a run; returns their digest."""
    place = mlflow_store.local(address)
    if place is not None:
        return mlflow_store.digest(Path(model.save(place / mlflow_store.MODEL)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(model.save(Path(scratch) / mlflow_store.MODEL))
        store.log_artifacts(identity, folder, mlflow_store.MODEL)
        return mlflow_store.digest(folder)


def _registered(store, name):
    from mlflow.exceptions import MlflowException

    try:
        store.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _record_of(run):
    """The record of a run as ft.fit wrote it, {} where there is none."""
    if run is None:
        return {}
    if run.folder and (run.folder / RUN).is_file():
        return json.loads((run.folder / RUN).read_text())
    plain = {"metrics": run.metrics, "settings": run.settings, "trainable": run.trainable}
    return json.loads(json.dumps(plain, default=str))


def _facts(model, record, data, rows, base, claims, note):
    parent = model.settings.get("version", "")
    held = sum(bool(one.held) for one in claims)
    name = getattr(data, "name", None) or record.get("data") or ""
    found = {"base": base.name if base else model.name,
             "base hash": _base_hash(model, base, parent), "weights": model.hash(),
             "task": model.task, "data": name,
             "data hash": _whole(rows) if rows else record.get("data_hash") or "",
             "rows": ", ".join(f"{len(own)} {split}" for split, own in (rows or {}).items()),
             "code": _code(), "parent": parent,
             "claims": f"{held} of {len(claims)} held" if claims else "", "note": note}
    return {key: str(value) for key, value in found.items()}


def _base_hash(model, base, parent):
    if base is not None:
        return base.hash()
    if parent:
        return mlflow_store.find(parent).tags.get("ftkit.weights", "")
    entry = next((e for e in catalog.models() if e.name == model.name), None)
    if entry is None:
        return ""
    return " ".join(f"archive sha256:{catalog.ARCHIVES[one].sha256}" for one in entry.archives)


def _code():
    """The kit's version and the commit of the working folder, with a mark where it was changed."""
    known = library_versions()
    said = f"ftkit {known['ftkit']}, torch {known['torch']}"
    try:
        commit, changed = (
            subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"]))
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return said
    return f"{said}, commit {commit.stdout.strip()[:12]}{' (changed)' * bool(changed.stdout)}"


def _whole(rows):
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _plain(claim):
    found = asdict(claim) if is_dataclass(claim) and not isinstance(claim, type) else claim
    return json.loads(json.dumps(found, default=str))


def version(reference: str) -> Version:
    """The Version of "name@alias" or "name/3". Raises FetchError where there is none."""
    found = mlflow_store.find(reference)
    # An entry found by its number may come without the names that point to it.
    with mlflow_store.said_plainly("aliases could not be read"):
        aliases = dict(mlflow_store.client().get_registered_model(found.name).aliases)
    return _version(found, aliases)


def _version(found, aliases):
    own = tuple(sorted(a for a, number in aliases.items() if int(number) == int(found.version)))
    lineage = {key: found.tags[f"ftkit.{key}"] for key in FACTS if found.tags.get(f"ftkit.{key}")}
    return Version(found.name, int(found.version), own, lineage, mlflow_store.local(found.source))


def list_versions(name: str) -> Table:
    """All versions of a model as a table, the newest first.

    name: as in ft.register. `.rows` of the table has them as dicts of strings.
    Raises FetchError where no model has that name.
    """
    store = mlflow_store.client()
    with mlflow_store.said_plainly(f"the versions of {name} could not be listed"):
        aliases = dict(store.get_registered_model(name).aliases)
        found = list(store.search_model_versions(f"name='{name}'"))
    found.sort(key=lambda one: -int(one.version))
    return Table([_version(one, aliases).row() for one in found], f"versions of {name}")


def promote(reference: str, alias: str = "champion") -> Version:
    """Let an alias point to a version from now on.

    reference: "support-voice/3", or "support-voice@candidate". alias: the name that will stand
    for it; what it stood for before is remembered for ft.roll_back.
    Returns the Version. Raises FetchError where there is no such version.
    """
    found = mlflow_store.find(reference)
    store = mlflow_store.client()
    with mlflow_store.said_plainly(f"{alias} still stands for what it did"):
        known = store.get_registered_model(found.name)
        before = json.loads(known.tags.get(HISTORY + alias, "[]"))
        if not before or before[-1] != int(found.version):
            # First the way back, then the step: cut off between the two, nothing is lost.
            before.append(int(found.version))
            store.set_registered_model_tag(found.name, HISTORY + alias, json.dumps(before))
        store.set_registered_model_alias(found.name, alias, str(found.version))
    return version(f"{found.name}/{found.version}")


def roll_back(name: str, alias: str = "champion") -> Version:
    """Let an alias point to the version that it stood for before.

    name: of the model. alias: the name to set back.
    Returns the Version that it stands for now; no version is deleted.
    Raises FetchError where there is none before it.
    """
    now = mlflow_store.find(f"{name}@{alias}")
    store = mlflow_store.client()
    with mlflow_store.said_plainly(f"{alias} still stands for version {now.version}"):
        history = json.loads(store.get_registered_model(name).tags.get(HISTORY + alias, "[]"))
        while history and history[-1] == int(now.version):
            history.pop()
        if not history:
            raise FetchError(f"{name}@{alias} is version {now.version} and stood for no other "
                             "before; ft.promote points it to any version.")
        store.set_registered_model_alias(name, alias, str(history[-1]))
        store.set_registered_model_tag(name, HISTORY + alias, json.dumps(history))
    return version(f"{name}/{history[-1]}")


def compare_versions(one: str, two: str) -> Table:
    """What differs between two versions in where they come from, as a table.

    one, two: such as "support-voice/1" and "support-voice@candidate". Where both were registered
    with their data, each split is compared row by row. How they answer is compared by
    ft.evaluate on held-out data and ft.compare, which tells the flips.
    Raises FetchError where a version is not there.
    """
    sides = [version(reference) for reference in (one, two)]
    labels = [f"{side.name}/{side.number}" for side in sides]
    rows = [{"what": fact, **{label: side.row().get(fact, "") for label, side in
                              zip(labels, sides, strict=True)},
             "same": "yes" if len({side.lineage.get(fact, "") for side in sides}) == 1 else "NO"}
            for fact in FACTS if any(fact in side.lineage for side in sides)]
    kept = [_rows_of(reference) for reference in (one, two)]
    if all(kept):
        for split in dict.fromkeys([*kept[0], *kept[1]]):
            came, went = _moved(kept[0].get(split, []), kept[1].get(split, []))
            said = {labels[0]: f"{went} rows of its own", labels[1]: f"{came} rows of its own"}
            rows.append({"what": f"rows of {split}", **said, "same": _yes(not came and not went)})
    return Table(rows, " and ".join(labels))


def _yes(same):
    return "yes" if same else "NO"


def _moved(before: Iterable[str], after: Iterable[str]) -> tuple[int, int]:
    """How many rows are new, and how many are gone; a row twice counts twice."""
    one, two = Counter(before), Counter(after)
    return (two - one).total(), (one - two).total()


def _rows_of(reference):
    found = mlflow_store.find(reference)
    store = mlflow_store.client()
    with mlflow_store.said_plainly(f"the rows of {reference} could not be read"):
        if not any(file.path == ROWS for file in store.list_artifacts(found.run_id)):
            return None
        with tempfile.TemporaryDirectory() as scratch:
            return json.loads(Path(store.download_artifacts(found.run_id, ROWS, scratch))
                              .read_text())
