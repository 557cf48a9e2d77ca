"""From rows to token ids, for each task: what a model reads, and which of it carries loss.

Each encoder returns its rows, how many tokens each had before it was cut, and how many of those
carried loss (None where a row has one label).
"""

import math
import warnings

from ftkit.conversations import answer_ends, beginning, begun, conversation_tokens
from ftkit.errors import DataError, DataWarning
from ftkit.prompting import as_prompt_and_response
from ftkit.tagging import IGNORED, align_tags, check_tagged


def columns_of(dataset):
    """The column names of a datasets.Dataset; raises DataError for anything else."""
    names = getattr(dataset, "column_names", None)
    if not isinstance(names, list):
        raise DataError(
            f"one split was expected (a datasets.Dataset), got {type(dataset).__name__}; "
            'for example data["test"].'
        )
    return names


def need(dataset, *wanted):
    """Raise DataError unless the data set has the wanted columns and at least one row."""
    names = columns_of(dataset)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"column {missing[0]!r} is missing; the data has {', '.join(names)}. "
            "Rename a column, or say which it is when loading (text=, label=)."
        )
    if not len(dataset):
        raise DataError(
            "the data set has no rows; load some, or ask for a larger n_train or n_test."
        )


def supervised(labels):
    """How many labels carry loss."""
    return len(labels) - labels.count(IGNORED)


def _strings(dataset, column, *, filled=False):
    """The texts of a column; raises DataError, naming the row, for what is none.

    filled: whether a text must hold more than blanks.
    """
    values = dataset[column][:]
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(
                f"row {i} has {value!r:.60} in {column!r}, a {type(value).__name__}; a text was "
                "expected. Fill it in or take the row out."
            )
        if filled and not value.strip():
            raise DataError(f"row {i} has an empty {column!r}. Fill it in or take the row out.")
    return values


def _tokenized(model, texts, limit, pairs=None):
    """The tokens of texts, cut at the limit, and how many each has before that."""
    options = {"truncation": True, "max_length": limit}
    tokens = model.tokenizer(texts, pairs, **options)
    whole = list(map(len, tokens["input_ids"]))
    if full := [i for i, n in enumerate(whole) if n == limit]:
        again = model.tokenizer(
            [texts[i] for i in full], pairs and [pairs[i] for i in full], verbose=False
        )
        for i, ids in zip(full, again["input_ids"], strict=True):
            whole[i] = len(ids)
    return tokens, whole


def _texts(dataset, model, limit):
    need(dataset, "text")
    pairs = _strings(dataset, "text_pair") if "text_pair" in columns_of(dataset) else None
    return _tokenized(model, _strings(dataset, "text"), limit, pairs)


def _classification(dataset, model, limit, _):
    (tokens, whole), rows = _texts(dataset, model, limit), []
    labelled = "label" in columns_of(dataset)
    labels = dataset["label"][:] if labelled else [None] * len(dataset)
    for i, label in enumerate(labels):
        row = {k: tokens[k][i] for k in ("input_ids", "token_type_ids") if k in tokens}
        if labelled:
            known = range(len(model.labels or ()))
            if model.task == "classification" and label not in known:
                raise DataError(
                    f"row {i} has label {label!r}; the model knows 0 to "
                    f"{len(model.labels) - 1} ({', '.join(map(str, model.labels))})."
                )
            if model.task == "regression" and not _is_number(label):
                raise DataError(
                    f"row {i} has label {label!r}; regression needs a finite number in every row."
                )
            row["labels"] = label
        rows.append(row)
    return rows, whole, None


def _is_number(label):
    return isinstance(label, int | float) and math.isfinite(label)


def _tagging(dataset, model, limit, _):
    need(dataset, "tokens")
    tagged = "tags" in columns_of(dataset)
    sentences = dataset["tokens"][:]
    # without tags, the words still have places: a model can say what it makes of them
    tags = dataset["tags"][:] if tagged else [[model.labels[0]] * len(w) for w in sentences]
    for i, (words, own) in enumerate(zip(sentences, tags, strict=True)):
        check_tagged(words, own, f"row {i}")
    options = {"is_split_into_words": True}
    tokens = model.tokenizer(sentences, truncation=True, max_length=limit, **options)
    whole = list(map(len, tokens["input_ids"]))
    if full := [i for i, n in enumerate(whole) if n == limit]:
        again = model.tokenizer([sentences[i] for i in full], verbose=False, **options)
        for i, ids in zip(full, again["input_ids"], strict=True):
            whole[i] = len(ids)
    rows = []
    for i, own in enumerate(tags):
        words = tokens.word_ids(i)
        labels = align_tags(own, words, model.labels, where=f"row {i}")
        # Which word each label belongs to: evaluation is by words.
        places = [(j, words[j]) for j, label in enumerate(labels) if label != IGNORED]
        rows.append({"input_ids": tokens["input_ids"][i], "labels": labels, "words": places})
    return rows, whole, list(map(len, sentences))


def _causal(dataset, model, limit, loss_on):
    names = columns_of(dataset)
    if "text" in names and not {"response", "messages"} & set(names):
        need(dataset, "text")
        if "label" in names:
            warnings.warn(
                "the labels are not read: a language model learns the texts alone. For the labels "
                'load it with task="classification", labels=data.labels; to say that the texts are '
                'meant, give data.select_columns("text").', DataWarning, stacklevel=2,
            )
        texts = _strings(dataset, "text", filled=True)
        tokens, whole = _tokenized(model, texts, limit)
        rows = [{"input_ids": i, "labels": list(i)}
                for i in begun(tokens["input_ids"], model.tokenizer)]
        return rows, whole, whole
    if "messages" in names:
        need(dataset, "messages")
        chats = dataset["messages"][:]  # at once: row by row, datasets takes longer than all else
        found = list(zip(*conversation_tokens(chats, model.tokenizer), strict=True))
    else:
        found = _answered(dataset, model)
    rows, whole, wanted = [], [], []
    keep = len(beginning(model.tokenizer)) if model.tokenizer.truncation_side == "left" else None
    for ids, learned in found:
        masked = [token if on or loss_on == "all" else IGNORED
                  for token, on in zip(ids, learned, strict=True)]
        whole.append(len(ids))
        wanted.append(supervised(masked))
        rows.append({"input_ids": _shortened(ids, limit, keep),
                     "labels": _shortened(masked, limit, keep)})
    return rows, whole, wanted


def _answered(dataset, model):
    """(ids, learned) of prompts and their answers, each answer with the token that ends it."""
    prompts, responses = as_prompt_and_response(dataset, model.tokenizer)
    for name, texts in (("prompt", prompts), ("response", responses)):
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"row {i} has the {name} {text!r:.60}; a text was expected. Fill "
                                "it in or take the row out.")
    ends = answer_ends(prompts, model.tokenizer)
    options = {"add_special_tokens": False, "verbose": False}
    first = begun(model.tokenizer(prompts, **options)["input_ids"], model.tokenizer)
    second = model.tokenizer(responses, **options)["input_ids"]
    return [(a + b + end, [False] * len(a) + [True] * len(b + end))
            for a, b, end in zip(first, second, ends, strict=True)]


def _shortened(ids, limit, keep):
    """At most `limit` of the tokens: the first, or the last behind the `keep` that begin a text."""
    if len(ids) <= limit:
        return ids
    return ids[:limit] if keep is None else ids[:keep] + ids[len(ids) - limit + keep :]


def _masked(dataset, model, limit, _):
    need(dataset, "text")
    tokens, whole = _tokenized(model, _strings(dataset, "text"), limit)
    return [{"input_ids": i} for i in tokens["input_ids"]], whole, None


def _seq2seq(dataset, model, limit, _):
    sources, targets = as_prompt_and_response(dataset, model.tokenizer, chat=False)
    first, whole = _tokenized(model, sources, limit)
    second = model.tokenizer(text_target=targets, verbose=False)["input_ids"]
    # T5's tokenizer ends a text by itself; another must not leave the model without an end.
    [end] = answer_ends([""], model.tokenizer)[0]
    second = [b if b[-1:] == [end] else [*b, end] for b in second]
    rows = [{"input_ids": a, "labels": b if len(b) <= limit else [*b[: limit - 1], end]}
            for a, b in zip(first["input_ids"], second, strict=True)]
    whole = [max(n, len(b)) for n, b in zip(whole, second, strict=True)]
    return rows, whole, list(map(len, second))


def _choice(dataset, model, limit, _):
    need(dataset, "question", "choices")
    questions, whole = _tokenized(model, _strings(dataset, "question"), limit)
    distinct = sorted({choice for row in dataset["choices"] for choice in row})
    ids = model.tokenizer(distinct, truncation=True, max_length=limit)["input_ids"]
    known = dict(zip(distinct, ids, strict=True))
    rows = []
    for i, (question, row) in enumerate(zip(questions["input_ids"], dataset, strict=True)):
        answer = row["answer"] if "answer" in row else 0  # without one, the model can still choose
        if answer is None or not 0 <= answer < len(row["choices"]):
            raise DataError(
                f"row {i} answers {row['answer']!r} with {len(row['choices'])} choices; "
                "answer is the number of the right choice, from 0."
            )
        rows.append(
            {
                "question": question,
                "choices": [known[c] for c in row["choices"]],
                "labels": answer,
            }
        )
    return rows, whole, None


def _encoder(dataset, model, limit, _):
    tokens, whole = _texts(dataset, model, limit)
    return [{"input_ids": i} for i in tokens["input_ids"]], whole, None


ENCODERS = {
    "classification": _classification,
    "regression": _classification,
    "tagging": _tagging,
    "causal-lm": _causal,
    "masked-lm": _masked,
    "seq2seq-lm": _seq2seq,
    "choice": _choice,
    "encoder": _encoder,
}
