"""Tagged text in CoNLL files: reading it, checking it, and the schemes of its tags."""

from __future__ import annotations

import re

from ftkit.errors import DataError

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
                raise DataError(f"{source}, line {number}: {line!r} has no tag. Expected a token "
                                "and its tag.")
            width = width or len(columns)
            if len(columns) != width:
                raise DataError(f"{source}, line {number}: {line!r} has {len(columns)} columns, "
                                f"the lines before it have {width}. Expected the same number in "
                                "every line.")
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
        raise DataError(f"{where}: {len(tokens)} tokens but {len(tags)} tags. Expected one tag for "
                        "each token.")
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True), 1):
        if any(part is None or not str(part).strip() for part in (token, tag)):
            raise DataError(f"{where}: token {number} is {token!r} with the tag {tag!r}; neither "
                            "may be empty.")


def in_order(tags) -> list[str]:
    """Return the distinct tags: O, then B- and I- of each type, then what is no BIO tag."""
    return sorted(set(tags), key=lambda tag: (tag != "O", tag[2:] if is_bio([tag]) else "~" + tag,
                                              tag))


def is_bio(tags) -> bool:
    """Tell whether all tags are O, or B- or I- with a type behind it."""
    return all(tag == "O" or (tag[:2] in ("B-", "I-") and len(tag) > 2) for tag in tags)


def as_bio(tags) -> tuple[dict[str, str] | None, str]:
    """Return what each tag is in BIO, and the name of the scheme that they are in.

    tags: all that occur. What IOBES (also BIOES, and M for an inside) and BILOU add over BIO, the
    neighbours of a tag tell, so nothing is lost. Bare letters (B, I, O) are entities of one
    nameless type, "entity"; in word segmentation (B, M, E, S) there is no O. Other tags without an
    O or a hyphen, such as parts of speech, stay as they are.
    Returns (None, "") where they look like entities in a scheme that is not known.
    Source of the schemes: Ratinov and Roth 2009, "Design Challenges and Misconceptions in NER".
    """
    tags = set(tags)
    bare = tags <= set("BIOESLUM") and tags & {"O", "B"} and len(tags) > 1
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
