"""Without these, a capsule could prove nothing, write where it should not, or carry a secret."""

import json
import shutil
import stat
import zipfile

import pytest
import tiny

import ftkit as ft
from ftkit import cli
from ftkit.batch.notebook import CLAIM
from ftkit.errors import DataError, SettingError
from ftkit.reproduce import capsule as packed

pytestmark = pytest.mark.usefixtures("float32")
WORDS = ["good great warm", "bad dull terrible"]


def write_rows(path, n=60, more=""):
    """Rows of which no two count as alike, from which a label can be learned."""
    rows = [{"text": f"{i}a {i}b {WORDS[i % 2]} {i}c{more}", "label": i % 2} for i in range(n)]
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("capsule")
    tiny.encoder().save(folder / "base")
    write_rows(folder / "own.jsonl")
    return folder


@pytest.fixture(scope="module")
def run(home):
    data = ft.load_data(home / "own.jsonl", n_train=24, n_validation=6, n_test=0, seed=1,
                        split=(0.6, 0.3, 0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTKIT_RUNS", str(home / "runs"))
        return ft.fit(ft.load_model(home / "base"), data, method=ft.LoRA(rank=2), epochs=2,
                      batch_size=8, learning_rate=1e-2, dtype="float32", quiet=True)


@pytest.fixture(scope="module")
def made(run, home):
    return ft.capsule(run, home / "run.capsule")


def changed(made, target, edit, manifest=True, member=None):
    """A copy of a capsule whose files edit(folder) changed, with a manifest to match."""
    folder = target.with_suffix("")
    folder.mkdir()
    packed.unpack(made, folder)
    edit(folder)
    if manifest:
        packed._write(folder, target)
        return target
    with zipfile.ZipFile(made) as one, zipfile.ZipFile(target, "w") as other:
        other.writestr("manifest.json", one.read("manifest.json"))
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            other.write(path, path.relative_to(folder).as_posix())
    return target


def verdicts(found):
    return {row["what"]: row["verdict"] for row in found.rows}


def test_a_run_comes_out_of_its_capsule_bit_for_bit(made, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FTKIT_RUNS", str(tmp_path))
    found = ft.replay(made)
    assert verdicts(found) == {
        "files": "the same", "packages": "noted", "machine": "noted", "base": "the same",
        "data": "the same", "training loss": "the same", "validation loss": "the same",
        "weights": "the same"}
    assert found.exit_code == 0 and "bit for bit" in repr(found) and "0.001" in repr(found)
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""
    assert "<td style='text-align:left'>weights</td>" in found._repr_html_()


def test_a_capsule_is_small_plain_and_the_same_each_time(run, made, home):
    again = ft.capsule(run, home / "again.capsule")
    assert again.read_bytes() == made.read_bytes()
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        lock = archive.read("requirements.lock").decode()
    assert names == ["manifest.json", *sorted(names[1:])]
    assert "model/adapter_model.safetensors" in names and "data/train.jsonl" not in names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert all(line.count("==") == 1 and "@" not in line for line in lock.split())


def test_a_folder_is_packed_by_the_command_and_replayed(run, home, tmp_path, capsys):
    target = tmp_path / "it.capsule"
    assert cli.main(["capsule", str(run.folder), "--out", str(target)]) == 2
    assert "is no folder with the tuned model" in capsys.readouterr().err
    run.model.save(tmp_path / "tuned")
    assert cli.main(["capsule", str(run.folder), "--out", str(target), "--with-data",
                     "--model", str(tmp_path / "tuned")]) == 0
    moved = (home / "own.jsonl").rename(home / "elsewhere.jsonl")
    try:
        assert cli.main(["replay", str(target)]) == 0, "the rows are in it"
        capsys.readouterr()
        assert cli.main(["replay", str(home / "run.capsule")]) == 3
        assert "could not be done: the data" in capsys.readouterr().out
        assert cli.main(["replay", str(home / "run.capsule"), "--data", str(moved)]) == 0
    finally:
        moved.rename(home / "own.jsonl")
    assert cli.main(["replay", str(tmp_path / "none")]) == 2
    assert cli.main(["replay", str(target), "--tolerance", "-1"]) == 2


def test_another_base_or_other_rows_are_told_and_nothing_is_trained(made, home, tmp_path, capsys):
    write_rows(tmp_path / "own.jsonl", more="!")
    assert cli.main(["replay", str(made), "--data", str(tmp_path / "own.jsonl")]) == 1
    out = capsys.readouterr().out
    assert "the run had 24 with" in out and "training loss" not in out
    found = ft.replay(made, base=tiny.encoder(labels=("no", "yes")).copy())
    assert found.exit_code == 0, "of the same weights"
    other = tiny.encoder()
    other.net.classifier.bias.data += 1
    assert ft.replay(made, base=other).exit_code == 1
    assert ft.replay(made, base=str(home / "nowhere")).exit_code == 3


def edit_record(**told):
    def edit(folder):
        record = json.loads((folder / "run.json").read_text())
        record["fit"] |= told
        (folder / "run.json").write_text(json.dumps(record))
    return edit


def edit_loss(folder):
    lines = (folder / "history.jsonl").read_text().replace('"loss":0.6', '"loss":0.5', 1)
    (folder / "history.jsonl").write_text(lines)


def edit_weights(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model" / "adapter_model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("edit, wrong", [
    (edit_loss, {"training loss"}),
    (edit_weights, {"weights"}),
    (edit_record(seed=9), {"training loss", "validation loss", "weights"}),
], ids=["loss", "weights", "seed"])
def test_what_does_not_come_out_is_told(made, tmp_path, edit, wrong):
    found = ft.replay(changed(made, tmp_path / "other.capsule", edit))
    assert {what for what, said in verdicts(found).items() if said == "DIFFERS"} == wrong
    assert found.exit_code == 1


def test_a_changed_file_is_found_before_anything_is_run(made, tmp_path):
    found = ft.replay(changed(made, tmp_path / "other.capsule", edit_loss, manifest=False))
    assert found.exit_code == 1 and list(verdicts(found)) == ["files"]
    assert "history.jsonl has another content" in repr(found)


@pytest.mark.parametrize("told, said", [
    ({"arguments": {"deepspeed": "/etc/passwd"}}, "deepspeed"),
    ({"method": {"class": "os.system", "fields": {}, "left_out": {}}}, "none of the kit's"),
])
def test_a_record_of_a_stranger_sets_nothing_but_settings(made, tmp_path, told, said):
    with pytest.raises(SettingError, match=said):
        ft.replay(changed(made, tmp_path / "other.capsule", edit_record(**told)))


def test_a_record_with_holes_is_no_run(made, tmp_path):
    def edit(folder):
        record = json.loads((folder / "run.json").read_text())
        del record["fit"]["schedule"], record["base"]["hash"]
        (folder / "run.json").write_text(json.dumps(record | {"splits": 3}))

    with pytest.raises(DataError, match="lacks fit.schedule, base.hash, splits"):
        ft.replay(changed(made, tmp_path / "other.capsule", edit))


def link():
    info = packed._member("model/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize("member", ["../outside", "/outside", "model/../../outside", link()],
                         ids=["up", "absolute", "inside up", "link"])
def test_no_member_leaves_the_folder(made, tmp_path, member):
    bad = tmp_path / "bad.capsule"
    shutil.copyfile(made, bad)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr(member, "x")
    with pytest.raises(DataError, match="not opened"):
        ft.replay(bad)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.capsule"]


@pytest.mark.parametrize("add", [
    lambda archive: archive.writestr("run.json", "{}"),
    lambda archive: archive.writestr("x", "x" * 999, compress_type=zipfile.ZIP_DEFLATED),
], ids=["twice", "compressed"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_no_capsule_is_like_is_not_opened(made, tmp_path, add):
    bad = tmp_path / "bad.capsule"
    shutil.copyfile(made, bad)
    with zipfile.ZipFile(bad, "a") as archive:
        add(archive)
    with pytest.raises(DataError, match="not opened"):
        ft.replay(bad)


def test_a_token_among_the_rows_is_not_packed(home, tmp_path):
    write_rows(tmp_path / "own.jsonl", more=" hf_" + "a" * 30)
    data = ft.load_data(tmp_path / "own.jsonl", n_train=8, n_validation=0, n_test=0)
    run = ft.fit(ft.load_model(home / "base"), data, epochs=1, quiet=True)
    with pytest.raises(DataError, match="train.jsonl would hold what looks like an access token"):
        ft.capsule(run, tmp_path / "it.capsule", with_data=True)
    assert not (tmp_path / "it.capsule").exists()
    run.model.net.classifier.bias.data += 1
    with pytest.raises(DataError, match="give the model as it was"):
        ft.capsule(run, tmp_path / "it.capsule")


@pytest.mark.parametrize("change, said", [
    (lambda record: record.pop("fit"), "lacks fit"),
    (lambda record: record["settings"].update(interrupted="after update 2 of 8"), "interrupted"),
    (lambda record: record["fit"].update(left_out=["callbacks"]), "callbacks"),
])
def test_a_run_that_cannot_be_done_again_is_not_packed(run, tmp_path, change, said):
    shutil.copytree(run.folder, tmp_path / "run")
    record = json.loads((run.folder / "run.json").read_text())
    change(record)
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(SettingError, match=said):
        ft.capsule(tmp_path / "run", tmp_path / "it.capsule")


def test_a_file_of_something_else_stays(run, tmp_path):
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(SettingError, match="is no capsule; nothing was written"):
        ft.capsule(run, tmp_path / "mine.zip")
    assert (tmp_path / "mine.zip").read_text() == "mine"


def test_the_claims_of_a_notebook_come_out_again(run, write_notebook, tmp_path):
    """It is run only where somebody says so, for it is code."""
    path = write_notebook(tmp_path / "01_it.ipynb", "import ftkit as ft\nft.profile('cpu')",
                          "ft.claim('two', ft.Estimate(2.0, 1.9, 2.1), at_least=1)")
    with pytest.raises(DataError, match="never executed"):
        ft.capsule(run, tmp_path / "it.capsule", notebook=path)
    book = json.loads(path.read_text())
    shown = ft.claim("two", ft.Estimate(2.0, 1.9, 2.1), at_least=1)._repr_mimebundle_()
    for number, cell in enumerate(book["cells"]):
        cell["execution_count"] = number + 1
    book["cells"][1]["outputs"] = [{"output_type": "display_data", "metadata": {},
                                    "data": {CLAIM: shown[CLAIM]}}]
    path.write_text(json.dumps(book))
    made = ft.capsule(run, tmp_path / "it.capsule", notebook=path)
    with pytest.raises(SettingError, match="whose code would run"):
        ft.replay(made)
    assert verdicts(ft.replay(made, notebook=False))["claims"] == "noted"

    def edit(folder):
        claims = json.loads((folder / "claims.json").read_text())
        claims[0]["difference"] |= {"value": 9.0, "low": 8.0, "high": 10.0}
        (folder / "claims.json").write_text(json.dumps(claims))

    found = ft.replay(changed(made, tmp_path / "other.capsule", edit), notebook=True)
    assert found.exit_code == 1 and "difference was" in repr(found)
