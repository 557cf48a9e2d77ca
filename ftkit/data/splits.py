"""Puts rows into fixed splits, and finds near-duplicate texts so that none is in two of them."""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import islice
from typing import TypeVar

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)
# Two texts are near-duplicates when they share this part of their runs of three words (Jaccard).
THRESHOLD = 0.7
_RUN = 3
_WORD = re.compile(r"\w+")
MISSES = 64  # texts that one is compared with in vain
LOOKS = 1_000  # texts of a set that are looked at for one, most of them too long or too short
_BITS = 21  # three word numbers fit a 64-bit integer, so a run has a number of its own
Group = TypeVar("Group", bound=Hashable)


def stable_hash(*parts: str) -> str:
    """Return a sort key that shuffles the same way on every machine and in every process."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def split_of(group: str, fractions: tuple[float, float, float] = FRACTIONS) -> str:
    """Return the split that a group belongs to, decided by its hash alone."""
    place = int(stable_hash(str(group))[:12], 16) / 16**12
    if place < fractions[2]:
        return "test"
    return "validation" if place < fractions[2] + fractions[1] else "train"


def normalized(text: str) -> str:
    """Return the words of a text in lower case, without punctuation."""
    return " ".join(_WORD.findall(text.lower()))


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return every pair (i, j), i < j, of texts that are near-duplicates, exact ones included.

    Exact, not sampled: only texts that share one of their rarest runs of words can reach the
    threshold, so only those are compared (prefix filtering: Bayardo, Ma and Srikant 2007,
    "Scaling up all pairs similarity search").
    """
    import numpy as np
    from scipy.sparse import csr_matrix, triu

    if len(texts) < 2:
        return []
    runs, starts, prefix = _rarest_first(texts)
    sizes = np.diff(starts)
    rows = np.repeat(np.arange(len(texts)), sizes)
    rare = np.arange(len(runs)) - starts[rows] < prefix[rows]

    def matrix(chosen):
        ones = np.ones(int(chosen.sum()), np.int32)
        return csr_matrix((ones, (rows[chosen], runs[chosen])), (len(texts), runs.max() + 1))

    heads, whole = matrix(rare), matrix(np.ones(len(rows), bool))
    candidates = triu(heads @ heads.T, 1).tocoo()
    pairs: list[tuple[int, int]] = []
    for part in np.array_split(np.arange(candidates.nnz), math.ceil(candidates.nnz / 20_000) or 1):
        i, j = candidates.row[part], candidates.col[part]
        shared = np.asarray(whole[i].multiply(whole[j]).sum(axis=1)).ravel()
        near = shared >= THRESHOLD * (sizes[i] + sizes[j] - shared) - 1e-9
        pairs += zip(i[near].tolist(), j[near].tolist(), strict=True)
    return pairs


def deduplicate(texts: Sequence[str], *, near: bool = True) -> list[int]:
    """Return the positions of texts, the first of each set of near (or of exact) duplicates."""
    first: dict[str, int] = {}
    for position, text in enumerate(texts):
        first.setdefault(normalized(text), position)
    kept = list(first.values())
    if not near:
        return kept
    removed: set[int] = set()
    # A pair counts only while its earlier text is still there, hence the order.
    for i, j in sorted(near_duplicates([texts[k] for k in kept])):
        if i not in removed:
            removed.add(j)
    return [position for k, position in enumerate(kept) if k not in removed]


def merge_groups(groups: Sequence[Group], texts: Sequence[str]) -> list[Group]:
    """Return a group for each row, the first one's where near-duplicates tie several together."""
    parent: dict[Group, Group] = {group: group for group in groups}
    order = {group: number for number, group in enumerate(parent)}
    root = _roots(parent)
    for row, first in enumerate(near_sets(texts)):
        a, b = sorted((root(groups[first]), root(groups[row])), key=order.__getitem__)
        parent[b] = a
    return [root(group) for group in groups]


def _roots(parent):
    """A function that follows `parent` up to the one that stands for a whole set."""

    def root(member):
        while parent[member] != member:
            parent[member] = member = parent[parent[member]]
        return member

    return root


def near_sets(texts: Sequence[str]) -> list[int]:
    """Return for each text the position of the first one of its set of near-duplicates.

    Texts are in one set when near-duplicates lead from one to the other. Which texts are compared
    is found as in near_duplicates; a set that a text has joined is not looked at further, so texts
    made from one template, which are all alike, cost one comparison each instead of one for each
    pair. A text that was compared in vain with MISSES others is left alone.
    """
    import numpy as np

    first: dict[str, int] = {}
    for position, text in enumerate(texts):
        first.setdefault(text, position)
    unique = list(first.values())
    parent = list(range(len(unique)))
    root = _roots(parent)
    if len(unique) > 1:
        runs, starts, prefix = _rarest_first([texts[position] for position in unique])
        rows = np.repeat(np.arange(len(unique)), np.diff(starts))
        rare = np.arange(len(runs)) - starts[rows] < prefix[rows]
        # Only a run that stands among the rarest of two texts can bring them together.
        shared = rare & (np.bincount(runs[rare], minlength=runs.max() + 1)[runs] > 1)
        index: dict[int, dict[int, list[int]]] = {}  # of a run: its texts so far, by set
        joined: list[int] = []  # texts that stood for a set until it became part of another
        known: dict[int, int] = {}  # of a run: how many of these its texts were moved for
        numbers, places = np.unique(rows[shared], return_index=True)
        for text, own in zip(
            numbers.tolist(), np.split(runs[shared], places)[1:], strict=True
        ):
            mine = set(runs[starts[text]:starts[text + 1]].tolist())
            compared: set[int] = set()
            for run in own.tolist():
                by_set = index.setdefault(run, {})
                _merge(by_set, joined[known.get(run, 0):], root)
                known[run] = len(joined)
                _compare(text, mine, by_set, compared, root, parent, joined, runs, starts)
            for run in own.tolist():
                index[run].setdefault(root(text), []).append(text)
    sets: dict[int, int] = {}
    for number in range(len(unique)):  # the earliest text of a set stands for it
        sets.setdefault(root(number), unique[number])
    of_text = {text: sets[root(number)] for number, text in enumerate(first)}
    return [of_text[text] for text in texts]


def _merge(by_set, joined, root) -> None:
    """Bring the texts of a run together whose sets have become one."""
    few = len(joined) < len(by_set)  # mostly none, and the many sets of a run stay as they are
    stale = [text for text in joined if text in by_set] if few else list(by_set)
    for text in list(by_set) if len(stale) > 1 else stale:  # in the order in which they came
        now = root(text)
        if now != text:
            by_set.setdefault(now, []).extend(by_set.pop(text))


def _compare(text, mine, by_set, compared, root, parent, joined, runs, starts) -> None:
    """Join a text to each set of texts with which it shares a rare run and is a near-duplicate."""
    for known, members in by_set.items():
        if len(compared) >= MISSES:
            return
        for other in islice(reversed(members), LOOKS):
            if len(compared) >= MISSES or root(text) == root(known):
                break
            size = int(starts[other + 1] - starts[other])
            if other in compared or min(len(mine), size) < THRESHOLD * max(len(mine), size) - 1e-9:
                continue
            both = len(mine.intersection(runs[starts[other]:starts[other + 1]].tolist()))
            if both >= THRESHOLD * (len(mine) + size - both) - 1e-9:
                joined.append(root(text))
                parent[root(text)] = root(known)
            else:
                compared.add(other)


def _rarest_first(texts: Sequence[str]):
    """Return each text's runs as ranks of rarity, 0 the rarest, where each text's begin, and how
    many of them, from the rarest on, any near-duplicate must share one of.
    """
    import numpy as np

    rows, runs = _word_runs(texts)
    _, runs, counts = np.unique(runs, return_inverse=True, return_counts=True)
    rarity = np.empty(len(counts), np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rows *= len(counts)
    rows += rarity[runs]
    rows.sort()  # by text, then rarest first
    cells = rows[np.concatenate([[True], rows[1:] != rows[:-1]])]  # np.unique would hash, slowly
    del rows, runs, rarity
    sizes = np.bincount(cells // len(counts), minlength=len(texts))
    prefix = sizes - np.ceil(THRESHOLD * sizes - 1e-9).astype(np.int64) + 1
    return cells % len(counts), np.concatenate([[0], np.cumsum(sizes)]), prefix


def _word_runs(texts: Sequence[str]):
    """Return (text number, run number) of every run of three words, as two int64 arrays."""
    import numpy as np

    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a new word gets the next number
    words, lengths = array("q"), []
    for text in texts:
        found = _WORD.findall(text.lower())
        found += [""] * (_RUN - len(found))  # a short text is one run of its own
        words.extend(map(numbers.__getitem__, found))
        lengths.append(len(found))
    words = np.frombuffer(words, np.int64)
    rows = np.repeat(np.arange(len(texts)), lengths)
    if len(numbers) < 1 << _BITS:
        runs = words[:-2] << 2 * _BITS | words[1:-1] << _BITS | words[2:]
    else:  # more words than fit: pairs are numbered first
        _, pairs = np.unique(words[:-1] * len(numbers) + words[1:], return_inverse=True)
        runs = pairs[:-1] * len(numbers) + words[2:]
    inside = rows[:-2] == rows[2:]
    return rows[:-2][inside], runs[inside]
