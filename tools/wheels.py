"""Decides which packages a machine without a network is brought, and downloads their wheels."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

PLATFORMS = ("linux-x86_64", "linux-aarch64", "macos-arm64", "macos-x86_64")


class BundleError(Exception):
    """What the person who makes a bundle has to know or mend; the message says it."""


@dataclass(frozen=True)
class Target:
    """The machine that a bundle is for."""

    python: str  # "3.12"
    platform: str  # one of PLATFORMS
    glibc: str = "2.28"  # of a Linux: the oldest C library that the packages may need

    @property
    def machine(self) -> str:
        return self.platform.partition("-")[2]

    def pip_arguments(self) -> list[str]:
        """Return the options that make `pip download` choose wheels for this machine."""
        if self.platform.startswith("linux"):
            newest = int(self.glibc.split(".")[1])
            tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, 4, -1)]
            # the names of old, which some wheels have alone
            tags += [f"manylinux{name}_{self.machine}" for name in ("2014", "2010", "1")]
            tags.append(f"linux_{self.machine}")
        else:
            tags = list(mac_platforms((14, 0), self.machine))
        found = ["--python-version", self.python, "--implementation", "cp"]
        return found + [word for tag in tags for word in ("--platform", tag)]

    def marker_environment(self) -> dict[str, str]:
        """Return what the conditions behind a requirement's `;` are judged by."""
        linux = self.platform.startswith("linux")
        full = self.python if self.python.count(".") > 1 else f"{self.python}.0"
        return {
            "implementation_name": "cpython", "implementation_version": full, "os_name": "posix",
            "platform_machine": self.machine, "platform_python_implementation": "CPython",
            "platform_release": "", "platform_system": "Linux" if linux else "Darwin",
            "platform_version": "", "python_full_version": full,
            "python_version": ".".join(full.split(".")[:2]),
            "sys_platform": "linux" if linux else "darwin",
        }


@dataclass
class Package:
    """One package of the bundle. `requires` is what it needs without any of its extras."""

    name: str
    version: str
    wheel: Path
    group: str
    requires: list[Requirement] = field(default_factory=list)


class Resolution:
    """Which packages are carried. constraints.txt decides versions; pip only downloads.

    pinned: versions by name. have: versions that the target machine has (None where unknown).
    without: names that are not carried, nor what only they need. newer: names that are carried
    though the machine has a version that would do. build: names that may be built from source here
    where the index has no wheel (only if that gives a wheel for every machine). index: the address
    of one more index than pip is configured for.
    """

    def __init__(self, target: Target, folder: Path, pinned: dict[str, str],
                 have: dict[str, str | None], without: set[str], newer: set[str], build: set[str],
                 index: str | None = None):
        self.target, self.folder, self.pinned, self.have = target, folder, pinned, have
        self.without, self.newer, self.build = without, newer, build
        self.index = ["--extra-index-url", index] if index else []
        self.needs: dict[str, SpecifierSet] = {}
        self.asked_by: dict[str, list[str]] = {}
        self.packages: dict[str, Package] = {}
        self.left: set[str] = set()  # names that are wanted and left to the machine
        self.extras: dict[str, list[Requirement]] = {}  # what the extras asked of a package need

    def add(self, requirements: list[Requirement], group: str, by: str) -> None:
        """Take requirements in, and all that they need, as packages of `group`."""
        pending = [(requirement, by) for requirement in requirements]
        while pending:
            wanted: dict[str, set[str]] = {}  # names to download, with their extras
            found: list[tuple[str, Requirement]] = []
            for requirement, asker in pending:
                name, extras = canonicalize_name(requirement.name), set(requirement.extras)
                self.needs[name] = self.needs.get(name, SpecifierSet()) & requirement.specifier
                self.asked_by.setdefault(name, []).append(f"{asker} wants {requirement}")
                if name in self.packages:
                    found += self._extras(self.packages[name], extras)
                elif name in self.without or self._machine_has(name):
                    self.left.add(name)
                    # what an extra needs may be missing there, and only the wheel says what it is
                    if extras and name not in self.without:
                        wanted.setdefault(name, set()).update(extras)
                else:
                    wanted.setdefault(name, set()).update(extras)
            for name, wheel in self._download(list(wanted)).items():
                version = str(parse_wheel_filename(wheel.name)[1])
                package = Package(name, version, wheel, group)
                package.requires = requirements_of(wheel, {""}, self.target)
                if not self._machine_has(name):
                    self.left.discard(name)
                    self.packages[name] = package
                    found += [(name, requirement) for requirement in package.requires]
                found += self._extras(package, wanted[name])
            pending = [(requirement, asker) for asker, requirement in found]

    def _extras(self, package: Package, extras: set[str]) -> list[tuple[str, Requirement]]:
        """Return what these extras of a package need besides, as far as that was not known."""
        known = self.extras.setdefault(package.name, [])
        said = {str(requirement) for requirement in [*package.requires, *known]}
        new = [requirement for requirement in requirements_of(package.wheel, extras, self.target)
               if str(requirement) not in said]
        known += new
        return [(package.name, requirement) for requirement in new]

    def conflicts(self) -> list[str]:
        """Return a sentence for each version that somebody does not want."""
        found = []
        for name, package in self.packages.items():
            if not self.needs[name].contains(package.version, prereleases=True):
                askers = [asked for asked in self.asked_by[name]
                          if not Requirement(asked.split(" wants ", 1)[1]).specifier.contains(
                              package.version, prereleases=True)]
                found.append(f"{name} {package.version} is carried; {', '.join(askers)}")
        return found

    def _machine_has(self, name: str) -> bool:
        if name not in self.have or name in self.newer:
            return False
        version = self.have[name]
        return version is None or self.needs[name].contains(version, prereleases=True)

    def _download(self, names: list[str]) -> dict[str, Path]:
        """Return the wheel of each name, all in one call of pip where that succeeds."""
        if not names:
            return {}
        wants = {name: f"{name}=={self.pinned[name]}" if name in self.pinned
                 else f"{name}{self.needs[name]}" for name in names}
        found, output = self.pip(list(wants.values()))
        if found is None:  # pip names one package and stops; everything that lacks is to be named
            found, missing = {}, []
            for name, want in wants.items():
                one, output = self.pip([want])
                if one is None and name in self.build:
                    one = self._build(want)
                if one is None:
                    missing.append((want, output))
                found |= one or {}
            if missing:
                said = [line for line in missing[0][1].splitlines() if line.startswith("ERROR")]
                raise BundleError(
                    f"No wheel for {self.target.platform}, Python {self.target.python} (glibc "
                    f"{self.target.glibc}) was found of: {', '.join(w for w, _ in missing)}. "
                    f"Leave them out with WITHOUT=\"...\"; where only source is to be had and it "
                    f"is plain Python, BUILD=\"...\" builds it here. pip said: "
                    f"{(said or ['nothing'])[0]}")
        return {name: found[name] for name in names}

    def pip(self, wants: list[str]) -> tuple[dict[str, Path] | None, str]:
        """Return the wheels that pip downloads without what they need, or None, and its words."""
        scratch = self.folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
             "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
             *self.index, *self.target.pip_arguments(), "-d", str(scratch), *wants],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return (None if done.returncode else self._keep(scratch)), done.stdout

    def _build(self, want: str) -> dict[str, Path] | None:
        scratch = self.folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet",
             "--disable-pip-version-check", "--no-input", *self.index, "-w", str(scratch), want],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or not all(p.name.endswith("-none-any.whl") for p in scratch.iterdir()):
            return None
        return self._keep(scratch)

    def _keep(self, scratch: Path) -> dict[str, Path]:
        kept = {}
        for path in scratch.iterdir():
            final = self.folder / path.name
            os.replace(path, final)
            kept[str(parse_wheel_filename(path.name)[0])] = final
        return kept


def requirements_of(wheel: Path, extras: set[str], target: Target) -> list[Requirement]:
    """Return what a wheel says that it needs on the target, with these extras ("" for none)."""
    with zipfile.ZipFile(wheel) as opened:
        name = next(n for n in opened.namelist()
                    if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(opened.read(name))
    found = []
    for text in metadata.get_all("Requires-Dist", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise BundleError(f"{wheel.name} asks for {text!r}: {error}") from None
        environment = target.marker_environment()
        if requirement.marker is None:
            if "" not in extras:
                continue
        elif not any(requirement.marker.evaluate({**environment, "extra": e}) for e in extras):
            continue
        requirement.marker = None
        found.append(requirement)
    return found


def read_versions(path: Path) -> dict[str, str | None]:
    """Return versions by name from a file as `pip freeze` writes it; None for a name alone."""
    found: dict[str, str | None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.partition("#")[0].partition(" @ ")[0].strip()
        if not line or line.startswith("-"):
            continue
        name, equals, version = line.partition("==")
        try:
            found[canonicalize_name(name.strip(), validate=True)] = (
                str(Version(version.strip())) if equals else None)
        except ValueError as error:
            raise BundleError(f"{path}, line {number}: {line!r} is neither NAME==VERSION nor a "
                              f"name ({error}).") from None
    return found
