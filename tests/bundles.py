"""The maintainers' tools of bundles, and small packages made for their tests."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
HERE = ".".join(platform.python_version_tuple()[:2])


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


wheels, bundle, unpack = load("wheels"), load("bundle"), load("unpack")


def make_wheel(folder, name, version="1.0", requires=(), tag="py3-none-any"):
    """A package of one module that says its version."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    members = {
        f"{name.replace('-', '_')}.py": f"version = {version!r}\n",
        f"{info}/METADATA":
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            f"Provides-Extra: fast\n{needs}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{m},,\n" for m in [*members, f"{info}/RECORD"]))
    return path


def repack(folder, name):
    """The wheel of a package that is installed here."""
    distribution = importlib.metadata.distribution(name)
    path = folder / f"{name}-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for file in distribution.files:
            if ".." not in file.parts and file.suffix != ".pyc":
                wheel.write(file.locate(), str(file))
    return path


def only_index(monkeypatch, folder):
    """Give pip one index, through its own settings, as a user would."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
