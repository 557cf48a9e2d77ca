"""The files for Slurm and Kubernetes say what the command understands, on every machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ftkit import cli
from ftkit.batch.launch import Launch

FOLDER = Path(__file__).parents[2] / "docs" / "cluster"
FILES = sorted(FOLDER.iterdir())
NOTES = ("import json, sys\nwith open({calls!r}, 'a') as file:\n"
         "    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n")
SRUN = """#!/bin/bash
nodes=2
while [[ $1 == --* ]]; do [[ $1 == --nodes=* ]] && nodes=${1#--nodes=}; shift; done
for ((i = 0; i < nodes; i++)); do SLURM_NODEID=$i "$@"; done
"""


@pytest.fixture
def calls(tmp_path):
    """Run a script with commands that only note how they were called; return these calls."""
    def run(*script, **environment):
        tools, noted = tmp_path / "bin", tmp_path / "calls"
        tools.mkdir()
        for name in ("ftkit", "ray"):
            (tools / name).write_text(
                f"#!{sys.executable}\n" + NOTES.format(calls=str(noted), name=name))
        (tools / "srun").write_text(SRUN)
        (tools / "scontrol").write_text("#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
        for path in tools.iterdir():
            path.chmod(0o755)
        path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [str(word) for word in script], env=os.environ | {"PATH": path} | environment,
            cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in noted.read_text().splitlines()]

    return run


def slurm(calls, name, *arguments):
    return calls("bash", FOLDER / name, *arguments, SLURM_JOB_NODELIST="node[1-2]",
                 SLURM_NNODES="2", RAY_HEAD_SECONDS="0", RAY_NODES_SECONDS="0.5")


def pod(calls, name, index):
    job = documents(name)["Job"]
    container, = job["spec"]["template"]["spec"]["containers"]
    return calls(*container["command"], *container["args"], JOB_COMPLETION_INDEX=str(index))


def documents(name):
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / name).read_text())}


def understood(call):
    """What the command's own parser makes of a call; of Ray its own, where it is installed."""
    if call[0] == "ftkit":
        return cli._parser().parse_args(call[1:])
    scripts = pytest.importorskip("ray.scripts.scripts", reason='pip install "ftkit[ray]"')
    assert call[1] == "start"
    return scripts.start.make_context("start", call[2:]).params


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".sbatch"],
                         ids=lambda path: path.name)
def test_a_script_is_sound(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    after = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[after:]), "sbatch stops reading"


@pytest.mark.parametrize("where", ["Slurm", "Kubernetes"])
def test_each_machine_launches_its_part_of_one_training(calls, where, tmp_path):
    if where == "Slurm":
        found = slurm(calls, "launch.sbatch", "mine.ipynb")
    else:
        found = pod(calls, "launch.yaml", 0)
        shutil.rmtree(tmp_path / "bin")
        found = pod(calls, "launch.yaml", 1)  # the notes have both
    parts = [understood(call) for call in found]
    assert [part.node_rank for part in parts] == [0, 1]
    made = [Launch(part.nproc, part.nnodes, part.node_rank, part.master) for part in parts]
    assert made[0].nnodes == 2 and made[0].nproc == 8 and made[0].master == made[1].master
    assert parts[0].paths == parts[1].paths and parts[0].run is cli._launch


def test_slurm_starts_ray_on_each_machine_and_one_batch(calls):
    found = slurm(calls, "batch.sbatch", "mine.ipynb", "--grid", "rank=4,8", "--seeds", "10")
    batch, = (understood(call) for call in found if call[0] == "ftkit")
    assert batch.seeds == 10 and batch.executor == "ray" and batch.address == "node1:6379"
    head, other = sorted((understood(call) for call in found if call[0] == "ray"),
                         key=lambda params: not params["head"])
    assert head["head"] and head["port"] == 6379 and other["address"] == batch.address


def test_kubernetes_starts_ray_in_each_pod_and_one_batch(calls, tmp_path):
    first = pod(calls, "batch.yaml", 0)
    batch, = (understood(call) for call in first if call[0] == "ftkit")
    head, = (understood(call) for call in first if call[0] == "ray")
    shutil.rmtree(tmp_path / "bin")
    other = understood(pod(calls, "batch.yaml", 1)[-1])
    assert head["head"] and other["address"] == batch.address and batch.executor == "ray"
    assert batch.address.startswith("ftkit-batch-0.ftkit-batch:")


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".yaml"],
                         ids=lambda path: path.name)
def test_what_kubernetes_is_told_fits_together(path):
    made = documents(path.name)
    assert [(one["apiVersion"], kind) for kind, one in made.items()] == [
        ("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy"), ("batch/v1", "Job")]
    names = {one["metadata"]["name"] for one in made.values()}
    assert names == {f"ftkit-{path.stem}"}
    job = made["Job"]["spec"]
    assert job.keys() <= {"completionMode", "completions", "parallelism", "backoffLimit",
                          "backoffLimitPerIndex", "successPolicy", "template"}
    spec, labels = job["template"]["spec"], job["template"]["metadata"]["labels"]
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    # The pods find each other by the Service, and nobody else reaches their ports.
    assert made["Service"]["spec"]["selector"] == labels
    assert made["Service"]["spec"]["clusterIP"] == "None"
    policy = made["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels and policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": labels}}]}]
    container, = spec["containers"]
    assert spec["subdomain"] in names and spec["restartPolicy"] == "Never"
    text = container["args"][0]
    hosts = set(re.findall(r"(?:--master |head=)(\S+?)(?::\d+)?(?=\s)", text))
    assert hosts == {f"ftkit-{path.stem}-0.{spec['subdomain']}"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in spec["volumes"]}
    limits = container["resources"]["limits"]
    if "--nproc" in text:  # a process for each card
        assert f"--nproc {limits['nvidia.com/gpu']} --nnodes {job['completions']}" in text


def test_the_pages_name_each_file():
    text = (FOLDER.parent / "scale.md").read_text()
    assert all(f"](cluster/{path.name})" in text for path in FILES)
