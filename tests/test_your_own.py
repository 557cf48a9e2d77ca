"""The template for a reader's own file. Without these, the first file that is not tidy stops it."""

import json
import warnings
from pathlib import Path

import pytest
import tiny
from papermill import execute_notebook

import ftkit as ft
from ftkit.batch import notebook as nb
from ftkit.batch import start
from ftkit.course import claims, your_own
from ftkit.errors import SettingError
from ftkit.models import hardware

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "notebooks" / "templates" / "your_own.ipynb"
PLACES = ("kitchen cellar garden attic garage hallway balcony office bedroom bathroom porch barn "
          "library workshop pantry studio terrace lobby chapel stable").split()
THINGS = ("lamp door tap window heater oven shelf lock fan carpet mirror sink ceiling pump curtain "
          "fence radiator switch drain gutter").split()
KINDS = {"repair": ("is broken again since the storm", "makes a loud noise at night"),
         "order": ("please send us another one", "we want to buy two of them soon"),
         "praise": ("looks lovely, thank you all", "works better than we ever hoped")}


def messages():
    """(text, label) of 120 messages, no two of them alike."""
    for i in range(120):
        label = list(KINDS)[i % 3]
        place, thing = PLACES[i * 7 % 20], THINGS[(i // 6 + i * 3) % 20]
        text = f"{place} {i}: the {thing} {KINDS[label][i // 3 % 2]}, says flat {i * 37 % 101}"
        yield text, label


@pytest.fixture(autouse=True)
def _fresh():
    """The template judges the claims of its process: none of other tests' here."""
    claims._claims.clear()
    yield
    claims._claims.clear()
    hardware.profile("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of tiny random models: an encoder and a decoder."""
    folder = tmp_path_factory.mktemp("models")
    tiny.encoder("encoder").save(folder / "encoder")
    tiny.decoder().save(folder / "decoder")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four small files, two of them as messy as people's files are."""
    folder = tmp_path_factory.mktemp("files")
    rows = list(messages())
    lines = ["text,label", *(f'"{text}",{label}' for text, label in rows)]
    (folder / "tickets.csv").write_text("\n".join(lines), encoding="utf-8")

    # From a German Excel: a byte order mark, semicolons, blanks, and columns of other names.
    lines = ["Message ;Queue;Customer"]
    lines += [f'" {text} ";{label}{" " * (i % 4 == 0)};{i % 40}' for i, (text, label) in
              enumerate(rows)]
    lines += [f"{text};;41" for text, _ in rows[:7]]  # no label
    lines += [f"no label for message {i} of the {place};NA;{i}" for i, place in enumerate(PLACES)]
    lines += [f"{rows[0][0].upper()};{rows[0][1]};7"] * 3  # the same, three times more
    lines += [f"{rows[1][0]};praise;7"]  # it was "order" above
    (folder / "messy.csv").write_text("\n".join(lines), encoding="utf-8-sig")

    with open(folder / "chat.jsonl", "w", encoding="utf-8") as file:
        for text, label in rows[:60]:
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
            file.write(json.dumps({"messages": turns}) + "\n")

    with open(folder / "messy.jsonl", "w", encoding="utf-8-sig") as file:
        for text, label in [*rows[:60], rows[3], rows[3], ("an open question", "")]:
            file.write(json.dumps({"instruction": text, "input": None, "output": label}) + "\n\n")
    return folder


def run_cells(tmp_path, monkeypatch, **parameters):
    """Run the template's cells in this process, as papermill would. Returns their names."""
    monkeypatch.chdir(tmp_path)
    space = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, cell in nb.code_cells(nb.read(TEMPLATE)):
            exec(compile(nb.source(cell), f"cell {number}", "exec"), space)
            if "parameters" in nb.tags(cell):
                assert parameters.keys() <= space.keys()
                space |= parameters | {"profile": "smoke"}
    return space


def test_a_tidy_table_goes_the_whole_way(models, files, tmp_path, monkeypatch, capsys):
    found = run_cells(tmp_path, monkeypatch, FILE=str(files / "tickets.csv"), SAVE="mine",
                      MODEL=str(models / "encoder"), PROMPTED=str(models / "decoder"))
    assert not found["gone"] and found["data"].labels == ["order", "praise", "repair"]
    opponents = {name for name in found["on_test"] if "fine-tuned" not in name}
    assert opponents == {"always 'order'", "word counts", "asked with 0 examples",
                         "asked with 0 examples, calibrated", "asked with 2 examples",
                         "asked with 2 examples, calibrated"}
    assert found["rival"] == "word counts"  # it tells these messages apart; chosen on validation
    assert not found["claim"].held  # after one epoch of a tiny random network
    assert found["claim"].opponent == "word counts"
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "word counts" in card and found["claim"].verdict() in card
    assert (tmp_path / "mine" / "model.safetensors").is_file()
    said = capsys.readouterr().out
    assert "left out: nothing" in said and "take word counts" in said


def test_a_messy_table_is_cleaned_and_every_row_accounted_for(models, files, tmp_path,
                                                              monkeypatch):
    found = run_cells(tmp_path, monkeypatch, FILE=str(files / "messy.csv"), TEXT="Message",
                      LABEL="Queue", GROUP="Customer", MODEL=str(models / "encoder"),
                      PROMPTED=None)
    assert found["data"].labels == ["order", "praise", "repair"]
    # The row with two labels goes with its double; of four that are the same, one stays.
    assert found["gone"] == {"no label": 20, "its text has several labels": 2,
                             "its text occurs twice": 3}
    assert sum(map(len, found["rows"].values())) == 119
    assert sum(found["gone"].values()) + 119 + 7 == found["read"].rows_read
    kept = [set(found["data"][split]["group"]) for split in found["data"]]
    assert not kept[0] & kept[1] and not kept[0] & kept[2] and not kept[1] & kept[2]
    assert any("7 without label" in note for note in found["read"].notes)
    assert "Of 151 rows read, 32 were left out" in found["card"]
    assert found["units"] == len(kept[2]) < len(found["test"])  # power counts groups, not rows


@pytest.mark.parametrize("name, gone", [
    ("chat.jsonl", {}), ("messy.jsonl", {"its text occurs twice": 2})])
def test_answers_are_measured_by_their_loss(name, gone, models, files, tmp_path, monkeypatch):
    found = run_cells(tmp_path, monkeypatch, FILE=str(files / name), MODEL=str(models / "decoder"))
    assert found["gone"] == gone and found["metric"] == "loss"
    assert sum(map(len, found["rows"].values())) == 60
    assert {"asked with 0 examples", "asked with 2 examples"} <= set(found["on_test"])
    before, after = found["on_test"]["asked with 0 examples"], found["tuned"][0]
    assert after["loss"].value < before["loss"].value
    assert [row["model"] for row in found["view"].data] == ["base", "tuned"]
    assert found["claim"].bound == {"at_most": -0.1}


def test_what_the_template_does_not_know_is_said_before_anything_is_trained(models, files, tmp_path,
                                                                            monkeypatch):
    path = tmp_path / "scores.tsv"
    path.write_text("text\tlabel\n" + "\n".join(
        f"{text}\t{i / 7:.2f}" for i, (text, _) in enumerate(messages())))
    with pytest.raises(SettingError, match="rows are for 'regression'"):
        run_cells(tmp_path, monkeypatch, FILE=str(path), MODEL=str(models / "encoder"))


def test_papermill_runs_it_without_a_screen(models, files, tmp_path):
    out = tmp_path / "out.ipynb"
    execute_notebook(TEMPLATE, out, {
        "FILE": str(files / "messy.csv"), "TEXT": "Message", "LABEL": "Queue", "profile": "smoke",
        "MODEL": str(models / "encoder"), "PROMPTED": None},
        kernel_name="python3", language="python", cwd=tmp_path, progress_bar=False)
    made = nb.read(out)
    assert nb.failure(made) is None and len(nb.claims(made)) == 1
    assert not any(kind in output.get("data", {}) for _, cell in nb.code_cells(made)
                   for output in cell["outputs"] for kind in nb.WIDGETS)


@pytest.mark.parametrize("name, model, columns, metric", [
    ("tickets.csv", "encoder", {}, "accuracy"),
    ("messy.csv", "encoder", {"text": "Message", "label": "Queue", "group": "Customer"},
     "accuracy"),
    ("chat.jsonl", "decoder", {}, "loss"), ("messy.jsonl", "decoder", {}, "loss")])
def test_the_form_takes_the_same_way(name, model, columns, metric, models, files, tmp_path,
                                     monkeypatch):
    """As a function, with fixed arguments; the notebook that it writes says the same."""
    monkeypatch.chdir(tmp_path)
    own = ft.your_own(files / name, model=str(models / model), prompted=None, method="lora",
                      profile="smoke", worth=0.25, guess=0.5, **columns).go()
    assert own.done == len(own.steps) == 9
    assert own.data["claim"].metric == metric and own.found["my_guess"] == 0.5
    assert own.data["claim"].bound == ({"at_least": 0.25} if metric == "accuracy" else
                                       {"at_most": -0.25})
    assert own.data["table"][-1]["method"].startswith("fine-tuned")
    assert "LoRA" in own.data["card"] and own.data["visible"] > 0
    if name == "messy.csv":
        assert own.found["gone"] == {"no label": 20, "its text has several labels": 2,
                                     "its text occurs twice": 3}
    with pytest.raises(SettingError, match="the last step"):
        own.next()
    written = nb.read(own.save_notebook("mine.ipynb"))
    code = "\n".join(nb.source(cell) for _, cell in nb.code_cells(written))
    assert f"FILE = {str(files / name)!r}" in code and "METHOD = 'lora'" in code
    assert "worth = 0.25 if labelled else -0.25" in code
    with pytest.raises(SettingError, match="mine.ipynb is there already"):
        own.save_notebook("mine.ipynb")


def test_the_form_is_filled_in_and_says_what_is_wrong(models, files, tmp_path, monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets", reason="needs the extra lab")
    monkeypatch.chdir(tmp_path)
    own = ft.your_own(profile="smoke", prompted=None)
    assert "a file of yours, step by step" in repr(own) and own.data["table"] == []
    form = your_own._Form(own, ipywidgets)
    assert all(one.description for one in form.fields.values())
    form.buttons["next"].click()
    assert "role='alert'" in form.said.value and "there is no file" in form.said.value
    form.fields["file"].value = str(files / "tickets.csv")
    form.fields["model"].value = str(models / "encoder")
    form.fields["worth"].value = "much"
    form.buttons["next"].click()
    assert "&#x27;much&#x27; is no number" in form.said.value and own.done == 0
    form.fields["worth"].value = "0.1"
    form.buttons["next"].click()
    assert "1 of 9 steps taken" in form.said.value
    assert form.buttons["next"].description == "Next: Clean it"
    form.fields["worth"].value = "0.2"  # may be changed until the step Predict
    form.buttons["next"].click()
    form.fields["method"].value = "freeze"  # another way: from the beginning
    form.buttons["next"].click()
    assert own.done == 1 and len(form.below.children) == 1
    assert own.settings["worth"] == 0.2 and own.settings["method"] == "freeze"
    form.buttons["Save as a notebook"].click()
    assert Path("your_own_tickets.ipynb").is_file()
    for name in ("method", "profile"):
        with pytest.raises(SettingError, match=f"{name}='mine': choose one of"):
            ft.your_own(**{name: "mine"})


def test_it_travels_with_the_lessons_and_its_outputs_are_of_its_code():
    assert start.lessons()["notebooks/templates/your_own.ipynb"] == TEMPLATE
    notebook = nb.read(TEMPLATE)
    made = notebook["metadata"]["ftkit"]
    assert made["source_hash"] == nb.source_hash(notebook), (
        "the code has changed: run `ftkit batch notebooks/templates/your_own.ipynb --fresh "
        "--commit-to notebooks/templates`")
    assert nb.failure(notebook) is None and nb.claims(notebook)
    lengths = [len(nb.source(cell).splitlines()) for _, cell in nb.code_cells(notebook)]
    assert max(lengths) <= 40
