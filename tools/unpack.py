"""Checks, joins and installs a bundle that tools/bundle.py made; travels with it, needs no network.

Everything lands below one folder: `bin/python` (a virtual environment over the machine's own
packages, which are read and never changed), `project/` (the checkout), `cache/` (FTKIT_HOME) and
`env.sh`. Parts may come one at a time: each run takes those that are there, and installs each group
of files once it is whole.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import site
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

WAITING = 3  # the exit status when all is well and parts are yet to come


class UnpackError(Exception):
    """What the person who unpacks has to know or mend; the message says it."""


def main(arguments: list[str] | None = None) -> int:
    """Check the parts and, with --into, install. Return 0 when whole, 3 when parts are missing."""
    parser = argparse.ArgumentParser(prog="unpack.sh", description=__doc__.split("\n")[0])
    parser.add_argument("--into", type=Path, help="the folder to install to; none: only check")
    parser.add_argument("--parts", type=Path, default=Path(__file__).parent,
                        help="where the parts and manifest.json are (as a rule, beside this file)")
    parser.add_argument("--cache", type=Path, help="FTKIT_HOME to fill (as a rule, INTO/cache)")
    options = parser.parse_args(arguments)
    try:
        manifest = read_manifest(options.parts / "manifest.json")
        if options.into is None:
            return check(manifest, options.parts)
        check_machine(manifest)
        into = options.into.absolute()
        return Installation(manifest, options.parts, into, options.cache or into / "cache").run()
    except (UnpackError, OSError, tarfile.TarError) as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 1


def read_manifest(path: Path) -> dict:
    """Return the manifest, having refused names that could lead out of a folder."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names = [*manifest["files"], *manifest["groups"], *(p["name"] for p in manifest["parts"])]
        names += [piece["file"] for part in manifest["parts"] for piece in part["pieces"]]
    except FileNotFoundError:
        raise UnpackError(f"{path} is missing; it travels with the parts.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UnpackError(f"{path} is damaged ({error!r}); bring it again.") from None
    for name in names:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or not pure.parts:
            raise UnpackError(f"{path} names {name!r}, which leads out of its folder; refused.")
    return manifest


def check(manifest: dict, folder: Path) -> int:
    """Print what each part is worth. Return 0 when all are whole, 3 when some are missing."""
    states = {part["name"]: state_of(part, folder) for part in manifest["parts"]}
    for name, state in states.items():
        print(f"{name}: {state}")
    if any(state.startswith("damaged") for state in states.values()):
        return 1
    return WAITING if "missing" in states.values() else 0


def state_of(part: dict, folder: Path) -> str:
    """Return 'whole', 'missing', or 'damaged' with what is wrong and what to do."""
    path = folder / part["name"]
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != part["size"]:
        return f"damaged: {size:,} of {part['size']:,} bytes; bring it again"
    if digest(path) != part["sha256"]:
        return "damaged: its sha256 is not the manifest's; bring it again"
    return "whole"


def check_machine(manifest: dict) -> None:
    """Raise UnpackError where the bundle is for another Python, system or C library."""
    python = ".".join(platform.python_version_tuple()[:2])
    if python != manifest["python"]:
        raise UnpackError(
            f"the bundle is for Python {manifest['python']}, and {sys.executable} is {python}. Set "
            f"PYTHON to a Python {manifest['python']}, or make a bundle with PYTHON={python}.")
    system = {"Linux": "linux", "Darwin": "macos"}.get(platform.system(), platform.system())
    here = f"{system}-{platform.machine()}"
    if here != manifest["platform"]:
        raise UnpackError(f"the bundle is for {manifest['platform']}, and this is {here}.")
    name, version = platform.libc_ver()
    if system == "linux" and name == "glibc":
        if tuple(map(int, version.split("."))) < tuple(map(int, manifest["glibc"].split("."))):
            raise UnpackError(
                f"the bundle needs glibc {manifest['glibc']}, and this machine has {version}. Make "
                f"one with GLIBC={version}.")


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(name: str) -> str:
    """Return a package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Installation:
    """One folder that a bundle is unpacked to, and what of it is done.

    `store/` below it keeps verified files until their group is whole; a file has its own name there
    only when its sha256 was right, and `store/done/` has a group's name only when it is installed.
    """

    def __init__(self, manifest: dict, parts: Path, into: Path, cache: Path):
        self.manifest, self.parts, self.into, self.cache = manifest, parts, into, cache
        self.store = into / "store"
        self.python = into / "bin" / "python"

    def run(self) -> int:
        """Take the parts that are there and install the groups that are whole."""
        self._claim()
        with open(self.store / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go by the system however this ends
            shutil.rmtree(self.store / "scratch", ignore_errors=True)
            (self.store / "scratch").mkdir()
            damaged, missing = self._take()
            for group in self.manifest["groups"]:
                files = self._files(group)
                first = self.manifest["groups"][0]  # what installs the others is in it
                ready = all(self._has(name) for name in files)
                if ready and not self._done(group) and (group == first or self._done(first)):
                    self._install(group, files)
        complete = all(self._done(group) for group in self.manifest["groups"])
        for name in damaged:
            print(f"unpack: {name} is damaged; bring it again.", file=sys.stderr)
        if not complete:
            print(f"Still missing: {', '.join(missing) or ', '.join(damaged)}. "
                  f"Run this again when they are here.")
        elif complete:
            print(f"All of the bundle is installed. Begin with: . {self.into}/env.sh")
        return 1 if damaged else 0 if complete else WAITING

    def _claim(self) -> None:
        """Make the folder this bundle's own; refuse one that holds anything else."""
        identity = hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()
        mark = self.store / "bundle"
        if mark.is_file():
            if mark.read_text() != identity:
                raise UnpackError(f"{self.into} holds another bundle. Choose another folder for "
                                  f"--into, or remove that one.")
            return
        if self.into.exists() and any(p.name != "store" for p in self.into.iterdir()):
            raise UnpackError(f"{self.into} is not empty, and nothing in it is to be overwritten. "
                              f"Choose a new folder for --into.")
        self.store.mkdir(parents=True, exist_ok=True)
        write(mark, identity.encode())

    def _files(self, group: str) -> list[str]:
        return [name for name, file in self.manifest["files"].items() if file["group"] == group]

    def _done(self, group: str) -> bool:
        return (self.store / "done" / group).is_file()

    def _has(self, name: str) -> bool:
        return self._done(self.manifest["files"][name]["group"]) or (self.store / name).is_file()

    def _piece(self, piece: dict) -> Path:
        return self.store / "pieces" / f"{piece['file']}.{piece['start']}"

    def _take(self) -> tuple[list[str], list[str]]:
        """Move what the parts hold into the store. Return the damaged parts and the missing."""
        damaged, missing = [], []
        for part in self.manifest["parts"]:
            wanted = [piece for piece in part["pieces"]
                      if not self._has(piece["file"]) and not self._piece(piece).is_file()]
            if not wanted:
                continue
            state = state_of(part, self.parts)
            if state != "whole":
                (missing if state == "missing" else damaged).append(part["name"])
                continue
            print(f"{part['name']}: whole")
            with tarfile.open(self.parts / part["name"], "r:") as archive:
                for piece in wanted:
                    # only members that the manifest names are read, and only as bytes
                    with archive.extractfile(piece["member"]) as source:
                        write(self._piece(piece), source)
        for name in self.manifest["files"]:  # an aborted run may have left pieces of any part
            if not self._has(name):
                self._join(name)
        return damaged, missing

    def _join(self, name: str) -> None:
        """Make a file of its pieces, once they are all there and the whole is what it should be."""
        file = self.manifest["files"][name]
        pieces = sorted((piece for part in self.manifest["parts"] for piece in part["pieces"]
                         if piece["file"] == name), key=lambda piece: piece["start"])
        paths = [self._piece(piece) for piece in pieces]
        if not all(path.is_file() for path in paths):
            return
        scratch = self.store / "scratch" / "joined"
        with open(scratch, "wb") as sink:
            for path in paths:
                with open(path, "rb") as source:
                    shutil.copyfileobj(source, sink, 1 << 20)
        right = scratch.stat().st_size == file["size"] and digest(scratch) == file["sha256"]
        if right:
            place(scratch, self.store / name)
        for path in paths:
            path.unlink()
        if not right:
            raise UnpackError(f"{name} is not what the manifest says after joining; bring the "
                              f"parts again.")

    def _install(self, group: str, files: list[str]) -> None:
        """Put a whole group to its place; its mark is written last, so an abort is done again."""
        if "project.tar.gz" in files:
            self._unpack_project()
        wheels = [p for p in self.manifest["packages"] if p["group"] == group]
        if wheels:
            self._install_wheels(group, wheels)
        for name in files:
            if name.startswith("archives/"):
                self._into_cache(name)
        write(self.store / "done" / group, b"")
        for name in files:  # pip is needed again for the groups that come later
            if name not in self.manifest["tools"].values():
                (self.store / name).unlink(missing_ok=True)

    def _unpack_project(self) -> None:
        final, scratch = self.into / "project", self.store / "scratch" / "project"
        if final.is_dir():
            return  # an aborted run got as far as this; the learner may have worked in it since
        scratch.mkdir()
        with tarfile.open(self.store / "project.tar.gz") as archive:
            archive.extractall(scratch, filter="data")  # refuses links and names that lead out
        os.replace(scratch, final)
        print(f"project: {final}")

    def _install_wheels(self, group: str, packages: list[dict]) -> None:
        self._make_environment()
        present = self._present()
        # for all groups at once, so that a later one finds what it needs of an earlier one
        chosen, _ = self._choose(self.manifest["groups"], present)
        _, wanted = self._choose([group], present)
        install = [package for package in packages if package["name"] in chosen]
        left = [p for p in packages if p["name"] not in chosen and p["name"] in present]
        if left:
            print(f"{group}: this machine's own: "
                  + ", ".join(f"{p['name']} {present[p['name']]}" for p in left))
        if install:
            # settings of the machine's pip (a target, an index, constraints) do not count here
            environment = {name: value for name, value in os.environ.items()
                           if not name.startswith(("PIP_", "PYTHON"))}
            environment |= {"PYTHONPATH": str(self.store / self.manifest["tools"]["pip"]),
                            "PIP_CONFIG_FILE": os.devnull}
            subprocess_or_error([
                str(self.python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                "--no-compile", "--ignore-installed", "--no-cache-dir",
                "--disable-pip-version-check", "--root-user-action", "ignore",
                *(str(self.store / package["file"]) for package in install)], environment)
            print(f"{group}: installed {len(install)} packages: "
                  + ", ".join(f"{p['name']} {p['version']}" for p in install))
        self._say_what_lacks(wanted, install)

    def _choose(self, groups: list[str], present: dict[str, str]) -> tuple[set[str], dict]:
        """Return which packages are to be installed, and all that are wanted, with versions.

        What the machine has is used where it will do, with what it needs there: only what an
        installed package asks for is installed. Else one of two that belong together could come
        from each side.
        """
        carried = {package["name"]: package for package in self.manifest["packages"]}
        install: set[str] = set()
        wanted: dict[str, list[str]] = {}
        pending = [pair for group in groups for pair in self.manifest["roots"].get(group, [])]
        while pending:
            name, versions = pending.pop()
            first = name not in wanted
            wanted.setdefault(name, []).append(versions)
            if first:
                pending += self.manifest["extras"].get(name, [])
            if name not in carried or name in install:
                continue
            enough = name in present and self._allows(versions, present[name])
            if carried[name]["always"] or not enough:
                install.add(name)
                pending += carried[name]["requires"]
        return install, {name: ",".join(sorted({v for v in versions if v}))
                         for name, versions in wanted.items()}

    def _make_environment(self) -> None:
        """Make the virtual environment over the machine's packages, which stay as they are."""
        own = self.into / "lib" / f"python{self.manifest['python']}" / "site-packages"
        nested = sys.prefix != sys.base_prefix
        base_seen = not nested or re.search(
            r"include-system-site-packages\s*=\s*true",
            Path(sys.prefix, "pyvenv.cfg").read_text(encoding="utf-8"))
        flags = ["--system-site-packages"] if base_seen else []
        subprocess_or_error([sys.executable, "-m", "venv", "--without-pip", *flags, str(self.into)])
        if nested:
            # a new environment looks through to the system's Python, not to the environment that
            # this one runs in; the name sorts last, so what is installed here comes first
            lines = [f"import site; site.addsitedir({folder!r})\n"
                     for folder in site.getsitepackages()]
            write(own / "zz_machine.pth", "".join(lines).encode())
        write(self.into / "env.sh", (
            f". '{self.into}/bin/activate'\n"
            f"export FTKIT_HOME='{self.cache.absolute()}' FTKIT_OFFLINE=1 HF_HUB_OFFLINE=1\n"
        ).encode())

    def _present(self, python: str = sys.executable) -> dict[str, str]:
        """Return name and version of each package that a Python sees: the one it would import."""
        code = ("import importlib.metadata as m, json; print(json.dumps([[d.metadata['Name'], "
                "d.version] for d in m.distributions()]))")
        found: dict[str, str] = {}
        for name, version in json.loads(subprocess_or_error([python, "-c", code])):
            if name:
                found.setdefault(canonical(name), version)
        return found

    def _allows(self, needs: str, version: str) -> bool:
        wheel = str(self.store / self.manifest["tools"]["packaging"])
        if wheel not in sys.path:
            sys.path.insert(0, wheel)
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(needs).contains(version, prereleases=True)

    def _say_what_lacks(self, wanted: dict[str, str], installed: list[dict]) -> None:
        """Name what the machine was to have and has not; refuse where its packages come first."""
        present = self._present(str(self.python))
        for package in installed:
            if (seen := present.get(package["name"])) != package["version"]:
                raise UnpackError(
                    f"{package['name']} {package['version']} was installed to {self.into}, and its "
                    f"Python sees {seen}: something comes before it on the path. "
                    f"Unset PYTHONPATH (it is {os.environ.get('PYTHONPATH', '')!r}).")
        absent, other = [], []
        for name, needs in sorted(wanted.items()):
            version = present.get(name)
            if version is None:
                absent.append(f"{name} {needs}".strip())
            elif not self._allows(needs, version):
                other.append(f"{name} {version} (wanted: {needs})")
        if absent:
            print(f"Left out of the bundle and not here: {'; '.join(absent)}.")
        if other:
            print(f"Here, but not in a version that was tested: {'; '.join(other)}.")

    def _into_cache(self, name: str) -> None:
        final = self.cache.absolute() / name
        if final.exists():
            if digest(final) != self.manifest["files"][name]["sha256"]:
                raise UnpackError(f"{final} is there already and differs; remove it, or choose "
                                  f"another folder for --cache.")
            return
        place(self.store / name, final)
        print(f"cache: {final.name}")


def write(path: Path, content) -> None:
    """Write bytes or an open file to `path`, which is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    with open(scratch, "wb") as sink:
        if isinstance(content, bytes):
            sink.write(content)
        else:
            shutil.copyfileobj(content, sink, 1 << 20)
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(scratch, path)


def place(source: Path, final: Path) -> None:
    """Move a file to its name, which is there whole or not at all, also across file systems."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        os.replace(source, final)
    except OSError:
        with open(source, "rb") as file:
            write(final, file)


def subprocess_or_error(command: list[str], environment: dict | None = None) -> str:
    """Return what a command printed; raise UnpackError with it where the command failed."""
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode:
        raise UnpackError(f"{' '.join(command[:4])} failed:\n{done.stdout.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
