"""Puts rows into fixed splits, and finds near-duplicate texts so that none is in two of them."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Hashable, Sequence

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)
# Two texts are near-duplicates when they share this part of their runs of three words (Jaccard).
THRESHOLD = 0.7
_RUN = 3
_WORD = re.compile(r"\w+")
_BITS = 21  # three word numbers fit a 64-bit integer, so a run has a number of its own


def order(*parts: str) -> str:
    """Return a sort key that shuffles the same way on every machine and in every process."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def split_of(group: str, fractions: tuple[float, float, float] = FRACTIONS) -> str:
    """Return the split that a group belongs to, decided by its hash alone."""
    place = int(order(str(group))[:12], 16) / 16**12
    if place < fractions[2]:
        return "test"
    return "validation" if place < fractions[2] + fractions[1] else "train"


def normalized(text: str) -> str:
    """Return the words of a text in lower case, without punctuation."""
    return " ".join(_WORD.findall(text.lower()))


def near_pairs(texts: Sequence[str], threshold: float = THRESHOLD) -> list[tuple[int, int]]:
    """Return every pair (i, j), i < j, of texts that are near-duplicates, exact ones included.

    Exact, not sampled: only texts that share one of their rarest runs of words can reach the
    threshold, so only those are compared (prefix filtering: Bayardo, Ma and Srikant 2007,
    "Scaling up all pairs similarity search").
    """
    import numpy as np
    from scipy.sparse import csr_matrix, triu

    if len(texts) < 2:
        return []
    rows, runs = _word_runs(texts)
    _, inverse, counts = np.unique(runs, return_inverse=True, return_counts=True)
    rarity = np.empty(len(counts), np.int64)  # 0 is the rarest run
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    cells = np.unique(rows * len(counts) + rarity[inverse])  # by text, then rarest first
    rows, runs = cells // len(counts), cells % len(counts)

    sizes = np.bincount(rows, minlength=len(texts))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    prefix = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    rare = np.arange(len(rows)) - starts[rows] < prefix[rows]

    def matrix(chosen):
        ones = np.ones(int(chosen.sum()), np.int32)
        return csr_matrix((ones, (rows[chosen], runs[chosen])), (len(texts), len(counts)))

    heads, whole = matrix(rare), matrix(np.ones(len(rows), bool))
    candidates = triu(heads @ heads.T, 1).tocoo()
    pairs = []
    for part in np.array_split(np.arange(candidates.nnz), math.ceil(candidates.nnz / 20_000) or 1):
        i, j = candidates.row[part], candidates.col[part]
        shared = np.asarray(whole[i].multiply(whole[j]).sum(axis=1)).ravel()
        near = shared >= threshold * (sizes[i] + sizes[j] - shared) - 1e-9
        pairs += zip(i[near].tolist(), j[near].tolist(), strict=True)
    return pairs


def distinct(texts: Sequence[str], *, near: bool = True) -> list[int]:
    """Return the positions of the texts to keep: the first of each set of near-duplicates.

    near=False: only texts with the same words in the same order count as duplicates.
    """
    first: dict[str, int] = {}
    for position, text in enumerate(texts):
        first.setdefault(normalized(text), position)
    kept = list(first.values())
    if not near:
        return kept
    removed: set[int] = set()
    # A pair counts only while its earlier text is still there, hence the order.
    for i, j in sorted(near_pairs([texts[k] for k in kept])):
        if i not in removed:
            removed.add(j)
    return [position for k, position in enumerate(kept) if k not in removed]


def linked(groups: Sequence[Hashable], texts: Sequence[str]) -> list[Hashable]:
    """Return a group for each row such that near-duplicate texts have the same one.

    Rows keep their own group unless a near-duplicate ties it to another; then all take the group
    that came first.
    """
    parent: dict[Hashable, Hashable] = {group: group for group in groups}
    order = {group: number for number, group in enumerate(parent)}

    def root(group):
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    unique = list(first.values())
    same = [(first[text], row) for row, text in enumerate(texts)]
    near = [(unique[i], unique[j]) for i, j in near_pairs([texts[row] for row in unique])]
    for i, j in (*same, *near):
        a, b = sorted((root(groups[i]), root(groups[j])), key=order.__getitem__)
        parent[b] = a
    return [root(group) for group in groups]


def _word_runs(texts: Sequence[str]):
    """Return (text number, run number) of every run of three words, as two int64 arrays."""
    import numpy as np

    numbers: dict[str, int] = {}
    words, lengths = [], []
    for text in texts:
        found = _WORD.findall(text.lower())
        found += [""] * (_RUN - len(found))  # a short text is one run of its own
        words += [numbers.setdefault(word, len(numbers)) for word in found]
        lengths.append(len(found))
    if len(numbers) >= 1 << _BITS:
        raise ValueError(f"{len(numbers):,} different words; near_pairs takes {1 << _BITS:,}.")
    words = np.array(words, np.int64)
    rows = np.repeat(np.arange(len(texts)), lengths)
    runs = words[:-2] << 2 * _BITS | words[1:-1] << _BITS | words[2:]
    inside = rows[:-2] == rows[2:]
    return rows[:-2][inside], runs[inside]
