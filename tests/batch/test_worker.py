"""A long lesson must not be stopped because its progress was read while being written."""

import threading
from types import SimpleNamespace

from ftkit.batch.supervise import child_environment
from ftkit.batch.worker import _tell


def test_progress_can_be_read_while_it_is_written(tmp_path):
    path = tmp_path / "progress"
    _tell(path, "1 9")
    ended = threading.Event()

    def write():
        for cell in range(2000):
            _tell(path, f"{cell} 9")
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    found = set()
    while not ended.is_set():
        found.add(len(path.read_text().split()))
    thread.join()
    assert found == {2}  # an empty file would be taken for a kernel that never answered
    assert path.read_text() == "1999 9"


def test_a_batch_from_an_open_lesson_does_not_take_that_for_the_one_it_runs(tmp_path, monkeypatch):
    """Its outputs would have the hints and reasons of the open lesson."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/notebooks/08_adapters.ipynb")
    lesson = SimpleNamespace(out=tmp_path, checkpoints=tmp_path / "checkpoints")
    found = child_environment(tmp_path, lesson, 1)
    assert "JPY_SESSION_NAME" not in found and found["FTKIT_PLAIN"] == "1"
