"""What users say about answers, kept in SQLite, and the training examples that it becomes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftkit.assets import atomic
from ftkit.errors import DataError, SettingError

LONGEST = 20_000  # characters of an answer, a correction, or a conversation
THUMBS = {"up": 1, "down": -1}
_MARK = 0x66746B31  # in the head of the file: a store of this layout
_TABLE = """
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL,
    thumb INTEGER CHECK (thumb IN (-1, 1)), correction TEXT, model TEXT NOT NULL,
    review TEXT CHECK (review IN ('accepted', 'rejected'))
)"""


class Feedback:
    """A store of what users say about answers: thumbs and corrections, in one SQLite file.

    path: of the file, made on first use. What `add` returned from is on the disk, and a process
    that is killed leaves the file whole; several processes may write at a time.
    Raises DataError for a file that is something else.

    An entry waits for `review`. Accepted ones become training examples: `supervised` (thumbs up,
    and corrections) and `preferences` (a correction beside the answer that it corrects).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._open() as store:
                mark = store.execute("PRAGMA application_id").fetchone()[0]
                tables = store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if mark != _MARK and tables:
                    raise DataError(f"{self.path} is a database of something else; give another "
                                    "file.")
                # Readers do not wait for a writer, and what was written survives a crash.
                store.execute("PRAGMA journal_mode = WAL")
                store.execute(f"PRAGMA application_id = {_MARK}")
                store.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path} cannot be used as a store of feedback: {error}. Give a "
                            "new file, or bring this one back from a copy.") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        store = sqlite3.connect(self.path, timeout=30)
        try:
            store.execute("PRAGMA synchronous = FULL")
            with store:  # a transaction: whole, or not at all
                yield store
        finally:
            store.close()

    def add(self, prompt: str | Sequence[dict], answer: str, *, thumb: str | None = None,
            correction: str | None = None, model: str = "") -> int:
        """Keep what a user said about an answer. Returns the entry's number.

        prompt: what was asked, a string or a conversation. thumb: "up" or "down". correction: the
        answer as it should have been. model: which version answered.
        Raises DataError for an entry that says nothing, contradicts itself or is too long.
        """
        turns = _turns(prompt)
        if thumb is not None and thumb not in THUMBS:
            raise DataError(f'thumb is {thumb!r}; "up" or "down" was expected.')
        fixed = None if correction is None else correction.strip()
        if fixed == "":
            raise DataError("the correction is empty; write the answer as it should have been.")
        if thumb is None and fixed is None:
            raise DataError("give a thumb or a correction; without either nothing is said.")
        if fixed is not None and (thumb == "up" or fixed == answer.strip()):
            raise DataError("a correction says that the answer was not right: it has to differ "
                            'from it, and goes with thumb="down" or without one.')
        written = json.dumps(turns, ensure_ascii=False)
        for what, text in (("answer", answer), ("correction", fixed or ""), ("prompt", written)):
            if len(text) > LONGEST:
                raise DataError(f"the {what} has {len(text):,} characters; at most {LONGEST:,}.")
        with self._open() as store:
            cursor = store.execute(
                "INSERT INTO feedback (time, messages, answer, thumb, correction, model) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), written, answer,
                 THUMBS.get(thumb or ""), fixed, model),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def review(self, number: int, accept: bool, *, correction: str | None = None) -> None:
        """Decide whether an entry may be learned from.

        correction: a better wording than the user's. Raises SettingError where there is no such
        entry.
        """
        with self._open() as store:
            done = store.execute(
                "UPDATE feedback SET review = ?, correction = coalesce(?, correction) WHERE id = ?",
                ("accepted" if accept else "rejected", (correction or "").strip() or None, number),
            )
            if not done.rowcount:
                raise SettingError(f"there is no entry {number} in {self.path}.")

    def entries(self, review: str | None = None) -> list[dict[str, Any]]:
        """The entries as dicts, the oldest first.

        review: "accepted", "rejected" or "waiting" for those alone.
        """
        if review not in (None, "accepted", "rejected", "waiting"):
            raise SettingError(f'review is {review!r}; "accepted", "rejected" or "waiting" was '
                               "expected.")
        with self._open() as store:
            store.row_factory = sqlite3.Row
            found = [dict(row) for row in store.execute("SELECT * FROM feedback ORDER BY id")]
        words = {1: "up", -1: "down", None: None}
        for row in found:
            row |= {"messages": json.loads(row["messages"]), "thumb": words[row["thumb"]],
                    "review": row["review"] or "waiting"}
        return [row for row in found if review in (None, row["review"])]

    def supervised(self) -> list[dict[str, Any]]:
        """Conversations to learn from: [{"messages": [...]}], the last turn the right answer.

        Of accepted entries: the correction where there is one, else the answer with a thumb up.
        Of several about one prompt the last counts.
        """
        good = {}
        for row in self.entries("accepted"):
            right = row["correction"] or (row["answer"] if row["thumb"] == "up" else None)
            if right:
                answered = [*row["messages"], {"role": "assistant", "content": right}]
                good[json.dumps(row["messages"])] = {"messages": answered}
        return list(good.values())

    def preferences(self) -> list[dict[str, Any]]:
        """Pairs to learn from: [{"prompt": [...], "chosen": text, "rejected": text}].

        Of accepted entries with a correction, which is preferred to the answer that was given.
        """
        found = {}
        for row in self.entries("accepted"):
            if row["correction"]:
                key = json.dumps(row["messages"]), row["answer"]
                found[key] = {"prompt": row["messages"], "chosen": row["correction"],
                              "rejected": row["answer"]}
        return list(found.values())

    def export(self, path: str | Path, what: str = "entries") -> Path:
        """Write a JSON Lines file, whole or not at all, and return its path.

        what: "entries" for all that was said; "supervised" or "preferences" for what ft.load_data
        reads. Raises SettingError where there is nothing to write.
        """
        made = {"entries": self.entries, "supervised": self.supervised,
                "preferences": self.preferences}
        if what not in made:
            raise SettingError(f"what is {what!r}; choose one of {', '.join(made)}.")
        rows = made[what]()
        if not rows:
            raise SettingError(f"there are no {what} in {self.path} yet; accepted entries become "
                               "examples (Feedback.review).")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic.write(Path(path), lines)
        return Path(path)


def _turns(prompt):
    """A prompt as turns of which the last is the user's. Raises DataError for anything else."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    for turn in turns:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str) or (
                turn.get("role") not in ("system", "user", "assistant")):
            raise DataError(f'{turn!r:.80} is no turn such as {{"role": "user", "content": "Hi"}}.')
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise DataError("the last turn has to be what the user asked, and not empty.")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]
