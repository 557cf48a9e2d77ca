"""From records to batches: tokens and labels for each task, batches of similar length, padding."""

import json
import math

import numpy as np
import torch
import xxhash

from ftkit import kept
from ftkit.errors import DataError, SettingError
from ftkit.losses import learned_tokens
from ftkit.prompting import as_prompt_and_response
from ftkit.tagging import IGNORED, align_tags, check_tagged

MAX_LENGTH = 512
MANY = 2_000  # examples; fewer are tokenized at once
LOSS_ON = ("response", "all")


class Encoded(torch.utils.data.Dataset):
    """Token ids of a data set, one dict of lists an example, and each one's length.

    families: a number an example, the same where the choices are the same; None for other tasks.
    limit: tokens that an example may have. A row says in "cut" how many it had, where it was cut.
    """

    def __init__(self, rows, lengths, families=None, limit=None):
        self.rows, self.lengths, self.families = rows, np.asarray(lengths), families
        self.limit = limit
        self.epoch = 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        # A collator that draws can draw by it: another time for each epoch, the same for each run.
        return {**self.rows[index], "place": (int(self.epoch), int(index))}

    def begin_epoch(self, epoch):
        """Say which pass over the data begins; without it, every pass is the first one."""
        if isinstance(self.epoch, int):
            # Shared with the processes that load batches: they may live longer than an epoch.
            self.epoch = torch.zeros((), dtype=torch.long).share_memory_()
        self.epoch.fill_(epoch)


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


def encode(dataset, model, *, max_length=None, loss_on="response"):
    """Tokenize a data set for a model's task.

    dataset: a datasets.Dataset with the task's columns. max_length: tokens; longer texts are cut.
    loss_on: for prompt and response records, "response" or "all" positions carry loss.
    Returns an Encoded. Raises DataError naming a missing column or a label out of range.
    """
    if loss_on not in LOSS_ON:
        raise SettingError(
            f"loss_on={loss_on!r} does not exist; choose one of {', '.join(LOSS_ON)}."
        )
    limit = min(max_length or MAX_LENGTH, _longest(model))
    rows = _rows(dataset, model, limit, loss_on)
    lengths = [len(r["input_ids"]) if "input_ids" in r else len(r["question"]) for r in rows]
    return Encoded(rows, lengths, _families(rows) if model.task == "choice" else None, limit)


def _rows(dataset, model, limit, loss_on):
    """The encoded rows; those of large data sets are kept in files for other runs."""

    def compute():
        return _ENCODERS[model.task](dataset, model, limit, loss_on)

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if len(columns_of(dataset)) and len(dataset) >= MANY and backend is not None:
        words = kept.tokenizer_text(model.tokenizer)
        asked = [model.task, limit, loss_on, model.labels, words]
        digest = xxhash.xxh3_128(json.dumps(asked).encode())
        for part in dataset.with_format("arrow").iter(MANY):
            digest.update(json.dumps(part.to_pydict(), default=str).encode())
        return kept.once("tokens", digest.hexdigest(), compute)
    return compute()


def _families(rows):
    number = {}
    keys = (tuple(sorted(map(tuple, row["choices"]))) for row in rows)
    return np.array([number.setdefault(key, len(number)) for key in keys])


def _longest(model):
    positions = getattr(model.net.config, "max_position_embeddings", None) or MAX_LENGTH
    room = min(positions, getattr(model.tokenizer, "model_max_length", positions))
    return room - learned_tokens(model.net)


def _texts(dataset, model, limit):
    need(dataset, "text")
    pairs = dataset["text_pair"][:] if "text_pair" in columns_of(dataset) else None
    return model.tokenizer(dataset["text"][:], pairs, truncation=True, max_length=limit)


def _mark_cut(tokens, rows):
    """Note in each row that was cut how many tokens it had; 0 for a pair. Returns the rows."""
    for row, encoding in zip(rows, tokens.encodings or (), strict=False):
        if rest := encoding.overflowing:
            more = sum(part.special_tokens_mask.count(0) for part in rest)
            row["cut"] = len(encoding.ids) + more if encoding.n_sequences == 1 else 0
    return rows


def _classification(dataset, model, limit, _):
    tokens, rows = _texts(dataset, model, limit), []
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
    return _mark_cut(tokens, rows)


def _is_number(label):
    return isinstance(label, int | float) and math.isfinite(label)


def _tagging(dataset, model, limit, _):
    need(dataset, "tokens", "tags")
    sentences, tags = dataset["tokens"][:], dataset["tags"][:]
    for i, (words, own) in enumerate(zip(sentences, tags, strict=True)):
        check_tagged(words, own, f"row {i}")
    tokens = model.tokenizer(sentences, is_split_into_words=True, truncation=True, max_length=limit)
    rows = []
    for i, own in enumerate(tags):
        words = tokens.word_ids(i)
        labels = align_tags(own, words, model.labels, where=f"row {i}")
        # Which word each label belongs to: evaluation is by words.
        places = [(j, words[j]) for j, label in enumerate(labels) if label != IGNORED]
        rows.append({"input_ids": tokens["input_ids"][i], "labels": labels, "words": places})
    return _mark_cut(tokens, rows)


def _causal(dataset, model, limit, loss_on):
    names = columns_of(dataset)
    if "text" in names and "response" not in names:
        need(dataset, "text")
        tokens = model.tokenizer(dataset["text"][:], truncation=True, max_length=limit)
        rows = [{"input_ids": i, "labels": list(i)} for i in tokens["input_ids"]]
        return _mark_cut(tokens, rows)
    prompts, responses = as_prompt_and_response(dataset, model.tokenizer)
    options = {"add_special_tokens": False}
    first = model.tokenizer(prompts, **options)["input_ids"]
    second = model.tokenizer(responses, **options)["input_ids"]
    rows = []
    for prompt, response in zip(first, second, strict=True):
        response = [*response, model.tokenizer.eos_token_id]
        whole = len(prompt) + len(response)
        if whole > limit and model.tokenizer.truncation_side == "left":  # the answer stays
            prompt = prompt[len(prompt) - max(0, limit - len(response)) :]
        ids = (prompt + response)[:limit]
        masked = [IGNORED] * len(prompt) + response if loss_on == "response" else prompt + response
        rows.append({"input_ids": ids, "labels": masked[:limit]})
        if whole > limit:
            gone = len(prompt) + len(response) - len(ids)
            rows[-1] |= {"cut": whole, "lost": min(gone / len(response), 1)}
    return rows


def _masked(dataset, model, limit, _):
    need(dataset, "text")
    tokens = model.tokenizer(dataset["text"][:], truncation=True, max_length=limit)
    return _mark_cut(tokens, [{"input_ids": i} for i in tokens["input_ids"]])


def _seq2seq(dataset, model, limit, _):
    sources, targets = as_prompt_and_response(dataset, model.tokenizer, chat=False)
    first = model.tokenizer(sources, truncation=True, max_length=limit)
    second = model.tokenizer(text_target=targets, truncation=True, max_length=limit)["input_ids"]
    # T5's tokenizer ends a text by itself; another must not leave the model without an end.
    end = model.tokenizer.eos_token_id
    second = [b if b[-1:] == [end] else [*b[: limit - 1], end] for b in second]
    pairs = zip(first["input_ids"], second, strict=True)
    return _mark_cut(first, [{"input_ids": a, "labels": b} for a, b in pairs])


def _choice(dataset, model, limit, _):
    need(dataset, "question", "choices", "answer")
    questions = model.tokenizer(dataset["question"][:], truncation=True, max_length=limit)[
        "input_ids"
    ]
    distinct = sorted({choice for row in dataset["choices"] for choice in row})
    ids = model.tokenizer(distinct, truncation=True, max_length=limit)["input_ids"]
    known = dict(zip(distinct, ids, strict=True))
    rows = []
    for i, (question, row) in enumerate(zip(questions, dataset, strict=True)):
        if not 0 <= row["answer"] < len(row["choices"]):
            raise DataError(
                f"row {i} answers {row['answer']!r} with {len(row['choices'])} choices; "
                "answer is the number of the right choice, from 0."
            )
        rows.append(
            {
                "question": question,
                "choices": [known[c] for c in row["choices"]],
                "labels": row["answer"],
            }
        )
    return rows


def _encoder(dataset, model, limit, _):
    return [{"input_ids": i} for i in _texts(dataset, model, limit)["input_ids"]]


_ENCODERS = {
    "classification": _classification,
    "regression": _classification,
    "tagging": _tagging,
    "causal-lm": _causal,
    "masked-lm": _masked,
    "seq2seq-lm": _seq2seq,
    "choice": _choice,
    "encoder": _encoder,
}


def pad(rows, value, left=False, multiple=1):
    """Pad lists of numbers to the longest. Returns a long tensor of shape (rows, longest).

    multiple: the width is filled up to a multiple of it.
    """
    width = -(-max(map(len, rows)) // multiple) * multiple
    gaps = [[value] * (width - len(row)) for row in rows]
    full = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
    return torch.tensor(full, dtype=torch.long).view(len(rows), width)


class Collator:
    """Make a batch of tensors from encoded rows, padded to the batch's own longest.

    Masked-word models get fresh masks in each epoch: 15% of the tokens, of which 80% become the
    mask, 10% a random token, 10% stay (Devlin et al. 2019). They depend on the seed, the epoch and
    the row, and not on which process makes the batch, nor on what it made before.
    """

    multiple = 1  # what the width of a batch is filled up to

    def __init__(self, model, seed=0):
        self.task, self.tokenizer, self.seed = model.task, model.tokenizer, seed
        self.random = np.random.default_rng(seed)  # for rows that are no data set's

    def __call__(self, rows):
        if self.task == "choice":
            return self._choice(rows)
        ids = [row["input_ids"] for row in rows]
        batch = self._ids(ids)
        if "token_type_ids" in rows[0]:
            batch["token_type_ids"] = self._pad([row["token_type_ids"] for row in rows], 0)
        if self.task == "masked-lm":
            batch["input_ids"], batch["labels"] = self._mask(batch["input_ids"], rows)
        elif "labels" in rows[0]:
            labels = [row["labels"] for row in rows]
            if isinstance(labels[0], list):
                batch["labels"] = self._pad(labels, IGNORED)
            else:
                kind = torch.float if self.task == "regression" else torch.long
                batch["labels"] = torch.tensor(labels, dtype=kind)
        return batch

    def _ids(self, ids):
        return {
            "input_ids": self._pad(ids, self.tokenizer.pad_token_id),
            "attention_mask": self._pad([[1] * len(i) for i in ids], 0),
        }

    def _pad(self, rows, value):
        return pad(rows, value, multiple=self.multiple)

    def _choice(self, rows):
        """Questions and the batch's distinct choices, each encoded once; `index` says whose."""
        place, index = {}, []
        for row in rows:
            index.append([place.setdefault(tuple(c), len(place)) for c in row["choices"]])
        batch = self._ids([row["question"] for row in rows] + [list(c) for c in place])
        return batch | {
            "index": pad(index, IGNORED),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    def _mask(self, ids, rows):
        draw, kind = (torch.ones(ids.shape, dtype=torch.double) for _ in range(2))
        noise = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            own = row["input_ids"]
            known, size = "place" in row, len(own)
            random = np.random.default_rng((self.seed, *row["place"])) if known else self.random
            draw[i, :size], kind[i, :size] = torch.from_numpy(random.random((2, size)))
            noise[i, :size] = torch.from_numpy(random.integers(len(self.tokenizer), size=size))
        special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        chosen = (draw < 0.15) & ~special
        labels = torch.where(chosen, ids, IGNORED)
        masked = torch.where(chosen & (kind < 0.8), self.tokenizer.mask_token_id, ids)
        return torch.where(chosen & (kind >= 0.9), noise, masked), labels


class SimilarLength(torch.utils.data.Sampler):
    """Draw examples in random order, but so that neighbours have similar lengths.

    Each epoch the examples are shuffled, cut into pools of 50 batches, sorted by length inside a
    pool, and the batches shuffled: each example is seen once, and batches come in random order.
    """

    def __init__(self, lengths, batch_size, seed=0):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __len__(self):
        return len(self.lengths)

    def set_epoch(self, epoch):
        """Choose the shuffle of an epoch; the Trainer calls it."""
        self.epoch = epoch

    def __iter__(self):
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        pool, batches = 50 * self.batch_size, []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # A short batch goes last: in the middle it would shift the cuts of those after it.
        short = [b for b in batches if len(b) < self.batch_size]
        full = [b for b in batches if len(b) == self.batch_size]
        random.shuffle(full)
        self.epoch += 1
        return iter(np.concatenate([*full, *short]).tolist() if len(order) else [])


class SameChoices(SimilarLength):
    """Draw examples in random order, but those with the same choices one after the other.

    A batch encodes each of its choices once, so that questions about the same ten cost two texts
    each in place of eleven. The order of the families changes with each epoch.
    """

    def __init__(self, families, batch_size, seed=0):
        super().__init__(families, batch_size, seed)

    def __iter__(self):
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        rank = random.permutation(self.lengths.max() + 1)[self.lengths[order]]
        self.epoch += 1
        return iter(order[np.argsort(rank, kind="stable")].tolist())


def by_length(encoded, batch_size, tokens=None, *, sort=True):
    """Index lists for evaluation, longest first: what does not fit fails at once.

    tokens: the most a batch may have, padding included; None for no limit but batch_size.
    Questions with the same choices stay together, so that a batch encodes them once.
    sort=False leaves them in their order, `batch_size` in each batch.
    """
    if not sort:
        whole = list(range(len(encoded.lengths)))
        return [whole[i : i + batch_size] for i in range(0, len(whole), batch_size)]
    order = np.argsort(-encoded.lengths, kind="stable")
    if getattr(encoded, "families", None) is not None:
        order = order[np.argsort(encoded.families[order], kind="stable")]
        tokens = None  # what a batch holds depends on how many choices its questions share
    batches = []
    for index in order.tolist():
        last = batches[-1] if batches else None
        widest = encoded.lengths[last[0]] if last else 0
        if last is None or len(last) == batch_size or (tokens and widest * len(last) >= tokens):
            batches.append([index])
        else:
            last.append(index)
    return batches
