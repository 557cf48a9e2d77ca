"""Tagging: a tag for each word, by its first piece, and the entities that tags spell."""

from __future__ import annotations

from ftkit.data.conll import as_bio, check_tagged, is_bio
from ftkit.errors import DataError
from ftkit.models.structure import IGNORED
from ftkit.tasks.base import Task
from ftkit.tasks.tokens import columns_of, need, tokenized


def align_tags(tags, word_ids, labels, *, where="the sentence") -> list[int]:
    """Give each piece of a tokenized sentence its label: a word's first piece carries its tag.

    tags: a tag for each word. word_ids: the number of its word for each piece, None for special
    tokens (a fast tokenizer's `word_ids()`). labels: the tags that the model knows, in the order
    of its outputs. where: what an error calls the sentence.
    Returns numbers of tags, -100 (no loss) for further pieces and special tokens.
    Raises DataError for a tag that the model does not know, and for a piece of a word without one.
    Source: Devlin et al. 2019, "BERT", section 5.3.
    """
    number = {label: i for i, label in enumerate(labels)}
    if unknown := sorted(set(tags) - set(number)):
        raise DataError(f"{where} has the tag {unknown[0]!r}; the model knows {', '.join(number)}.")
    found, before = [], None
    for word in word_ids:
        if word is not None and word >= len(tags):
            raise DataError(f"{where}: word {word + 1} of the tokens has no tag, there are "
                            f"{len(tags)} tags. Expected one tag for each word.")
        found.append(IGNORED if word is None or word == before else number[tags[word]])
        before = word
    return found


def entities(tags) -> list[tuple[str, int, int]]:
    """Return the entities that BIO tags spell: (type, first word, word after the last).

    tags: a list of "O", "B-type" and "I-type". An entity begins with B, or with an I that no
    entity of its type comes before; it goes on through I of its type.
    Source: CoNLL's conlleval; the same as seqeval's default (Nakayama 2018).
    """
    found, kind, start = [], None, 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind is not None and (prefix != "I" or name != kind):
            found.append((kind, start, place))
            kind = None
        if kind is None and prefix in ("B", "I"):
            kind, start = name, place
    return found


def spelled(sentences, known=()) -> list[list[tuple[str, int, int]]] | None:
    """Return the entities of each tagged sentence; None where the tags spell none at all.

    sentences: lists of tags, in a scheme that as_bio reads. known: tags of it that may not occur.
    """
    bio = as_bio({str(tag) for tags in (*sentences, known) for tag in tags})[0]
    if not bio or not is_bio(bio.values()):
        return None
    return [entities([bio[str(tag)] for tag in tags]) for tags in sentences]


def words_tags(labels, rows, logits, references):
    """A tag for each word of each row; O, if there is one, for words cut off or without a piece.

    rows: have `words`, pairs of a place among the tokens and a number of a word. logits: one array
    of shape (tokens, labels) a row. references: the right tags, for the number of words.
    """
    unread = "O" if "O" in labels else labels[0]
    said = []
    for row, scores, tags in zip(rows, logits, references, strict=True):
        words = [unread] * len(tags)
        for place, word in row["words"]:
            words[word] = labels[int(scores[place].argmax())]
        said.append(words)
    return said


class Tagging(Task):
    """Columns tokens, the words of a sentence, and tags, one for each."""

    name = "tagging"
    column, form = "tokens", '"a text", or ["its", "words"]'

    def encode(self, dataset, model, limit, loss_on):
        need(dataset, "tokens")
        tagged = "tags" in columns_of(dataset)
        sentences = dataset["tokens"][:]
        # without tags, the words still have places: a model can say what it makes of them
        tags = dataset["tags"][:] if tagged else [[model.labels[0]] * len(w) for w in sentences]
        for i, (words, own) in enumerate(zip(sentences, tags, strict=True)):
            check_tagged(words, own, f"row {i}")
        tokens, whole = tokenized(model, sentences, limit, is_split_into_words=True)
        rows = []
        for i, own in enumerate(tags):
            words = tokens.word_ids(i)
            labels = align_tags(own, words, model.labels, where=f"row {i}")
            # Which word each label belongs to: evaluation is by words.
            places = [(j, words[j]) for j, label in enumerate(labels) if label != IGNORED]
            rows.append({"input_ids": tokens["input_ids"][i], "labels": labels, "words": places})
        return rows, whole, list(map(len, sentences))

    def predictions(self, model, rows, encoded, logits, top):
        """A tag for each word; O, where the model has it, for words that the limit cut off."""
        empty = [[None] * len(words) for words in rows["tokens"]]
        found = []
        for words, tags in zip(
            rows["tokens"], words_tags(model.labels, encoded.rows, logits, empty), strict=True
        ):
            own = (spelled([tags], model.labels) or [[]])[0]
            named = [(kind, " ".join(words[a:b])) for kind, a, b in own]
            found.append({"words": words, "tags": tags, "entities": named})
        return found
