"""Where versions of models and tracked runs are kept: an MLflow store, by default one SQLite file.

`MLFLOW_TRACKING_URI`, MLflow's own variable, names another store, such as a team's server.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import unquote, urlparse

from ftkit.assets import atomic, fetch
from ftkit.errors import FetchError, SettingError

PREFIX = "registry:"
EXPERIMENT = "ftkit"
LONGEST = 500  # characters of a parameter; MLflow refuses more
MODEL = "model"  # the folder of a run's artifacts that holds the model
DIGEST = "ftkit.files"  # the tag that a version's files are checked by
NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)  # of a model or an alias
_REFERENCE = re.compile(rf"({NAME.pattern})(?:@({NAME.pattern})|/(\d+))", re.ASCII)


def uri() -> str:
    """The address of the store: MLFLOW_TRACKING_URI, else a SQLite file in the cache."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_home() / 'mlflow.db'}"


def _home() -> Path:
    return fetch.cache_home() / "mlflow"


def client() -> Any:
    """MLflow's client for the store. Raises SettingError where MLflow is not installed."""
    return _client(uri())


@cache
def _client(address: str):
    # Before it is imported: it would report its use to a server, and show bars for single files.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import sqlalchemy  # noqa: F401 - MLflow needs it for a database, and names it nowhere
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise SettingError(f"versions and tracking need MLflow, which is not installed ({error}). "
                           "Install it with: pip install 'ftkit[track]'") from error
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if place := database(address):
        place.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(address, address)


def database(address: str) -> Path | None:
    """The file of a SQLite address, None of any other."""
    found = re.fullmatch(r"sqlite:///(.+)", address)
    return Path(found[1]).absolute() if found else None


def experiment(name: str | None = None) -> str:
    """The id of an experiment, by default the one of the kit's runs, made on first use."""
    name = name or EXPERIMENT
    with said_plainly("the experiment could not be opened"):
        found = client().get_experiment_by_name(name)
        if found:
            return found.experiment_id
        place = database(uri())
        files = (place.parent / "artifacts").as_uri() if place else None
        return client().create_experiment(name, artifact_location=files)


def put(name: str, *, into: str, params: dict, metrics: list, tags: dict, folder: Path | str,
        seconds: float | None = None, folder_name: str | None = None,
        status: str = "FINISHED") -> str:
    """Store a run of so many parameters, metrics (name, value, step), tags and files.

    into: the id of its experiment; seconds: that it took until now; folder_name: of the files
    among its artifacts. A run that could not be stored whole is left there as failed. Returns its
    id. Raises what MLflow does.
    """
    from mlflow.entities import Metric, Param, RunTag

    store = client()
    began = int(1000 * (time() - (seconds or 0)))
    made = store.create_run(into, run_name=name, start_time=began)
    identity, now = made.info.run_id, int(1000 * time())
    measured = [Metric(name, value, now, step) for name, value, step in metrics]
    try:
        for start in range(0, len(measured), 1000):  # of one call
            store.log_batch(identity, metrics=measured[start : start + 1000])
        store.log_batch(identity,
                        params=[Param(key, str(value)[:LONGEST]) for key, value in params.items()],
                        tags=[RunTag(key, str(value)) for key, value in tags.items()])
        store.log_artifacts(identity, str(folder), folder_name)
    except BaseException:
        store.set_terminated(identity, "FAILED")
        raise
    store.set_terminated(identity, status)
    return identity


@contextmanager
def said_plainly(what: str):
    """Turn an error of MLflow, of its database or of its server into a FetchError."""
    import sqlalchemy
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        first = str(error).splitlines()[0]
        raise FetchError(f"{what} in {uri()}: {first}") from error


def local(address: str) -> Path | None:
    """The path of an artifact address on this machine, None where it lies elsewhere."""
    parts = urlparse(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if not parts.scheme else None


def find(reference: str) -> Any:
    """MLflow's entry of "name@alias", "name/3", or the same behind "registry:".

    Raises SettingError for another form, FetchError where no such version is registered.
    """
    text = reference.removeprefix(PREFIX)
    parts = _REFERENCE.fullmatch(text)
    if not parts:
        raise SettingError(f"{reference!r} names no version; write registry:NAME@ALIAS, such as "
                           "registry:support-voice@champion, or registry:NAME/NUMBER.")
    name, alias, number = parts.groups()
    store = client()
    from mlflow.exceptions import MlflowException

    try:
        if alias:
            return store.get_model_version_by_alias(name, alias)
        return store.get_model_version(name, number)
    except MlflowException as error:
        with said_plainly("versions could not be listed"):
            known = list(store.search_model_versions(f"name='{name}'"))
        aliases = dict(getattr(store.get_registered_model(name), "aliases", {})) if known else {}
        has = f"versions {', '.join(sorted(str(v.version) for v in known))}" if known else "none"
        more = "".join(f", {name!r} is {version}" for name, version in sorted(aliases.items()))
        raise FetchError(f"{text} is not registered in {uri()}: of {name} there are {has}{more}. "
                         "ft.register puts a model there.") from error


def version_folder(reference: str) -> tuple[Path, str]:
    """The folder of a version and its name, "support-voice/3"; FetchError for other files in it."""
    found = find(reference)
    folder, label = local(found.source), f"{found.name}/{found.version}"
    if folder is None:
        kept = fetch.cache_home() / "mlflow" / "fetched" / found.run_id
        folder = kept / MODEL
        if not folder.is_dir():
            with atomic.new_folder(kept) as scratch:
                with said_plainly(f"the files of {label} could not be fetched"):
                    client().download_artifacts(found.run_id, MODEL, str(scratch))
    if not folder.is_dir():
        raise FetchError(f"the files of {label} are gone: {folder} does not exist. Bring the "
                         "folder back from a copy, or go back to another version with "
                         "ft.roll_back.")
    if digest(folder) != found.tags.get(DIGEST):
        raise FetchError(f"{folder} is not what was registered as {label}: a file of it was "
                         "changed, added or removed. Bring it back from a copy, or register the "
                         "changed model as a new version.")
    return folder, label


def digest(folder: Path) -> str:
    """The sha256 over the names and contents of all files in a folder, in hex."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                own = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(f"{path.relative_to(folder).as_posix()} {own}\n".encode())
    return whole.hexdigest()
