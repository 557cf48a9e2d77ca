"""Tagged text: CoNLL files, tags for the pieces of words, and the entities that tags spell."""

from __future__ import annotations

import re

from ftkit.errors import DataError

IGNORED = -100  # the label that no loss looks at
_COLUMN = re.compile(r"[^ \t\r]+")  # a no-break space may be part of a token


def parse_conll(text: str, source: str) -> list[dict]:
    """Return the sentences of a CoNLL text: `tokens`, `tags` and the number of the `document`.

    source: what an error calls the text. Documents are numbered by their -DOCSTART- lines.
    """
    rows, tokens, tags, document, width = [], [], [], 0, None
    for number, line in enumerate([*text.split("\n"), ""], 1):
        columns = _COLUMN.findall(line)
        begins = columns[:1] == ["-DOCSTART-"]
        if columns and not begins:
            if len(columns) < 2:
                raise DataError(
                    f"{source}, line {number}: {line!r} has no tag. Expected a token and its tag."
                )
            width = width or len(columns)
            if len(columns) != width:
                raise DataError(
                    f"{source}, line {number}: {line!r} has {len(columns)} columns, the lines "
                    f"before it have {width}. Expected the same number in every line."
                )
            tokens.append(columns[0])
            tags.append(columns[-1])
        elif tokens:
            rows.append({"tokens": tokens, "tags": tags, "document": document})
            tokens, tags = [], []
        document += begins
    return rows


def check_tagged(tokens, tags, where) -> None:
    """Raise DataError unless a sentence has tokens, none of them blank, and a tag for each."""
    if not tokens or tags is None:
        raise DataError(f"{where} has no {'tags' if tokens else 'tokens'}. Take it out.")
    if len(tokens) != len(tags):
        raise DataError(
            f"{where}: {len(tokens)} tokens but {len(tags)} tags. Expected one tag for each token."
        )
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True), 1):
        if any(part is None or not str(part).strip() for part in (token, tag)):
            raise DataError(
                f"{where}: token {number} is {token!r} with the tag {tag!r}; neither may be empty."
            )


def in_order(tags) -> list[str]:
    """Return the distinct tags: O, then B- and I- of each type, then what is no BIO tag."""
    return sorted(set(tags), key=lambda tag: (tag != "O", tag[2:] if is_bio([tag]) else "~" + tag,
                                              tag))


def is_bio(tags) -> bool:
    """Tell whether all tags are O, or B- or I- with a type behind it."""
    return all(tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2) for tag in tags)


def as_bio(tags) -> tuple[dict[str, str] | None, str]:
    """Return what each tag is in BIO, and the name of the scheme that they are in.

    tags: all that occur. IOBES (also BIOES, and M for an inside) and BILOU have letters of their
    own for the end of an entity and for entities of one word; what they add over BIO can be told
    from the neighbours, so nothing is lost. Bare letters (B, I, O) are entities of one nameless
    type, which becomes "entity". Tags without an O or a hyphen, such as parts of speech, spell no
    entities and stay as they are.
    Returns (None, "") where they look like entities in a scheme that is not known.
    Source of the schemes: Ratinov and Roth 2009, "Design Challenges and Misconceptions in NER".
    """
    tags = set(tags)
    bare = tags <= set("BIOESLUM") and "O" in tags and len(tags) > 1
    parts = {tag: (tag, "entity") if bare and tag != "O" else tuple(tag.split("-", 1))
             for tag in tags if tag != "O"}
    letters = {part[0] for part in parts.values()}
    typed = all(len(part) == 2 and part[1] for part in parts.values())
    if not typed or not letters <= set("BIESLUM"):
        looks = "O" in tags or any(len(part) == 2 and len(part[0]) == 1 for part in parts.values())
        return (None, "") if looks and parts else ({tag: tag for tag in tags}, "BIO")
    for scheme, first, inner in (("BIO", "B", "I"), ("IOBES", "BS", "IEM"), ("BILOU", "BU", "IL")):
        if letters <= set(first + inner):
            known = {tag: ("B-" if part[0] in first else "I-") + part[1]
                     for tag, part in parts.items()}
            return known | {"O": "O"}, "bare letters" if scheme == "BIO" and bare else scheme
    return None, ""


def spelled(sentences, known=()) -> list[list[tuple[str, int, int]]] | None:
    """Return the entities of each tagged sentence; None where the tags spell none at all.

    sentences: lists of tags, in BIO or a scheme that as_bio reads. known: tags that belong to the
    scheme and may not occur. Entities are those of the BIO tags that the tags stand for.
    """
    bio = as_bio({str(tag) for tags in (*sentences, known) for tag in tags})[0]
    if not bio or not is_bio(bio.values()):
        return None
    return [entities([bio[str(tag)] for tag in tags]) for tags in sentences]


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
            raise DataError(
                f"{where}: word {word + 1} of the tokens has no tag, there are {len(tags)} tags. "
                "Expected one tag for each word."
            )
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
