"""On a cluster of which a node is lost, each run is accounted for once, with the same results."""

import os
import signal
import sys
from contextlib import suppress

import psutil
import pytest
from faulty import PARAMETERS, WORK, lives, nothing_is_left, records, run, start, wait_for

from ftkit.batch.run import run_batch
from ftkit.errors import SettingError


def needs_ray():
    """Skip without Ray, which `make test` does not install; under CI its lack is a failure."""
    if os.environ.get("CI", "") not in ("", "0", "false"):
        import ray  # noqa: F401
    pytest.importorskip("ray", reason='pip install "ftkit[ray]"')


@pytest.fixture
def two_nodes(monkeypatch):
    """A Ray cluster of two nodes on the loopback interface, a core each.

    Under 127.0.0.1 Ray would look for its head at the machine's address in the network.
    """
    needs_ray()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.2"}
    cluster = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
    node = cluster.add_node(**size)
    yield cluster, node
    cluster.shutdown()


def runs_a_notebook(node):
    """Whether a node has the kernel of a run now, and not only what waits for one."""
    (raylet,) = node.all_processes["raylet"]
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(raylet.process.pid).children(recursive=True)
        return any("ipykernel_launcher" in " ".join(process.cmdline()) for process in below)
    return False


@pytest.mark.slow
def test_a_grid_on_two_nodes_of_which_one_is_killed_ends_as_on_one_machine(
        two_nodes, tmp_path, write_notebook):
    cluster, node = two_nodes
    lesson = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS, WORK)
    words = [lesson, "--grid", "rank=1,2,3,4", "--seeds", 2, "--workers", "auto"]
    out = tmp_path / "out"
    batch = start(*words, "-p", "seconds", "2.0", "--out", out, "--executor", "ray", "--address",
                  cluster.address, "--retries", 3)
    wait_for(lambda: len(records(out)) >= 2 or batch.poll() is not None, 120)
    wait_for(lambda: runs_a_notebook(node) or batch.poll() is not None, 60)
    cluster.remove_node(node, allow_graceful=False)
    printed = batch.communicate(timeout=300)[0]
    assert batch.returncode == 0, printed
    found = records(out)
    assert len(found) == 8 and {record["status"] for record in found.values()} == {"ok"}
    assert sum(record["attempts"] for record in found.values()) > 8, "no run was lost with the node"
    assert "worker or node was lost" in printed
    assert printed.count(": ok in") == 8
    assert len(list(out.glob("01_a--*.ipynb"))) == len(list((out / "logs").iterdir())) == 8
    nothing_is_left(out)
    code, printed = run(*words, "-p", "seconds", "2.0", "--out", tmp_path / "here")
    here = records(tmp_path / "here")
    assert code == 0 and {n: r["claims"] for n, r in here.items()} == {
        n: r["claims"] for n, r in found.items()}


@pytest.mark.slow
def test_a_batch_on_a_cluster_that_is_stopped_ends_its_runs_there(two_nodes, tmp_path,
                                                                  write_notebook):
    cluster, _ = two_nodes
    pid = tmp_path / "pid"
    lesson = write_notebook(
        tmp_path / "01_a.ipynb",
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    batch = start(lesson, "--out", tmp_path / "out", "--executor", "ray", "--address",
                  cluster.address)
    wait_for(lambda: pid.exists() and pid.read_text(), 120)
    batch.send_signal(signal.SIGTERM)
    assert batch.wait(120) == 143
    wait_for(lambda: not lives(int(pid.read_text())), 20)


@pytest.mark.slow  # as all that need Ray, which `make test` does not install
def test_a_cluster_that_is_not_there_is_named(tmp_path, write_notebook):
    lesson = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS, WORK)
    words = [lesson, "--out", tmp_path / "out", "--executor", "ray", "--address", "127.0.0.1:9"]
    needs_ray()
    code, printed = run(*words)
    assert code == 2 and "no Ray cluster was found at '127.0.0.1:9'" in printed
    assert "started" not in printed


def test_under_ci_the_proof_cannot_be_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ImportError):
        needs_ray()


def test_without_ray_the_executor_says_what_to_install(tmp_path, write_notebook, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    lesson = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS, WORK)
    with pytest.raises(SettingError, match=r"pip install .ftkit\[ray\]"):
        run_batch([lesson], out=tmp_path / "out", executor="ray", report=str)
