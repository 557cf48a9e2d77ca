"""Data as people have it: what stands in a file is what a model learns, or an error says why."""

import json
import time
import warnings

import datasets
import pandas as pd
import pytest

import ftkit as ft
from ftkit.data.files import read_own, read_table
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS, near_sets
from ftkit.errors import DataError, DataWarning

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
TEXTS = [f"{WORDS[i % 10]} {WORDS[i // 10]} number {i}" for i in range(60)]


def table(path, labels, texts=TEXTS, header="text,label", sep=",", mark=""):
    lines = [header, *(f"{text}{sep}{label}" for text, label in zip(texts, labels, strict=True))]
    path.write_text(mark + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def everything(data, column="text"):
    return sorted(value for split in SPLITS for value in data[split][column][:])


@pytest.fixture(autouse=True)
def _no_silence():
    """A warning that a test does not expect is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        yield


@pytest.mark.parametrize("labels", [
    ("NA", "null"), ("None", "nan"), ("007", "010"), ("0", "1"), ("0.0", "1.0"), ("01", "1"),
    ("true", "false"), ("1e3", "-5"), ("\u00b2", "\u00b3"),
])
def test_labels_of_a_csv_are_classes_as_they_are_written(tmp_path, labels):
    data = load_data(table(tmp_path / "a.csv", [labels[i % 2] for i in range(60)]))
    assert data.task == "classification" and sorted(data.labels) == sorted(labels)
    assert everything(data) == sorted(TEXTS)


def test_numbers_of_json_are_classes_where_all_are_whole(tmp_path):
    rows = [{"text": text, "label": float(i % 2)} for i, text in enumerate(TEXTS)]
    assert load_data(jsonl(tmp_path / "a.jsonl", rows)).labels == ["0.0", "1.0"]
    rows = [{"text": text, "label": [1, 0.5][i % 2]} for i, text in enumerate(TEXTS)]
    assert load_data(jsonl(tmp_path / "b.jsonl", rows)).task == "regression"


def test_words_for_nothing_are_texts(tmp_path):
    texts = ["null", "NA", "None", "nan", *TEXTS[4:]]
    data = load_data(table(tmp_path / "a.csv", ["x", "y"] * 30, texts))
    assert {"null", "NA", "None", "nan"} <= set(everything(data))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "frame"])
def test_texts_that_are_numbers(tmp_path, kind):
    rows = [{"text": 1000 + 7 * i, "label": "xy"[i % 2]} for i in range(60)]
    if kind == "csv":
        source = table(tmp_path / "a.csv", [row["label"] for row in rows],
                       [row["text"] for row in rows])
    else:
        source = jsonl(tmp_path / "a.jsonl", rows) if kind == "jsonl" else pd.DataFrame(rows)
    assert everything(load_data(source)) == sorted(str(row["text"]) for row in rows)


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path, sep):
    quoted = [f'"{text}, so; it\t is|"' for text in TEXTS]
    path = table(tmp_path / "a.csv", ["x", "y"] * 30, quoted, sep.join(["text", "label"]), sep)
    data = load_data(path)
    assert everything(data) == sorted(f"{text}, so; it\t is|" for text in TEXTS)
    assert data.hash == load_data(path, sep=sep).hash


def test_a_table_as_excel_writes_it(tmp_path):
    path = table(tmp_path / "a.csv", ["x", "y"] * 30, header="sep=;\ntext;label", sep=";",
                 mark="\ufeff")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    data = load_data(path)
    assert everything(data) == sorted(TEXTS) and data.labels == ["x", "y"]


def test_quotes_line_ends_and_long_fields_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    long = "word " * 60_000
    path.write_text(f'text,label\n"He said ""no"",\nand left.",x\n\n{long},y\n')
    found = read_table(path)
    assert found == {"text": ['He said "no",\nand left.', long], "label": ["x", "y"]}


def test_quotes_between_tabs_are_signs_where_they_do_not_match(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"Great film\tx\nan "odd" one\ty\n')
    assert read_table(path) == {"text": ['"Great film', 'an "odd" one'], "label": ["x", "y"]}
    path.write_text('text\tlabel\n"a\ttab"\tx\n')
    assert read_table(path) == {"text": ["a\ttab"], "label": ["x"]}


@pytest.mark.parametrize(("content", "says"), [
    ("text,label\na,x\nb,c,y\n", "line 3 has 3 fields and the header has 2"),
    ("text,label\na,x\nb\n", "line 3 has 1 fields and the header has 2"),
    ('text,label\na,x\n"b,y\nc,x\n', "row that begins in line 3 is not quoted"),
    ('text,label\n"a" b,x\n', "row that begins in line 2 is not quoted"),
    ("text,text\na,x\n", "has the column 'text' twice"),
    ("text, text\na,x\n", "has two columns 'text'"),
])
def test_a_broken_table_names_the_line(tmp_path, content, says):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=says):
        load_data(tmp_path / "a.csv")


def test_sep_is_one_character(tmp_path):
    with pytest.raises(DataError, match="sep='::': expected one character"):
        load_data(table(tmp_path / "a.csv", ["x", "y"] * 30), sep="::")


@pytest.mark.parametrize("kind", ["json", "jsonl", "ndjson", "lines.json"])
def test_json_with_a_mark_and_any_legal_string(tmp_path, kind):
    texts = [f"{text}\u2028{text}\u0085\x00 \U0001f600 \x1c" for text in TEXTS]
    rows = [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(texts)]
    path = tmp_path / f"a.{kind}"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    content = "\n".join(lines) if kind != "json" else "[" + ",".join(lines) + "]"
    path.write_text("\ufeff" + content, encoding="utf-8")
    assert everything(load_data(path)) == sorted(texts)


def test_half_a_surrogate_pair_is_replaced_and_said(tmp_path):
    rows = [{"text": text + "\ud83d", "label": "xy"[i % 2]} for i, text in enumerate(TEXTS)]
    with pytest.warns(DataWarning, match="60 values of 'text' hold halves"):
        data = load_data(jsonl(tmp_path / "a.jsonl", rows))
    assert everything(data)[0].endswith("\ufffd") and len(data.notes) == 1


def test_columns_that_nobody_asked_for_do_no_harm(tmp_path):
    odd = [{"a": 1}, None, 5, "x", 2**70, [1, "b"], 1.5, True]
    rows = [{"text": text, "label": "xy"[i % 2], "meta": odd[i % 8], "n": i, "split": "x",
             "part": {"deep": [i]}} for i, text in enumerate(TEXTS)]
    data = load_data(jsonl(tmp_path / "a.jsonl", rows))
    assert data.labels == ["x", "y"]
    row = data["train"][0]
    assert isinstance(row["n"], int) and json.loads(row["part"])["deep"] == [row["n"]]
    assert row["split"] == "x"


def test_blanks_around_headers_and_labels_are_taken_off_and_said(tmp_path):
    path = table(tmp_path / "a.csv", ["good", "bad ", " bad"] * 20, header="Message ,label")
    with pytest.warns(DataWarning) as said:
        data = load_data(path, text="Message ")
    assert data.labels == ["bad", "good"]
    words = " ".join(str(w.message) for w in said)
    assert "column names 'Message ' were taken off" in words
    assert "blanks around 40 labels were taken off, such as 'bad ', ' bad'" in words
    assert data.notes == [str(w.message) for w in said]


def test_labels_that_differ_only_in_case_are_named(tmp_path):
    path = table(tmp_path / "a.csv", ["good", "Good", "bad"] * 20)
    with pytest.warns(DataWarning, match="labels 'Good', 'good' differ only in case"):
        assert load_data(path).labels == ["Good", "bad", "good"]


def test_a_column_that_was_probably_meant_is_named(tmp_path):
    path = table(tmp_path / "a.csv", ["x", "y"] * 30, header="Message,Queue")
    with pytest.raises(DataError, match="no column 'mesage' .* Did you mean 'Message'"):
        load_data(path, text="mesage")
    with pytest.raises(DataError, match=r"perhaps text='Message', label='Queue'"):
        load_data(path)
    rows = [{"Question": text, "answer": "x"} for text in TEXTS]
    with pytest.raises(DataError, match=r"perhaps prompt='Question', response='answer'"):
        load_data(jsonl(tmp_path / "a.jsonl", rows))


def test_a_list_is_no_label_and_no_text(tmp_path):
    rows = [{"text": text, "label": ["bad", "x"]} for text in TEXTS]
    with pytest.raises(DataError, match=r"row 1: the label is \['bad', 'x'\], a list"):
        load_data(jsonl(tmp_path / "a.jsonl", rows))
    rows = [{"text": [text], "label": "x"} for text in TEXTS]
    with pytest.raises(DataError, match="row 1: text is .* a list; a text was expected"):
        load_data(jsonl(tmp_path / "b.jsonl", rows))


def test_data_of_one_class_is_refused(tmp_path):
    with pytest.raises(DataError, match="all 48 training rows have the label 'x'"):
        load_data(table(tmp_path / "a.csv", ["x"] * 60))


def test_empty_rows_can_be_left_out(tmp_path):
    labels = ["x", "y", ""] * 20
    texts = ["  ", *TEXTS[1:]]
    path = table(tmp_path / "a.csv", labels, texts)
    with pytest.raises(DataError, match="row 1.*drop_empty=True"):
        load_data(path)
    with pytest.warns(DataWarning, match="21 of 60 rows were left out .*1 without text"):
        data = load_data(path, drop_empty=True)
    assert sum(map(len, data.values())) == 39 and data.rows_read == 60
    with pytest.raises(DataError, match="every row has an empty field"):
        load_data(table(tmp_path / "b.csv", [""] * 60), drop_empty=True)


def test_rows_without_a_group_stand_alone(tmp_path):
    rows = [{"text": text, "label": "xy"[i % 2], "group": None if i % 3 else i // 6}
            for i, text in enumerate(TEXTS)]
    with pytest.warns(DataWarning, match="40 of 60 rows have no group .first: row 2"):
        data = load_data(jsonl(tmp_path / "a.jsonl", rows))
    groups = [set(data[split]["group"][:]) for split in SPLITS]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 50


def test_test_texts_that_stand_in_train_are_said(tmp_path):
    table(tmp_path / "train.csv", ["x", "y"] * 20, TEXTS[:40])
    table(tmp_path / "test.csv", ["x", "y"] * 15, [t.upper() for t in TEXTS[20:50]])
    with pytest.warns(DataWarning, match="20 of 30 texts of test stand in train"):
        load_data(tmp_path)


def test_two_files_for_one_split_are_refused(tmp_path):
    table(tmp_path / "train.csv", ["x", "y"] * 30)
    table(tmp_path / "dev.csv", ["x", "y"] * 30)
    table(tmp_path / "validation.tsv", ["x", "y"] * 30, sep="\t")
    with pytest.raises(DataError, match="two files for the validation split, .*validation.tsv"):
        load_data(tmp_path)


def test_tables_in_memory(tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "label": ["x", "y"] * 30, "n": [1.0, None] * 30},
                         index=range(100, 160))
    data = load_data(frame, n_train=10)
    assert data.labels == ["x", "y"] and len(data["train"]) == 10 and data.name == "the table"
    frame["label"] = frame["label"].astype("category")
    splits = load_data({"train": frame[:40], "dev": frame[40:50], "test": frame[50:]})
    assert [len(splits[split]) for split in SPLITS] == [40, 10, 10]
    ours = datasets.Dataset.from_dict({"text": TEXTS, "label": ["x", "y"] * 30})
    assert everything(load_data(ours)) == everything(load_data(frame))
    path = table(tmp_path / "a.csv", ["x", "y"] * 30)
    assert everything(load_data(pd.read_csv(path))) == sorted(TEXTS)
    frame.loc[100, "label"] = None
    with pytest.raises(DataError, match="1 of 60 rows have an empty 'label'"):
        load_data(frame)
    with pytest.raises(DataError, match="source is a list"):
        load_data([{"text": "x"}])


SENTENCE = ["Ada", "Lovelace", "met", "Babbage"]


@pytest.mark.parametrize(("tags", "wanted", "scheme"), [
    (["B-PER", "E-PER", "O", "S-PER"], ["B-PER", "I-PER", "O", "B-PER"], "IOBES"),
    (["B-PER", "L-PER", "O", "U-PER"], ["B-PER", "I-PER", "O", "B-PER"], "BILOU"),
    (["B", "E", "O", "S"], ["B-entity", "I-entity", "O", "B-entity"], "IOBES"),
    (["B", "I", "O", "B"], ["B-entity", "I-entity", "O", "B-entity"], "bare letters"),
])
def test_other_schemes_of_tags_become_bio(tmp_path, tags, wanted, scheme):
    rows = [{"tokens": [*SENTENCE, str(i)], "tags": [*tags, "O"]} for i in range(60)]
    rows = [{**row, "tokens": [f"{w}{i}" for w in row["tokens"]]} for i, row in enumerate(rows)]
    with pytest.warns(DataWarning, match=rf"tags .{scheme}. were converted to BIO"):
        data = load_data(jsonl(tmp_path / "a.jsonl", rows))
    assert data["train"][0]["tags"] == [*wanted, "O"]
    assert data.labels == ["O", "B-" + wanted[0][2:], "I-" + wanted[0][2:]]
    assert ft.from_tags([wanted], [wanted])["f1"].value == 1


def test_rows_of_one_class_are_said_though_the_classes_are_named(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"text {i}", "label": "bad"} for i in range(60)])
    with pytest.warns(DataWarning, match="training rows have the label 'bad'"):
        assert load_data(path, labels=["bad", "good"]).labels == ["bad", "good"]


@pytest.mark.parametrize("tags", [["B", "E", "B", "E"], ["B", "M", "E", "S"]])
def test_in_word_segmentation_there_is_no_outside(tags):
    assert ft.from_tags([tags], [tags])["f1"].value == 1
    assert "f1" not in ft.from_tags([["N", "V", "N"]], [["N", "V", "N"]]).parts, "parts of speech"


@pytest.mark.parametrize(("tokens", "tags"), [
    ("Ada left {}", "B-PER O O"), ("['Ada', 'left', '{}']", "['B-PER', 'O', 'O']"),
])
def test_tagged_words_in_a_table(tmp_path, tokens, tags):
    path = tmp_path / "a.csv"
    lines = [f'"{tokens.format(i)}","{tags}"' for i in range(60)]
    path.write_text("tokens,tags\n" + "\n".join(lines) + "\n")
    data = load_data(path)
    assert data["train"][0]["tokens"][:2] == ["Ada", "left"] and data.labels == ["O", "B-PER"]


def test_tags_that_are_numbers(tmp_path):
    rows = [{"tokens": ["Ada", f"x{i}"], "tags": [1, 0]} for i in range(60)]
    assert load_data(jsonl(tmp_path / "a.jsonl", rows)).labels == ["0", "1"]


def test_a_scheme_that_is_not_known_is_said_and_parts_of_speech_are_none(tmp_path):
    def rows(tags):
        return [{"tokens": [f"{w}{i}" for w in SENTENCE], "tags": tags} for i in range(60)]

    with pytest.warns(DataWarning, match="scheme of the tags is not known"):
        load_data(jsonl(tmp_path / "a.jsonl", rows(["PER", "PER", "O", "PER"])))
    data = load_data(jsonl(tmp_path / "b.jsonl", rows(["NNP", "NNP", "VBD", "NNP"])))
    assert data.labels == ["NNP", "VBD"] and not data.notes


def test_many_rows_cost_seconds_and_few_bytes(tmp_path):
    import random
    import tracemalloc

    rng, path, n = random.Random(0), tmp_path / "many.jsonl", 30_000
    with open(path, "w") as file:
        for i in range(n):
            text = " ".join(rng.choice(WORDS) + str(rng.randrange(3000)) for _ in range(12))
            file.write(json.dumps({"text": text, "label": "xyz"[i % 3]}) + "\n")
    start = time.process_time()
    data = load_data(path)
    assert time.process_time() - start < 15  # 100,000 rows of 40 words: 4.5 s of one core
    assert sum(map(len, data.values())) == n
    size = path.stat().st_size
    del data
    tracemalloc.start()
    columns = read_own(path)
    assert tracemalloc.get_traced_memory()[1] < 3 * size, "more than the texts was held"
    tracemalloc.stop()
    assert len(columns["text"]) == n


def test_texts_of_one_template_are_found_alike_without_comparing_all_with_all():
    texts = [
        f"Dear customer {i}, your order of {WORDS[i % 10]} has been sent on its way to you and "
        f"will be there in {i % 7} days. Thank you for buying from us and do come again soon. "
        f"If it does not come write to our office in the town of {WORDS[i % 9]}."
        for i in range(6_000)
    ]
    start = time.process_time()
    assert set(near_sets(texts)) == {0}
    assert time.process_time() - start < 20  # all pairs are 18 million
    with pytest.raises(DataError, match="in 1 groups .texts that are alike count as one, such as"):
        load_data(pd.DataFrame({"text": texts[:500], "label": ["x", "y"] * 250}))
