"""From records to batches: tokens and labels for each task, batches of similar length, padding."""

import json
from dataclasses import dataclass

import numpy as np
import torch
import xxhash

from ftkit import tasks
from ftkit.assets import disk_cache
from ftkit.errors import SettingError
from ftkit.models.learned_prompt import learned_tokens
from ftkit.tasks.tokens import columns_of, supervised

MAX_LENGTH = 512
MANY = 2_000  # examples; fewer are tokenized at once
LOSS_ON = ("response", "all")


@dataclass(frozen=True)
class Cut:
    """What the limit of tokens took from a data set, row by row.

    limit: tokens of a text. whole: tokens of each row before it was cut, (rows,). wanted, left:
    tokens (of tags: words) of each row with loss before and after; both None where a row has one
    label. records: whether rows are a prompt and an answer, whose end is what is cut.
    """

    limit: int
    whole: np.ndarray
    wanted: np.ndarray | None
    left: np.ndarray | None
    records: bool

    @property
    def rows(self):
        """The numbers of the rows that are longer than the limit."""
        return np.flatnonzero(self.whole > self.limit)

    @property
    def answers(self):
        """The numbers of the rows that lost tokens with loss."""
        return np.flatnonzero(self.left < self.wanted) if self.left is not None else self.rows[:0]

    @property
    def lost(self):
        """The numbers of the rows that lost all of them: nothing can be learned from these."""
        gone = self.answers
        return gone[self.left[gone] == 0] if len(gone) else gone

    @property
    def supervised(self):
        """How many tokens, or labels, carry loss in all rows together."""
        return int(self.left.sum()) if self.left is not None else len(self.whole)

    def __str__(self):
        """What was cut, in a sentence and with the remedy; "" where nothing was."""
        if not len(self.rows):
            return ""
        n, longest = len(self.whole), int(self.whole.max())
        said = f"longest {longest:,} of {self.limit:,} tokens"
        if self.records and not len(self.answers):
            return f"{len(self.rows):,} of {n:,} prompts were cut and no answer; {said}."
        if self.records:
            return (
                f"{len(self.answers):,} of {n:,} answers were cut, {len(self.lost):,} lost whole; "
                f"{said}. Raise max_length, or cut prompts from the left: "
                'model.tokenizer.truncation_side = "left".'
            )
        return f"{len(self.rows):,} of {n:,} texts were cut; {said}. Raise max_length to keep more."


class Encoded(torch.utils.data.Dataset):
    """Token ids of a data set, one dict of lists an example, and each one's length.

    families: a number an example, the same where the choices are the same; None for other tasks.
    cut: what the limit of tokens took away, a Cut.
    """

    def __init__(self, rows, lengths, families=None, cut=None):
        self.rows, self.lengths, self.families = rows, np.asarray(lengths), families
        self.cut = cut
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


def encode(dataset, model, *, max_length=None, loss_on="response"):
    """Tokenize a data set for a model's task.

    dataset: a datasets.Dataset with the task's columns. max_length: tokens; longer texts are cut.
    loss_on: for prompt and response records, "response" or "all" positions carry loss.
    Returns an Encoded. Raises DataError naming a missing column or a label out of range.
    """
    if loss_on not in LOSS_ON:
        raise SettingError(f"loss_on={loss_on!r} does not exist; choose one of "
                           f"{', '.join(LOSS_ON)}.")
    limit = min(max_length or MAX_LENGTH, _longest(model))
    rows, whole, wanted = _rows(dataset, model, limit, loss_on)
    lengths = [len(r["input_ids"]) if "input_ids" in r else len(r["question"]) for r in rows]
    task = tasks.of(model)
    left = None if wanted is None else np.array([supervised(row["labels"]) for row in rows])
    before = None if wanted is None else np.array(wanted)
    cut = Cut(limit, np.array(whole), before, left, task.records(wanted, whole))
    return Encoded(rows, lengths, task.choice_sets(rows), cut)


def _rows(dataset, model, limit, loss_on):
    """The encoded rows, of large sets from files, their whole lengths and tokens with loss."""

    def compute():
        return tasks.of(model).encode(dataset, model, limit, loss_on)

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if len(columns_of(dataset)) and len(dataset) >= MANY and backend is not None:
        words = disk_cache.tokenizer_text(model.tokenizer)
        names = str(getattr(dataset, "features", ""))  # those of the classes decide what is refused
        asked = [model.task, limit, loss_on, model.labels, words, names]
        digest = xxhash.xxh3_128(json.dumps(asked).encode())
        for part in dataset.with_format("arrow").iter(MANY):
            digest.update(json.dumps(part.to_pydict(), default=str).encode())
        return disk_cache.memoize("tokens", digest.hexdigest(), compute)
    return compute()


def _longest(model):
    positions = getattr(model.net.config, "max_position_embeddings", None) or MAX_LENGTH
    room = min(positions, getattr(model.tokenizer, "model_max_length", positions))
    return room - learned_tokens(model.net)


def pad(rows, value, left=False, multiple=1):
    """Lists of numbers as one long tensor (rows, longest), the width filled to a multiple."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    gaps = [[value] * (width - len(row)) for row in rows]
    full = [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, gaps, strict=True)]
    return torch.tensor(full, dtype=torch.long).view(len(rows), width)


class Collator:
    """Make a batch of tensors from encoded rows of a model's task, padded to its own longest.

    seed: of what a task draws for a batch, such as the masks of masked words.
    """

    multiple = 1  # what the width of a batch is filled up to

    def __init__(self, model, seed=0):
        self.task, self.tokenizer, self.seed = tasks.of(model), model.tokenizer, seed
        self.random = np.random.default_rng(seed)  # for rows that are no data set's

    def __call__(self, rows):
        return self.task.collate(rows, self)

    def unlabelled(self, rows):
        """A batch without labels, for prediction."""
        return self.task.unlabelled(rows, self)

    def ids(self, ids):
        """Token ids and their mask."""
        return {"input_ids": self.pad(ids, self.tokenizer.pad_token_id),
                "attention_mask": self.pad([[1] * len(i) for i in ids], 0)}

    def pad(self, rows, value):
        """Lists of numbers as one tensor, filled up with a value."""
        return pad(rows, value, multiple=self.multiple)


class LengthGroupedSampler(torch.utils.data.Sampler):
    """Draw examples in random order, but so that neighbours have similar lengths.

    Each epoch the examples are shuffled, cut into pools of 50 batches, sorted by length inside a
    pool, and the batches shuffled: each example is seen once, and batches come in random order.
    """

    def __init__(self, lengths, batch_size, seed=0):
        self.lengths, self.batch_size = np.asarray(lengths), batch_size
        self.seed, self.epoch = seed, 0

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


class SameChoicesSampler(LengthGroupedSampler):
    """Draw examples in random order, but those with the same choices one after the other.

    A batch encodes each choice once: ten in common cost a question two texts in place of eleven.
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

    tokens: the most a batch may have, padding included, or None. Questions with the same choices
    stay together. sort=False leaves the examples in their order, `batch_size` in each batch.
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
