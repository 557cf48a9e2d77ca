"""What is wrong with a data set, and what a model will see of it, in one table."""

from collections import Counter, defaultdict

import numpy as np
import xxhash

from ftkit.data.conversations import end_tokens
from ftkit.data.own import alike_names, main_texts
from ftkit.data.splits import near_sets, normalized
from ftkit.display import Table
from ftkit.errors import DataError
from ftkit.models.structure import IGNORED
from ftkit.tasks.batching import encode
from ftkit.tasks.tagging import spelled
from ftkit.tasks.tokens import columns_of

RARE = 10  # rows of a class in train; fewer are hard to learn, and harder to measure
PART = 1_000  # rows that are tokenized at a time
SHOWN = 5  # examples in a cell


class Look(Table):
    """The table of ft.look; look["rows"] is the row of that name, a dict by split."""

    def __getitem__(self, what):
        for row in self.rows:
            if row["what"] == what:
                return row
        raise KeyError(f"{what!r}; the table has {', '.join(row['what'] for row in self.rows)}")


def look(data, model=None, *, max_length=None):
    """Look through a data set for what makes a training fail or a result untrue.

    data: of load_data, another DatasetDict, or one split. model: of load_model; with it the table
    has lengths in tokens, what the limit of max_length cuts (as in fit), and tokens that the
    tokenizer does not know.
    Duplicates have the same words in the same order; near-duplicates share 70% of their runs of
    three words. A class is rare below RARE rows in train.
    Returns a Look, a table with a row for each check: counts by split, and examples or the remedy
    under "see" (rows are numbered from 0, as in data["train"][0]).
    Raises DataError, naming the row, for what the model's task cannot read.
    """
    splits = dict(data) if hasattr(data, "keys") else {"data": data}
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    if not splits:
        raise DataError("the data set has no rows.")
    for rows in splits.values():
        columns_of(rows)
    table = [_row("rows", {name: len(rows) for name, rows in splits.items()})]
    texts = {name: _texts(rows) for name, rows in splits.items()}
    words = {name: list(map(_words, own)) for name, own in texts.items()}
    table += _repeated(texts, words)
    if all("label" in rows.column_names for rows in splits.values()):
        table += _labels(splits, texts, words)
    if all("tags" in rows.column_names for rows in splits.values()):
        table += _kinds(splits, getattr(data, "tags", None) or ())
    if all("messages" in rows.column_names for rows in splits.values()):
        table += _roles(splits)
    if model is not None:
        table += _tokens(splits, texts, model, max_length)
    table += [_row("note", {}, note) for note in getattr(data, "notes", ())]
    return Look(table, getattr(data, "name", None))


def _row(what, counts, see=""):
    return {"what": what, **counts, "see": see}


def _texts(rows):
    names = [c for c in rows.column_names if c not in ("label", "group")]
    parts = _parts(rows, names)
    return [text for _, part in parts for text in main_texts({c: part[c] for c in names})]


def _parts(rows, names):
    """Yield the first row's number and the columns of PART rows at a time, to save memory."""
    chosen = rows.select_columns(names)
    for start in range(0, len(rows), PART):
        yield start, chosen[start : start + PART]


def _words(text):
    """A hash of the words of a text: the same for texts that differ in case or punctuation."""
    return xxhash.xxh3_128_digest(normalized(text).encode("utf-8", "surrogatepass"))


def _repeated(texts, words):
    """Duplicates within a split, texts that stand in train as well, and such as are alike."""
    twice, see = {}, ""
    for name, own in words.items():
        twice[name] = len(own) - len(set(own))
        if twice[name] and not see:
            most = Counter(own).most_common(1)[0][0]
            see = f"{name} rows {_some(i for i, other in enumerate(own) if other == most)}"
    table = [_row("duplicates in the split", twice, see)]
    if "train" not in texts or len(texts) == 1:
        return table
    train = {own: i for i, own in reversed(list(enumerate(words["train"])))}
    sets = iter(near_sets([text for own in texts.values() for text in own]))
    sets = {name: [next(sets) for _ in own] for name, own in texts.items()}
    first = {number: i for i, number in reversed(list(enumerate(sets["train"])))}
    for what, known, keys, skip in (
        ("also in train", train, words, {}), ("nearly the same as in train", first, sets, train)
    ):
        counts, see = {}, ""
        for name in [name for name in texts if name != "train"]:
            found = [i for i, key in enumerate(keys[name])
                     if key in known and words[name][i] not in skip]
            counts[name] = len(found)
            if found and not see:
                see = f"{name} row {found[0]} and train row {known[keys[name][found[0]]]}"
        table.append(_row(what, counts, see))
    return table


def _labels(splits, texts, words):
    """Texts with several labels, labels that are nearly the same, rare and absent classes."""
    feature = next(iter(splits.values())).features["label"]
    names = getattr(feature, "names", None)
    if names is None and getattr(feature, "dtype", "").startswith(("float", "double")):
        return []  # a score has no classes
    given = {name: rows["label"][:] for name, rows in splits.items()}
    if names is not None:
        given = {name: [names[label] for label in own] for name, own in given.items()}
    said = defaultdict(set)
    for name, own in given.items():
        for key, label in zip(words[name], own, strict=True):
            said[key].add(label)
    torn = {key for key, labels in said.items() if len(labels) > 1}
    counts = {name: sum(key in torn for key in own) for name, own in words.items()}
    see = next((f"{normalized(text)[:60]!r}: {_some(sorted(map(str, said[key])))}"
                for name in words for key, text in zip(words[name], texts[name], strict=True)
                if key in torn), "")
    table = [_row("the same text with another label", counts, see)]
    tallies = {name: Counter(own) for name, own in given.items()}
    classes = sorted(map(str, set().union(*tallies.values(), names or ())))
    table.append(_row("classes", {name: len(tally) for name, tally in tallies.items()},
                      _some(classes)))
    same = alike_names(classes)
    table.append(_row("labels that differ in case or blanks",
                      dict.fromkeys(splits, 0) | {next(iter(splits)): len(same)},
                      "; ".join(_some(map(repr, one)) for one in same)))
    base = "train" if "train" in tallies else next(iter(tallies))
    tally = tallies[base]
    rare = sorted((n, str(label)) for label, n in tally.items() if n < RARE)
    table.append(_row("rare classes", {base: len(rare)},
                      _some(f"{label} ({n})" for n, label in rare)))
    every = names or sorted(map(str, set().union(*tallies.values())))
    gone = {name: [label for label in every if label not in set(map(str, tally))]
            for name, tally in tallies.items()}
    table.append(_row("classes without a row", {name: len(own) for name, own in gone.items()},
                      "; ".join(f"{name}: {_some(own)}" for name, own in gone.items() if own)))
    return table


def _kinds(splits, known):
    """The kinds of entities, and which are rare or missing. known: tags that there are."""
    tallies = {}
    for name, rows in splits.items():
        found = spelled(rows["tags"][:], known)
        if found is None:  # parts of speech, say
            return []
        tallies[name] = Counter(kind for sentence in found for kind, *_ in sentence)
    kinds = sorted(set().union(*tallies.values(), *({one[2:]} for one in known if "-" in one)))
    base = "train" if "train" in tallies else next(iter(tallies))
    rare = sorted((n, kind) for kind, n in tallies[base].items() if n < RARE)
    gone = {name: [kind for kind in kinds if not tally[kind]] for name, tally in tallies.items()}
    return [_row("kinds of entities", {name: len(tally) for name, tally in tallies.items()},
                 _some(kinds)),
            _row("rare kinds", {base: len(rare)}, _some(f"{kind} ({n})" for n, kind in rare)),
            _row("kinds without an entity", {name: len(own) for name, own in gone.items()},
                 "; ".join(f"{name}: {_some(own)}" for name, own in gone.items() if own))]


def _roles(splits):
    """Conversations whose roles do not take turns, and such as do not end with an answer."""
    odd, open_end = defaultdict(list), defaultdict(list)
    for name, rows in splits.items():
        every = (turns for _, part in _parts(rows, ["messages"]) for turns in part["messages"])
        for i, turns in enumerate(every):
            roles = [turn["role"] for turn in turns]
            spoken = [role for role in roles[roles[:1] == ["system"] :] if role != "tool"]
            turn_about = ["user", "assistant"] * (len(spoken) // 2 + 1)
            if spoken != turn_about[: len(spoken)]:
                odd[name].append(i)
            if not turns or roles[-1] != "assistant" or not turns[-1]["content"].strip():
                open_end[name].append(i)
    return [_row(what, {name: len(found[name]) for name in splits},
                 "; ".join(f"{name} rows {_some(own)}" for name, own in found.items() if own))
            for what, found in (("roles out of order", odd), ("no answer at the end", open_end))]


def _tokens(splits, texts, model, max_length):
    """Lengths, what the limit takes away, answers that do not end, tokens that are not known."""
    lengths, cut, lost, open_end, unknown, beyond = ({name: 0 for name in splits} for _ in range(6))
    odd, remedy, ends, limit = [], "", end_tokens(model.tokenizer), 0
    unk = model.tokenizer.unk_token_id
    for name, rows in splits.items():
        whole = []
        for start in range(0, len(rows), PART):
            part = rows.select(range(start, min(start + PART, len(rows))))
            try:
                encoded = encode(part, model, max_length=max_length)
            except DataError as error:
                raise DataError(f"{name}, rows from {start} on: {error}") from None
            limit = encoded.cut.limit
            whole.append(encoded.cut.whole)
            cut[name] += len(encoded.cut.rows)
            lost[name] += len(encoded.cut.lost)
            remedy = remedy or str(encoded.cut).rpartition("; ")[2].partition(". ")[2]
            for i, row in enumerate(encoded.rows):
                ids = row["input_ids"] if "input_ids" in row else row["question"]
                if unk is not None and unk in ids:
                    unknown[name] += ids.count(unk)
                    if len(odd) < SHOWN:
                        odd += _unknown(texts[name][start + i], model.tokenizer, odd)
                if encoded.cut.records:
                    last = next((n for n in reversed(row["labels"]) if n != IGNORED), None)
                    open_end[name] += last is None or last not in ends
            if model.spec.answer == "tags":
                beyond[name] += _beyond(part, encoded)
        whole = np.concatenate(whole)
        lengths[name] = (f"{np.median(whole):.0f} / {np.quantile(whole, 0.95):.0f} / "
                         f"{whole.max():,}")
    table = [_row("tokens: median / 95% / longest", lengths, f"limit {limit:,}"),
             _row("longer than the limit", cut, remedy)]
    if model.spec.writes:
        table.append(_row("answers lost whole", lost))
        table.append(_row("answers without an end", open_end))
    if model.spec.answer == "tags":
        table.append(_row("entities beyond the limit", beyond))
    if unk is not None:
        table.append(_row("unknown tokens", unknown, _some(map(repr, odd))))
    return table


def _unknown(text, tokenizer, known):
    """Words of a text that the tokenizer cannot write in tokens of its own."""
    found = []
    for word in dict.fromkeys(text.split()):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if tokenizer.unk_token_id in ids and word not in known:
            found.append(word)
    return found[: SHOWN - len(known)]


def _beyond(rows, encoded):
    """How many entities have a word that the limit cut off."""
    if "tags" not in rows.column_names:
        return 0
    count = 0
    found = spelled(rows["tags"][:]) or [[]] * len(rows)
    for own, row in zip(found, encoded.rows, strict=True):
        read = {word for _, word in row["words"]}
        count += sum(not set(range(a, b)) <= read for _, a, b in own)
    return count


def _some(values):
    values = list(values)
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more
