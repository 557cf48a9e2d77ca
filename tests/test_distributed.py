"""Without this, the same lesson under torchrun could train another model than on one device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

import ftkit as ft

SCRIPT = """
import json, os, sys
sys.path.insert(0, {tests!r})
import tiny, ftkit as ft
found = {{}}
for name, model in (("encoder", tiny.encoder()), ("decoder", tiny.decoder())):
    data = tiny.reviews(16)
    if name == "decoder":
        data = data.remove_columns("label")
    run = ft.fit(model, data, epochs=2, batch_size=8, learning_rate=1e-3, quiet=True)
    found[name] = [run.model.hash(), run.metrics["eval_loss"], run.history["step"].max().item()]
open(f"{out}/rank" + os.environ["RANK"], "w").write(json.dumps(found))
"""


def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path)))
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                    "--master-port", "29617", str(script)], check=True, timeout=240,
                   cwd=tmp_path, capture_output=True)
    first, second = (json.loads((tmp_path / f"rank{i}").read_text()) for i in (0, 1))
    assert first == second, "the processes ended with different weights"
    for name, model in (("encoder", tiny.encoder()), ("decoder", tiny.decoder())):
        data = tiny.reviews(16)
        if name == "decoder":
            data = data.remove_columns("label")
        alone = ft.fit(model, data, epochs=2, batch_size=8, learning_rate=1e-3, quiet=True)
        _, loss, steps = first[name]
        assert steps == alone.history["step"].max()
        assert loss == pytest.approx(alone.metrics["eval_loss"], rel=0.02)
    assert not torch.distributed.is_initialized()
