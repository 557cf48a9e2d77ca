"""What ten thousand runs ask of the machine that hands them out: `python benchmarks/scale.py`.

Measured are the parts of `ftkit batch` that grow with the number of runs; the runs themselves cost
what they cost on their nodes. docs/scale.md says what follows.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ftkit.batch import notebook as nb  # noqa: E402
from ftkit.batch import ray_executor, run  # noqa: E402
from ftkit.batch.report import insert_table, write_results  # noqa: E402
from ftkit.display import markdown_table  # noqa: E402
from ftkit.models.hardware import usable_cores  # noqa: E402

LESSON = Path(__file__).parents[1] / "notebooks" / "09_lora.ipynb"  # of usual size, with figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--in-flight", type=int, default=1600, help="at a time (%(default)s)")
    parser.add_argument("--starts", type=int, default=8, help="real ones, here (%(default)s)")
    parser.add_argument("--write", metavar="FILE", help="put the table into this document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ftkit-scale-") as folder:
        found = starts(Path(folder), options.starts) | driver(
            Path(folder), options.runs, options.in_flight) | asking(options.in_flight)
    print(text := table(found))
    if options.write:
        document = Path(options.write)
        nb.write_file(insert_table(document.read_text(encoding="utf-8"), text, "scale"), document)


def table(found):
    """The numbers as Markdown, with three digits."""
    return markdown_table(("measured", "value"), [
        (name, f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 100
         else f"{value:.3g}") for name, value in found.items()])


def starts(folder, n):
    """Real runs that do nothing: what a process, a kernel and papermill cost."""
    lesson = folder / "nothing.ipynb"
    cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "seed = 0",
              "outputs": [], "execution_count": None, "id": "one"}]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb.write({"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4,
              "nbformat_minor": 5}, lesson)
    cores = usable_cores()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    records = run.run_batch([lesson], seeds=n, workers=cores, out=folder / "starts", report=str)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert {record["status"] for record in records} == {"ok"}, records
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cores": cores, "start of a run, s of a core": spent / n,
            "start of a run, s by the clock": seconds * cores / n,
            "start of a run, MB": max(record["peak_memory"] for record in records) / 1e6}


class Finished:
    """Stands for Ray where every task has ended at once: what remains is the driver's own work."""

    exceptions = mock.Mock(RayError=RuntimeError)

    def wait(self, tasks, timeout):
        return tasks, []

    def get(self, made):
        return made


def driver(folder, n, in_flight):
    """The batch's own work for n runs: hand out, write what comes back, start again, the tables."""
    executed = nb.read(LESSON)
    claims = nb.claims(executed)
    content = json.dumps(executed).encode()

    class Task:
        @staticmethod
        def remote(lesson, limits):
            record = lesson.record("ok", "", seconds=1.0, peak_memory=1, claims=claims,
                                   output=lesson.output.name)
            target = folder / "same"
            target.write_bytes(content)
            record["sha256"] = nb.file_hash(target)
            return record, {lesson.output.name: content, f"logs/{lesson.name}.log": b"a line\n"}

    @contextmanager
    def cluster(*_):
        yield (lambda lesson: ray_executor.RemoteRunning(Finished(), Task, lesson, {})), in_flight

    def batch():
        start = time.monotonic()
        records = run.run_batch([LESSON], seeds=n, workers=in_flight, out=folder / "out",
                                report=str)
        return records, time.monotonic() - start

    with mock.patch.object(run, "_executor", cluster):
        records, first = batch()
        _, again = batch()
    start = time.monotonic()
    write_results(records, folder / "out", profile=None, parameters={}, over_grid=True)
    tables = time.monotonic() - start
    size = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
    return {"runs": n, "handed out and written, runs a second": n / first,
            "a start over finished runs, s": again, "the tables, s": tables,
            "results, kB a run": size / n / 1e3, "results.json, MB":
            (folder / "out" / "results.json").stat().st_size / 1e6,
            "memory of the batch, MB":
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin"
                                                                  else 1e3)}


def asking(in_flight):
    """What it costs to ask Ray about each run in flight, {} without Ray."""
    try:
        import ray
    except ImportError:
        return {}
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error",
             _node_ip_address="127.0.0.1")
    try:
        task = ray.remote(lambda: time.sleep(600)).options(num_cpus=1)
        tasks = [task.remote() for _ in range(in_flight)]  # one runs, the others wait
        start = time.monotonic()
        for one in tasks:
            ray.wait([one], timeout=0)
        spent = time.monotonic() - start
        start = time.monotonic()
        ray.wait(tasks, num_returns=in_flight, timeout=0)
        together = time.monotonic() - start
    finally:
        ray.shutdown()
    return {"in flight": in_flight, "asking about each, s": spent,
            "asking about all at once, s": together}


if __name__ == "__main__":
    main()
