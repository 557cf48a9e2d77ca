"""A pytest plugin: `pytest --claims notebooks` runs notebooks again and compares their claims.

A stored notebook fails when a claim's interval no longer overlaps that of the rerun, or when what
held holds no more; not when a digit differs. (For cells that must be equal there is nbval.)
"""

import tempfile

import pytest


def pytest_addoption(parser):
    parser.getgroup("ftkit").addoption(
        "--claims", action="store_true", help="run notebooks again, with the parameters that they "
        "were stored with, and compare each claim (ftkit.claim) with the stored one")


def pytest_collect_file(file_path, parent):
    wanted = file_path.suffix == ".ipynb" and ".ipynb_checkpoints" not in file_path.parts
    if wanted and parent.config.getoption("claims"):
        return _Notebook.from_parent(parent, path=file_path)
    return None


class _Notebook(pytest.File):
    """A notebook as it is stored: one item, which runs it once."""

    def collect(self):
        from ftkit.batch import notebook as nb
        from ftkit.errors import FtkitError

        try:
            stored = nb.read(self.path)
            claims = nb.claims(stored)
        except FtkitError as error:
            raise self.CollectError(str(error)) from None
        yield _Claims.from_parent(
            self, name="claims", stored=claims,
            parameters=stored["metadata"].get("ftkit", {}).get("parameters", {}))


class _Differ(Exception):
    """What is wrong with a rerun, as lines."""


class _Claims(pytest.Item):
    def __init__(self, *, stored, parameters, **more):
        super().__init__(**more)
        self.stored, self.parameters = stored, parameters

    def runtest(self):
        from ftkit.batch.report import differences
        from ftkit.batch.run import run_batch

        if not self.stored:
            pytest.skip("no claim is stored in it; ft.claim makes one")
        with tempfile.TemporaryDirectory(prefix="ftkit-") as out:
            [record] = run_batch([self.path], parameters=self.parameters, out=out, report=str)
        if record["status"] not in ("ok", "claim not held"):
            raise _Differ(f"{record['status']}: {record['message']}")
        if wrong := differences(self.stored, record["claims"]):
            raise _Differ("\n".join(wrong))

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, _Differ):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, None, f"{self.path.name}: claims"
