"""The tables a reader sees must say what the claims say, and nothing else."""

import json
from pathlib import Path

import pytest

from ftkit.batch import notebook as nb
from ftkit.batch import report
from ftkit.errors import DataError

ROOT = Path(__file__).parents[2]


def claim(text="tuned beats base", **changes):
    made = {
        "claim": text, "metric": "accuracy",
        "before": {"value": 0.5, "low": 0.4, "high": 0.6},
        "after": {"value": 0.8, "low": 0.7, "high": 0.9},
        "difference": {"value": 0.3, "low": 0.2, "high": 0.4},
        "bound": {"at_least": 0}, "relative": False, "held": True, "judged": True,
        "profile": "cpu", "n": 500,
    }
    return {**made, **changes}


def record(name="01_a", status="ok", message="", claims=None):
    return {"name": name, "status": status, "message": message, "seconds": 61.6,
            "peak_memory": 1_850_000_000, "claims": [claim()] if claims is None else claims}


def test_a_claims_row():
    assert report.claim_cells(claim()) == (
        "tuned beats base", "–", "0.500 [0.400, 0.600]", "0.800 [0.700, 0.900]",
        "+0.300 [+0.200, +0.400]", "> 0", "yes")
    named = claim(opponent="word counts", bound={"at_most": -0.0125}, relative=True)
    cells = dict(zip(report.HEADER[1:], report.claim_cells(named), strict=True))
    assert (cells["opponent"], cells["needed"]) == ("word counts", "≤ -1.25%")


def test_relative_differences_are_percentages_and_large_values_lose_digits():
    fall = claim(metric="perplexity", relative=True,
                 before={"value": 160.44, "low": 158, "high": 163},
                 after={"value": 24.72, "low": 23, "high": 26},
                 difference={"value": -0.59, "low": -0.62, "high": -0.57})
    assert report.claim_cells(fall)[2:5] == (
        "160 [158, 163]", "24.7 [23.0, 26.0]", "-59% [-62%, -57%]")


def test_claims_without_a_base_and_claims_that_are_not_held():
    assert report.claim_cells(claim(before=None))[2:5:2] == ("–", "–")
    alone = claim(before=None, after=None)
    assert report.claim_cells(alone)[2:5] == ("–", "–", "+0.300 [+0.200, +0.400]")
    assert report.claim_cells(claim(held=False))[-1] == "NO"
    assert report.claim_cells(claim(held=False, judged=False))[-1] == "not judged"


@pytest.mark.parametrize("nothing", [None, "nan", float("nan"), float("inf")])
def test_a_claim_about_nan_is_shown_and_ends_no_batch(nothing, tmp_path):
    """As the claim writes it, and as Jupyter did: the whole batch ended in a TypeError once."""
    broken = dict.fromkeys(("value", "low", "high"), nothing)
    lost = claim(after=broken, difference=broken, held=False)
    words = ("nan [nan, nan]", "nan [nan, nan]", "> 0", "NO")
    assert report.claim_cells(lost)[3:] == words
    records = [record(claims=[claim(), lost], status="claim not held")]
    assert "nan [nan, nan]" in report.text_table(records)
    assert not report.write_results(records, tmp_path, profile="cpu", parameters={})["all_held"]
    assert (tmp_path / "results.png").exists()


def test_a_lesson_is_shown_by_the_first_claim_that_it_relies_on():
    asked, relied = claim("is it so?", expect="open"), claim("it is so", expect="held")
    assert report.leading([asked, relied, claim("more")]) is relied
    assert report.leading([asked]) is asked and report.leading([]) is None


def test_what_did_not_hold_is_told_beside_the_claim_that_did(monkeypatch):
    claims = [claim("relied on", expect="held"), claim(expect="open", held=False)]
    made = [record("01_supervised", claims=claims)]
    monkeypatch.setattr(report, "committed", lambda folder: made)
    row = report.lessons_table(ROOT / "notebooks", "notebooks/").splitlines()[-1]
    assert row.endswith("| relied on | 0.500 → 0.800 | held | 0 of 1 |")


def test_an_open_question_is_shown_as_one():
    asked = claim(expect="open", held=False)
    assert report.claim_cells(asked)[-1] == "did not hold (open question)"
    assert report.claim_cells(claim(expect="open"))[-1] == "held (open question)"
    assert report.claim_cells(claim(expect="held", held=False))[-1] == "NO"
    assert report.claim_cells(claim(expect="open", judged=False))[-1] == "not judged"


def test_the_text_table_has_a_row_for_each_claim_and_each_failure():
    table = report.text_table([
        record(claims=[claim(), claim("a second claim with so many words that it must be folded")]),
        record("02_b", "error", "cell 3: ZeroDivisionError", claims=[]),
        record("03_c", "claim not held", claims=[claim(held=False)]),
        record("04_d", claims=[]),
    ])
    assert "62  1.9 GB" in table and "a second claim" in table
    assert "ERROR: cell 3: ZeroDivisionError" in table
    assert table.count("NO") == 2 and "no claims" in table


def test_results_are_written_and_say_whether_all_held(tmp_path):
    good = report.write_results([record()], tmp_path, profile="cpu", parameters={"seed": 7})
    assert good["all_held"] and good == json.loads((tmp_path / "results.json").read_text())
    assert "| 01_a | tuned beats base | – |" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    bad = report.write_results([record(status="error", claims=[])], tmp_path, profile="cpu",
                               parameters={})
    assert not bad["all_held"]
    assert not (tmp_path / "results.png").exists()  # the old figure shows another batch


def test_the_figure_knows_which_claims_it_shows(tmp_path):
    from PIL import Image

    records = [record(claims=[claim(), claim("b", before=None), claim("c", before=None, after=None),
                              claim("d", metric=None, held=False)])]
    report.figure(records, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["ftkit"] == report.claims_hash(records)


def test_the_table_of_committed_lessons_goes_between_the_marks(tmp_path, write_notebook):
    with pytest.raises(DataError, match="--commit-to"):
        report.committed(tmp_path)
    path = write_notebook(tmp_path / "01_a.ipynb", "ft.claim()")
    notebook = nb.read(path)
    notebook["cells"][0].update(execution_count=1, outputs=[
        {"output_type": "display_data", "metadata": {}, "data": {nb.CLAIM: claim("a | b")}}])
    nb.write(notebook, path)
    table = report.committed_table(tmp_path, "notebooks/")
    assert "| [01_a](notebooks/01_a.ipynb) | a \\| b |" in table
    document = "before\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n"
    made = report.insert_table(document, table)
    assert table in made and "old" not in made
    assert report.insert_table(made, table) == made
    with pytest.raises(DataError, match="results:start"):
        report.insert_table("no marks", table)
