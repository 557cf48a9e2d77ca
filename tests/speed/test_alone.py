"""Each part that saves time is usable alone: the examples of docs/speed.md run as they stand."""

import re
import shutil
from pathlib import Path

import pytest
import tiny
import transformers

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
SECTION = PAGE.read_text(encoding="utf-8").split("## Each part alone")[1].split("\n## ")[0]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION, re.S)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page says that an example starts from; the examples follow each other."""
    model = tiny.decoder()
    texts = [" ".join(tiny.WORDS[i : i + 3 + i % 4]) for i in range(8)]
    rows = [{"input_ids": ids, "labels": list(ids)} for ids in model.tokenizer(texts).input_ids]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path_factory.mktemp("alone")), max_steps=2, use_cpu=True,
        per_device_train_batch_size=4, report_to="none", save_strategy="no", disable_tqdm=True,
        remove_unused_columns=False,
    )
    return {"net": model.net, "tokenizer": model.tokenizer, "rows": rows, "arguments": arguments}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs_as_it_stands(number, names, capsys):
    if "compile_blocks" in EXAMPLES[number] and not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("needs a C++ compiler")
    before = {name: p.clone() for name, p in names["net"].named_parameters()}
    exec(compile(EXAMPLES[number], f"{PAGE.name}, example {number + 1}", "exec"), names)
    if "Trainer(" in EXAMPLES[number]:
        now = dict(names["net"].named_parameters())
        assert any((now[name] != value).any() for name, value in before.items()), "nothing learned"
    assert "forward" not in vars(names["net"]), "the library's forward is back in its place"


def test_every_part_has_an_example():
    """Those that need a card or belong to the kit's own functions have their tests there."""
    from ftkit.speed.optimizations import OPTIMIZATIONS

    elsewhere = {"cuda_graphs", "prefix_caching"}
    assert all(name in SECTION for name in set(OPTIMIZATIONS) - elsewhere)
