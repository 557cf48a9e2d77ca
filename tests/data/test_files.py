"""Your own files: every format gives the same rows, and what does not fit is explained."""

import json

import datasets
import pandas as pd
import pytest
import tiny

import ftkit as ft
from ftkit.data.load import load_data
from ftkit.data.splits import SPLITS
from ftkit.errors import DataError, SettingError
from ftkit.tasks.batching import encode

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
ROWS = [
    {"review": f"{WORDS[i % 10]} {WORDS[i // 10]} number {i}", "stars": ["bad", "good"][i % 2],
     "film": f"film {i // 3}"}
    for i in range(60)
]
NAMES = {"text": "review", "label": "stars", "group": "film"}


def write(folder, kind, rows=ROWS, name="reviews"):
    path = folder / f"{name}.{kind}"
    table = pd.DataFrame(rows)
    if kind in ("csv", "tsv"):
        table.to_csv(path, sep="\t" if kind == "tsv" else ",", index=False)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        table.to_parquet(path)
    return path


def everything(data, column="text"):
    return sorted(value for split in SPLITS for value in data[split][column][:])


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_table_format_gives_the_same_rows(tmp_path, kind):
    data = load_data(write(tmp_path, kind), **NAMES)
    assert data.task == "classification" and data.labels == ["bad", "good"]
    assert everything(data) == sorted(row["review"] for row in ROWS)
    assert data.hash == load_data(write(tmp_path, kind, name="same"), **NAMES).hash


def test_groups_stay_together_and_fractions_are_kept(tmp_path):
    data = load_data(write(tmp_path, "csv"), **NAMES, split=(0.5, 0.25, 0.25))
    groups = [set(data[split]["group"][:]) for split in SPLITS]
    assert sum(map(len, groups)) == 20
    assert 24 <= len(data["train"]) <= 36 and len(data["test"]) >= 9


def test_saved_data_set_folder(tmp_path):
    saved = datasets.DatasetDict({
        "train": datasets.Dataset.from_list(ROWS[:40]),
        "test": datasets.Dataset.from_list(ROWS[40:]),
    })
    saved.save_to_disk(str(tmp_path / "saved"))
    data = load_data(tmp_path / "saved", text="review", label="stars")
    assert sorted(data["test"]["text"][:]) == sorted(row["review"] for row in ROWS[40:])
    assert len(data["validation"]) > 0 and len(data["train"]) + len(data["validation"]) == 40


def test_folder_of_split_files(tmp_path):
    for name, rows in (("train", ROWS[:40]), ("dev", ROWS[40:50]), ("test", ROWS[50:])):
        write(tmp_path, "jsonl", rows, name)
    data = load_data(str(tmp_path), text="review", label="stars")
    assert [len(data[split]) for split in SPLITS] == [40, 10, 10]


def test_a_catalog_data_set_saved_and_loaded_again(tmp_path):
    data = load_data("openbook-qa", n_train=20, n_validation=10, n_test=10)
    data.save_to_disk(str(tmp_path / "saved"))
    again = load_data(tmp_path / "saved")
    assert again.task == "choice"
    assert sorted(again["test"]["question"][:]) == sorted(data["test"]["question"][:])


def test_numbers_as_labels(tmp_path):
    rows = [{"text": row["review"], "label": i % 3} for i, row in enumerate(ROWS)]
    assert load_data(write(tmp_path, "csv", rows)).labels == ["0", "1", "2"]
    rows = [{"text": row["review"], "label": i / 3} for i, row in enumerate(ROWS)]
    data = load_data(write(tmp_path, "csv", rows))
    assert data.task == "regression" and data.labels is None
    rows = [{"text": row["review"], "label": i} for i, row in enumerate(ROWS)]
    assert load_data(write(tmp_path, "csv", rows), task="regression").task == "regression"


def test_text_files_by_line_and_by_paragraph(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(f"{row['review']}\nsecond line {i}" for i, row in enumerate(ROWS)))
    assert len(everything(load_data(path))) == 120
    paragraphs = load_data(path, paragraphs=True)
    assert paragraphs.task == "text" and len(everything(paragraphs)) == 60
    assert "alpha alpha number 0 second line 0" in everything(paragraphs)


def test_conll_file(tmp_path):
    path = tmp_path / "news.conll"
    blocks = [f"{row['review'].split()[0]} NN B-PER\nruns{i} VB O" for i, row in enumerate(ROWS)]
    path.write_text("-DOCSTART- -X- O\n\n" + "\n\n".join(blocks))
    data = load_data(path)
    assert data.task == "tagging" and data["train"][0]["tags"] == ["B-PER", "O"]


def test_conll_documents_stay_together(tmp_path):
    blocks = []
    for document in range(12):
        blocks.append("-DOCSTART- -X- O")
        blocks += [f"{WORDS[i]}{document} NN B-PER\nran{i} VB O" for i in range(4)]
    path = tmp_path / "news.conll"
    path.write_text("\n\n".join(blocks) + "\n\n\n\n")
    assert len(ft.read_conll(path)) == 48, "several empty lines are one end of a sentence"
    data = load_data(path)
    groups = [set(data[split]["group"]) for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert data.labels == ["O", "B-PER"]


def test_a_line_of_conll_is_split_at_spaces_and_tabs_alone(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("5\u00a0000 CD O\r\nParis\tNNP\tB-LOC\r\n\r\n")
    assert ft.read_conll(path) == [{"tokens": ["5\u00a0000", "Paris"], "tags": ["O", "B-LOC"]}]


def tagged(n, tag="B-PER"):
    return [{"tokens": [f"{WORDS[i % 10]}{WORDS[i // 10]}", "ran", str(i)],
             "tags": [tag if i == n - 1 else "O", "O", "O"]} for i in range(n)]


def test_a_tag_that_training_lacks_is_named(tmp_path):
    write(tmp_path, "jsonl", tagged(40, "B-LOC"), "train")
    write(tmp_path, "jsonl", tagged(8, "B-ORG"), "test")
    with pytest.raises(DataError, match="test split has labels that train has not: .B-ORG."):
        load_data(tmp_path)


def test_tagged_text_of_the_hubs_kind(tmp_path):
    names = datasets.ClassLabel(names=["O", "B-PER"])
    features = datasets.Features(
        {"words": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)}
    )
    rows = {"words": [[f"w{i}", "x"] for i in range(60)], "ner_tags": [[1, 0]] * 60}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "ner"))
    data = load_data(tmp_path / "ner", tokens="words", tags="ner_tags")
    assert data.task == "tagging" and data.labels == ["O", "B-PER"]
    assert data["train"][0]["tags"] == ["B-PER", "O"]


@pytest.mark.parametrize(("row", "says"), [
    ({"tokens": [], "tags": []}, "1 of 3 rows have an empty 'tokens' .first: row 2."),
    ({"tokens": ["a", ""], "tags": ["O", "O"]}, "row 2: token 2 is ''"),
    ({"tokens": ["a"], "tags": [""]}, "row 2: token 1 is 'a' with the tag ''"),
])
def test_empty_sentences_and_tokens_are_located(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        load_data(write(tmp_path, "jsonl", [*tagged(1), row, *tagged(1)]))


def test_two_files_that_belong_together_line_by_line(tmp_path):
    one, two = tmp_path / "a.en", tmp_path / "a.fr"
    one.write_text("Hello\n\nA line \u2028 with a separator\n")
    two.write_text("Bonjour\n\nUne ligne\n\n")
    assert ft.read_pairs(one, two) == [
        {"source": "Hello", "target": "Bonjour"},
        {"source": "A line \u2028 with a separator", "target": "Une ligne"},
    ]
    model = tiny.seq2seq()
    assert len(encode(datasets.Dataset.from_list(ft.read_pairs(one, two)), model)) == 2


@pytest.mark.parametrize(("source", "target", "says"), [
    ("a\nb\n", "a\n", "a.en has 2 lines and a.fr has 1"),
    ("a\n\n", "a\nb\n", "a.en has 1 lines and a.fr has 2"),
    ("a\n\nc", "a\nb\nc", "line 2 is empty in a.en and not in a.fr"),
    ("\n", "\n", "have no lines with text"),
])
def test_pairs_that_do_not_match_are_named(tmp_path, source, target, says):
    (tmp_path / "a.en").write_text(source)
    (tmp_path / "a.fr").write_text(target)
    with pytest.raises(DataError, match=says):
        ft.read_pairs(tmp_path / "a.en", tmp_path / "a.fr")
    with pytest.raises(DataError, match="There is no file"):
        ft.read_pairs(tmp_path / "none.en", tmp_path / "a.fr")


def bioasq(path, n=30):
    questions = [
        {"id": f"q{i}", "type": "yesno", "body": f"{WORDS[i % 10]} {WORDS[i // 10]} cures {i}?",
         "exact_answer": "Yes" if i % 2 else ["no"],
         "snippets": [{"text": f"Study {i} says so."}, {"text": f"Study {i} says so."},
                      {"text": "Another agrees."}]}
        for i in range(n)
    ]
    questions.append({"id": "f", "type": "factoid", "body": "Which?", "exact_answer": [["x"]]})
    path.write_text(json.dumps({"questions": questions}))
    return path


def test_bioasq_file(tmp_path):
    data = load_data(bioasq(tmp_path / "BioASQ-training.json"))
    assert data.task == "classification" and data.labels == ["no", "yes"]
    assert len(everything(data)) == 30  # only the yes/no questions
    row = data["train"][0]
    assert row["text_pair"].endswith("says so. Another agrees.")


@pytest.mark.parametrize(("columns", "task"), [
    (("question", "choices", "answer"), "choice"), (("question", "answers"), "qa"),
    (("source", "target"), "pairs"), (("prompt", "response"), "response"),
    (("instruction", "output"), "instruction"), (("tokens", "tags"), "tagging"),
])
def test_task_follows_from_the_columns(tmp_path, columns, task):
    values = {"choices": ["a", "b"], "answer": 1, "answers": ["a"], "tags": ["O"]}
    rows = [
        {column: values.get(column, [row["review"]] if column == "tokens" else row["review"])
         for column in columns}
        for row in ROWS
    ]
    assert load_data(write(tmp_path, "jsonl", rows)).task == task


def test_missing_column_lists_those_that_exist(tmp_path):
    path = write(tmp_path, "csv")
    with pytest.raises(DataError, match="no column 'txt' .* It has: 'review', 'stars', 'film'"):
        load_data(path, text="txt")
    with pytest.raises(DataError, match="fits no task.* 'review', 'stars', 'film'"):
        load_data(path)
    with pytest.raises(DataError, match="no column 'tokens' .needed for tagging"):
        load_data(path, task="tagging")
    with pytest.raises(DataError, match="task='sorting': expected one of"):
        load_data(path, text="review", task="sorting")


def test_a_score_that_is_no_number_is_named(tmp_path):
    rows = [{"text": row["review"], "label": "0.5" if i else "high"} for i, row in enumerate(ROWS)]
    with pytest.raises(DataError, match="the label 'high' is no finite number"):
        load_data(write(tmp_path, "jsonl", rows), task="regression")


def test_label_unseen_in_training_is_named(tmp_path):
    write(tmp_path, "csv", ROWS[:50], "train")
    write(tmp_path, "csv", [{**ROWS[50], "stars": "awful"}, ROWS[51]], "test")
    with pytest.raises(DataError, match="test split has labels that train has not: .awful."):
        load_data(tmp_path, text="review", label="stars")


@pytest.mark.parametrize(("kind", "empty"), [("csv", None), ("jsonl", "  "), ("parquet", None)])
def test_empty_rows_are_counted_and_located(tmp_path, kind, empty):
    rows = [*ROWS[:5], {**ROWS[5], "review": empty}, *ROWS[6:]]
    with pytest.raises(DataError, match=r"1 of 60 rows have an empty 'text' \(first: row 6\)"):
        load_data(write(tmp_path, kind, rows), **NAMES)


def test_tags_and_tokens_of_unequal_length(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["O", "O"]}, {"tokens": ["a", "b"], "tags": ["O"]}]
    with pytest.raises(DataError, match="row 2: 2 tokens but 1 tags"):
        load_data(write(tmp_path, "jsonl", rows))


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.docx", "x", "of no kind that can be read. Expected a file ending in .csv"),
    ("a.csv", "", "a.csv has no rows"),
    ("a.jsonl", '{"text": "x"}\n{oops\n', "a.jsonl, line 2 is not JSON"),
    ("a.jsonl", "[1]\n", "line 1: expected an object"),
    ("a.json", "{oops", "a.json is not JSON"),
    ("a.json", '{"rows": []}', "expected a list of objects, or BioASQ"),
    ("a.json", '{"questions": [{"type": "list", "body": "x"}]}', "no yes/no question"),
    ("a.parquet", "not parquet", "is not a Parquet file"),
    ("a.conll", "word\n", "line 1: 'word' has no tag"),
    ("a.conll", "word NN O\nnext O\n", "line 2: .next O. has 2 columns, .* it have 3"),
    ("a.txt", "one\n", "1 rows in 1 groups .* leave none for"),
])
def test_files_that_cannot_be_read_say_why(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / name)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.xlsx", b"PK\3\4", r"For .xlsx, save the sheet as CSV .*pandas.read_excel\(path\)"),
    ("a.csv.gz", b"\x1f\x8b", "For .gz, unpack it"),
    ("a.pkl", b"\x80\4", "For .pkl, a pickle runs code"),
    ("a.csv", b"PK\3\4\x14\0\6\0", "not UTF-8 text: it is an Excel workbook or a zip arch"),
    ("a.jsonl", b"\x1f\x8b\b\0", "not UTF-8 text: it is gzipped: unpack it"),
    ("a.csv", "text,label\n".encode("utf-16"), "it is UTF-16. Save it as UTF-8"),
])
def test_other_programs_files_get_the_way_to_read_them(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(tmp_path / name)
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / name).rename(folder / name.replace("a", "train", 1))
    if name.count(".") == 1:
        with pytest.raises(DataError, match=words):
            load_data(folder)


def test_a_parquet_file_that_was_cut_or_changed_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame(ROWS).to_parquet(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole[:40] + b"\xff" * 50 + whole[90:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="a.parquet is not a Parquet file, or was cut or chang"):
            load_data(path)
    path.rename(tmp_path / "a.csv").write_bytes(whole)
    with pytest.raises(DataError, match="it is a Parquet file: name it .parquet"):
        load_data(tmp_path / "a.csv")


def test_a_streamed_data_set_is_refused_in_a_sentence():
    rows = datasets.Dataset.from_dict({"text": ["x"] * 3}).to_iterable_dataset()
    with pytest.raises(DataError, match="is streamed, and splits need all rows"):
        load_data(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_column_of_numbers_and_texts_is_read_as_texts(tmp_path, kind):
    mixed = [i if i % 3 else f"x{i}" for i in range(len(ROWS))]
    classes = [i % 2 if i % 3 else "neither" for i in range(len(ROWS))]
    plain = [{"text": row["review"], "label": row["stars"]} for row in ROWS]
    for column, values in {"text": mixed, "label": classes, "code": mixed}.items():
        rows = [row | {column: value} for row, value in zip(plain, values, strict=True)]
        data = load_data(write(tmp_path, kind, rows))
        if column == "label":
            assert data.labels == ["0", "1", "neither"]
        else:
            assert set(everything(data, column)) == set(map(str, mixed))


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes("déjà".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        load_data(tmp_path / "a.txt")


def test_paths_that_do_not_exist_and_folders_that_hold_nothing(tmp_path):
    with pytest.raises(DataError, match="There is no file or folder '/nowhere/reviews.csv'"):
        load_data("/nowhere/reviews.csv")
    with pytest.raises(DataError, match="There is no file or folder 'mine/reviews.csv'"):
        load_data("mine/reviews.csv")
    with pytest.raises(DataError, match="holds no data set.* It holds nothing"):
        load_data(tmp_path)
    write(tmp_path, "csv", name="test")
    with pytest.raises(DataError, match="holds no data set.* It holds test.csv"):
        load_data(tmp_path)


def test_wrong_options_for_own_files(tmp_path):
    path = write(tmp_path, "csv")
    with pytest.raises(SettingError, match="'txt' is not an option of your own data. Did you mean"):
        load_data(path, txt="review")
    with pytest.raises(DataError, match="expected three fractions that add up to 1"):
        load_data(path, **NAMES, split=(0.5, 0.4, 0.4))
