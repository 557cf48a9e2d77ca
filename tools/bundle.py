"""Packs the project, its packages, models and data in parts for a machine without a network.

`make bundle` runs it; tools/unpack.py installs what it makes. docs/air-gapped.md shows both.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from wheels import PLATFORMS, BundleError, Resolution, Target, read_versions

ROOT = Path(__file__).resolve().parents[1]
# A tar file: headers and padding of each member, and the end of the file.
MEMBER_OVERHEAD, TAR_OVERHEAD = 2048, 10240


def main(arguments: list[str] | None = None) -> int:
    """Make a bundle. Return 0, or 1 with the reason printed."""
    options = parse(arguments)
    try:
        make(options)
    except (BundleError, OSError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bundle.py", description=__doc__.split("\n")[0])
    words = {"nargs": "*", "default": [], "metavar": "NAME"}
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--python", default=".".join(platform.python_version_tuple()[:2]))
    parser.add_argument("--platform", choices=PLATFORMS, default="linux-x86_64")
    parser.add_argument("--glibc", default="2.28", help="the oldest C library of a Linux there")
    parser.add_argument("--part-mb", type=float, default=55, help="millions of bytes of a part")
    parser.add_argument("--extra-index-url", help="one more index for pip")
    parser.add_argument("--have", type=Path, help="what is there, as `pip freeze` writes it")
    parser.add_argument("--without", help="packages that are left out", **words)
    parser.add_argument("--newer", help="packages carried though what is there would do", **words)
    parser.add_argument("--also", help="more packages, each apart from the rest", **words)
    parser.add_argument("--build", help="packages that are built here from source", **words)
    parser.add_argument("--catalog", help="models and data (as a rule: all)", **words)
    parser.add_argument("--extras", default=["test", "lab"], nargs="*", metavar="NAME")
    return parser.parse_args(arguments)


def make(options: argparse.Namespace) -> None:
    """Make the bundle's folder; it has its name only when it is whole."""
    if options.out.exists() and not (options.out / "manifest.json").is_file():
        raise BundleError(f"{options.out} is there and no bundle; choose another folder.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if not re.fullmatch(r"3\.\d+(\.\d+)?", options.python) or not SpecifierSet(
            project["requires-python"]).contains(options.python):
        raise BundleError(f"--python {options.python!r} is no Python that the project runs on; "
                          f"expected {project['requires-python']}, as 3.12.")
    if not re.fullmatch(r"2\.\d+", options.glibc):
        raise BundleError(f"--glibc {options.glibc!r} is no version of glibc, as 2.28 is.")
    if options.part_mb < 1:
        raise BundleError(f"--part-mb {options.part_mb:g} is too small; 1 is the least.")
    target = Target(options.python, options.platform, options.glibc)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{options.out.name}-", dir=options.out.parent))
    try:
        final = scratch / "bundle"
        final.mkdir()
        manifest, sources, apart = gather(options, target, scratch)
        limit = int(options.part_mb * 1e6)
        order = [(name, file["size"], file["group"]) for name, file in manifest["files"].items()]
        plan = plan_parts(order, limit, apart)
        digits = len(str(len(plan)))
        for number, pieces in enumerate(plan, 1):
            path = final / f"part-{number:0{digits}}-of-{len(plan)}.tar"
            manifest["parts"].append(write_part(path, pieces, sources))
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {describe(pieces, manifest)}")
        (final / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        for name in ("unpack.sh", "unpack.py"):
            shutil.copy(ROOT / "tools" / name, final / name)
        shutil.rmtree(options.out, ignore_errors=True)
        os.replace(final, options.out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{options.out}: {len(plan)} parts, manifest.json, unpack.sh and unpack.py. "
          f"There: sh unpack.sh --into FOLDER")


def describe(pieces: list[tuple[str, int, int]], manifest: dict) -> str:
    """Return what a part holds, in words: groups and files."""
    groups = dict.fromkeys(manifest["files"][name]["group"] for name, _, _ in pieces)
    return ", ".join(groups)


def gather(options, target: Target, scratch: Path) -> tuple[dict, dict[str, Path], set[str]]:
    """Return the manifest without its parts, where each of its files lies, and groups apart."""
    archives = chosen_archives(options.catalog)
    tracked = project_files()
    resolution = resolve(options, target, scratch / "wheels")
    tools = {}
    for name in ("pip", "packaging"):
        found, output = resolution.pip([name])
        if found is None:
            raise BundleError(f"{name}, which unpacking needs, was not found: {output.strip()}")
        tools[name] = found[name]
    pack_project(scratch / "project.tar.gz", tracked)
    own = project_wheel(tracked, scratch)

    sources: dict[str, Path] = {}
    files: dict[str, dict] = {}

    def take(name: str, path: Path, group: str) -> str:
        sources[name] = path
        files[name] = {"size": path.stat().st_size, "sha256": digest(path), "group": group}
        return name

    take("project.tar.gz", scratch / "project.tar.gz", "packages")
    tool_files = {name: take(f"wheels/{path.name}", path, "packages")
                  for name, path in tools.items()}
    packages = [{"name": "ftkit", "version": own.name.split("-")[1], "always": True,
                 "file": take(f"wheels/{own.name}", own, "packages"), "group": "packages",
                 "requires": asked(own_requirements(options.extras))}]
    for name, package in resolution.packages.items():
        path = f"wheels/{package.wheel.name}"
        if path not in files:
            take(path, package.wheel, package.group)
        packages.append({
            "name": name, "version": package.version, "file": path,
            "always": name in resolution.newer, "group": package.group,
            "requires": asked(package.requires)})
    groups = list(dict.fromkeys(["packages", *archives, *options.also]))
    for name in archives:
        path = fetched(name)
        take(f"archives/{path.name}", path, name)
    # parts follow this order: what the tests need, models and data, what was asked for besides
    files = {name: file for group in groups for name, file in files.items()
             if file["group"] == group}
    groups = [group for group in groups if any(f["group"] == group for f in files.values())]
    wheels = sum(file["size"] for name, file in files.items() if name.startswith("wheels/"))
    print(f"{len(packages)} packages, {wheels / 1e6:.1f} MB; left to the machine: "
          f"{', '.join(sorted(resolution.left)) or 'none'}")
    return {
        "format": 1, "python": ".".join(options.python.split(".")[:2]),
        "platform": options.platform, "glibc": options.glibc, "groups": groups, "files": files,
        "tools": tool_files, "packages": packages, "parts": [],
        "roots": {"packages": [["ftkit", ""]],
                  **{word: asked([Requirement(word)]) for word in options.also}},
        "extras": {name: asked(wanted) for name, wanted in resolution.extras.items() if wanted},
    }, sources, set(options.also)


def resolve(options, target: Target, folder: Path) -> Resolution:
    """Return which packages are carried, with their wheels downloaded to `folder`."""
    folder.mkdir()
    pinned = {name: version for name, version in read_versions(ROOT / "constraints.txt").items()
              if version}
    resolution = Resolution(
        target, folder, pinned, have=read_versions(options.have) if options.have else {},
        without=names(options.without), newer=names(options.newer), build=names(options.build),
        index=options.extra_index_url)
    resolution.add(own_requirements(options.extras), "packages", "ftkit")
    for wanted in options.also:
        try:
            resolution.add([Requirement(wanted)], wanted, "--also")
        except InvalidRequirement as error:
            raise BundleError(f"{wanted!r} is no package: {error}") from None
    for problem in resolution.conflicts():
        print(f"bundle: not as wanted: {problem}", file=sys.stderr)
    return resolution


def asked(requirements: list[Requirement]) -> list[list[str]]:
    """Return requirements as the manifest has them: pairs of a name and the versions."""
    return [[canonicalize_name(r.name), str(r.specifier)] for r in requirements]


def names(words: list[str]) -> set[str]:
    """Return package names as the index compares them."""
    return {canonicalize_name(word) for word in words}


def chosen_archives(catalog_names: list[str]) -> list[str]:
    """Return the archives that hold these models and data sets, in their order; all for none."""
    from ftkit.assets import catalog
    from ftkit.data import recipe
    from ftkit.errors import SettingError

    known = [*catalog.models(), *recipe.entries()]
    if not catalog_names:
        return list(recipe.archives())
    try:
        entries = [catalog.find(name, known) for name in catalog_names if name != "none"]
    except SettingError as error:
        raise BundleError(str(error)) from None
    return list(dict.fromkeys(archive for entry in entries for archive in entry.archives))


def fetched(archive: str) -> Path:
    """Return an archive of the cache, fetched and verified."""
    from ftkit.assets import catalog, fetch
    from ftkit.errors import FetchError

    try:
        path = fetch.fetch(archive)
    except FetchError as error:
        raise BundleError(str(error)) from None
    if digest(path) != catalog.ARCHIVES[archive].sha256:
        raise BundleError(f"{path} is damaged; remove it and run `ftkit fetch {archive}`.")
    return path


def own_requirements(extras: list[str]) -> list[Requirement]:
    """Return what pyproject.toml asks for, with these of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def project_files() -> list[str]:
    """Return the files that git tracks, as they are in the checkout now."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"],
                          capture_output=True, text=True)
    if done.returncode:
        raise BundleError(f"{ROOT} is no git checkout, so which files are the project's cannot be "
                          f"told: {done.stderr.strip()}. Clone the project and run this there.")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def pack_project(final: Path, names: list[str]) -> None:
    """Write the project's files as an archive whose bytes depend on their content alone."""
    with open(final, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w") as archive:
        for name in sorted(names):
            info = archive.gettarinfo(str(ROOT / name), arcname=name)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = 0
            with open(ROOT / name, "rb") as source:
                archive.addfile(info, source)


def project_wheel(names: list[str], folder: Path) -> Path:
    """Build the project's own wheel from its tracked files alone."""
    copy = folder / "source"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet",
         "--disable-pip-version-check", "-w", str(folder / "own"), str(copy)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise BundleError(f"the project's own wheel could not be built: {done.stdout.strip()}")
    return next((folder / "own").glob("*.whl"))


def plan_parts(files: list[tuple[str, int, str]], limit: int,
               apart: set[str]) -> list[list[tuple[str, int, int]]]:
    """Return the pieces (name, start, size) of each part, in the files' order.

    files: name, size in bytes, group. limit: bytes of a part. Files are cut so that parts are
    full; a group of `apart` that fits a part, and not what is left of this one, begins a new one.
    """
    room_of_part = limit - TAR_OVERHEAD
    sizes: dict[str, int] = {}
    for _, size, group in files:
        sizes[group] = sizes.get(group, 0) + size + MEMBER_OVERHEAD
    parts: list[list[tuple[str, int, int]]] = [[]]
    room, last = room_of_part, None
    for name, size, group in files:
        if group != last and group in apart and room < sizes[group] <= room_of_part:
            parts.append([])
            room = room_of_part
        last, start = group, 0
        while True:
            piece = min(size - start, room - MEMBER_OVERHEAD)
            if piece > 0 or (size == 0 and room > MEMBER_OVERHEAD):
                parts[-1].append((name, start, piece))
                room -= piece + MEMBER_OVERHEAD
                start += piece
            if start >= size and piece >= 0:
                break
            parts.append([])
            room = room_of_part
    return parts


def write_part(path: Path, pieces: list[tuple[str, int, int]], sources: dict[str, Path]) -> dict:
    """Write one part, and return what the manifest says of it."""
    described = []
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, start, size in pieces:
            whole = size == sources[name].stat().st_size
            info = tarfile.TarInfo(name if whole else f"{name}.from-{start}")
            info.size = size
            with open(sources[name], "rb") as source:
                source.seek(start)
                archive.addfile(info, source)
            described.append({"file": name, "member": info.name, "start": start, "size": size})
    return {"name": path.name, "size": path.stat().st_size, "sha256": digest(path),
            "pieces": described}


def digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
