"""Chats as hosted fine-tuning services take them (the GPT family): written, checked and priced."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftkit.assets import atomic
from ftkit.display import markdown_table
from ftkit.errors import DataError, SettingError

FEWEST = 10  # examples that a service accepts
ROLES = ("system", "developer", "user", "assistant", "tool")
PER_MESSAGE = 3  # tokens that mark a turn's beginning, its role and its end, about
# What should not leave the house with a data set. Each is called by what it probably is.
PRIVATE = {"e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*[a-zA-Z]"),
           "API key": re.compile(r"\b(?:sk|pk|rk)-[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}"),
           "access token": re.compile(r"\b(?:gh[pousr]_\w{30,}|hf_[a-zA-Z]{20,}|xox[bp]-[\w-]{10,}"
                                      r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"),
           "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
           "password": re.compile(r"(?i)\bpass(?:word|wd)\s*[:=]\s*\S+")}
SHOWN = 5  # rows named for each kind of problem


@dataclass
class ChatFile:
    """What a file of chats holds, and what a service would refuse or should not see.

    problems: {what: numbers of its lines, from 1}, of what a service refuses. warnings: the same,
    of what it would take. tokens: of all chats; trained: of the assistant's turns; both by the
    tokenizer that was passed, which is not the service's own. cost: in the currency of the price,
    None without one.
    """

    path: Path
    chats: int
    problems: dict[str, list[int]]
    warnings: dict[str, list[int]]
    tokens: int | None = None
    trained: int | None = None
    longest: int | None = None
    epochs: int = 1
    cost: float | None = None
    roles: dict[str, int] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether nothing was found that a service refuses."""
        return not self.problems

    def __repr__(self) -> str:
        lines = [f"{self.path.name}: {self.chats:,} chats, "
                 + ("nothing found that a service would refuse" if self.accepted else
                    "a service would refuse it")]
        lines += [f"  refused: {_where(what, rows)}" for what, rows in self.problems.items()]
        lines += [f"  look at: {_where(what, rows)}" for what, rows in self.warnings.items()]
        if self.tokens is not None:
            lines.append(f"  {self.tokens:,} tokens, {self.trained:,} of them supervised, at most "
                         f"{self.longest:,} in a chat (counted by the tokenizer at hand)")
        if self.cost is not None:
            lines.append(f"  about {self.cost:,.2f} for {self.epochs} epochs at the price given")
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        rows = [["refused", what, _places(found)] for what, found in self.problems.items()]
        rows += [["look at", what, _places(found)] for what, found in self.warnings.items()]
        first, *rest = repr(self).splitlines()
        told = [line.strip() for line in rest if not line.startswith(("  refused", "  look at"))]
        table = markdown_table(["", "what", "lines"], rows) if rows else ""
        return "\n\n".join(filter(None, [first, table, *told]))


def export_chats(dataset: Any, path: str | Path, *, system: str = "") -> Path:
    """Write examples as chat JSONL, one `{"messages": [...]}` a line.

    dataset: rows with `messages`; with `prompt` and `response` in plain words; or with
    `instruction`, `output` and perhaps `input`. system: begins each chat that has no system turn.
    Written whole or not at all. Returns the path. Raises DataError for other columns.
    """
    columns = set(dataset.column_names)
    if "messages" in columns:
        chats = [list(turns) for turns in dataset["messages"]]
    elif {"prompt", "response"} <= columns:
        chats = [_pair(row["prompt"], row["response"]) for row in dataset]
    elif {"instruction", "output"} <= columns:
        chats = [_pair("\n".join(filter(None, [row["instruction"], row.get("input")])),
                       row["output"]) for row in dataset]
    else:
        raise DataError(f"the columns are {', '.join(sorted(columns))}; chats are made of "
                        "messages, of prompt and response, or of instruction, input and output.")
    if system:
        chats = [chat if chat and chat[0]["role"] in ("system", "developer") else
                 [{"role": "system", "content": system}, *chat] for chat in chats]
    path = Path(path)
    lines = (json.dumps({"messages": chat}, ensure_ascii=False) for chat in chats)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, "".join(f"{line}\n" for line in lines))
    return path


def check_chats(path: str | Path, tokenizer: Any = None, *, price: float | None = None,
                epochs: int = 3, longest: int = 16_384) -> ChatFile:
    """Read a file of chats as a hosted fine-tuning service would, before it is uploaded.

    path: of the JSONL file. tokenizer: a Model or a tokenizer, to count tokens with. price: of a
    million training tokens, in your currency; it needs a tokenizer. epochs: passes that are paid
    for. longest: tokens of a chat that the service reads; it cuts the rest, or refuses it.

    Refused are lines that are not JSON or hold no messages, roles that are unknown or out of order,
    empty turns, chats whose last turn is not the assistant's, weights other than 0 and 1, and fewer
    than ten chats. Looked at are duplicates, the same question with two answers, e-mail addresses
    and secrets. Returns a ChatFile. Raises SettingError for a price without a tokenizer, DataError
    for a file that is not there.
    """
    if price is not None and tokenizer is None:
        raise SettingError(f"price={price} needs a tokenizer to count tokens with; pass a model.")
    if epochs < 1:
        raise SettingError(f"epochs={epochs}: at least 1 is trained.")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}; export_chats writes one.")
    problems, warnings = _Found(), _Found()
    chats: dict[int, list[dict]] = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if not line.strip():
            problems.add("an empty line", number)
        elif turns := _read(line, number, problems):
            chats[number] = turns
    if len(chats) < FEWEST:
        problems.add(f"fewer than {FEWEST} chats that can be read", len(chats))
    for number, turns in chats.items():
        for what in dict.fromkeys(_of_turns(turns)):
            problems.add(what, number)
        text = "\n".join(_content(turn) for turn in turns)
        for what, pattern in PRIVATE.items():
            if pattern.search(text):
                warnings.add(f"{what} in it", number)
    _repeated(chats, warnings)
    found = ChatFile(path, len(chats), dict(problems), dict(warnings), epochs=epochs)
    found.roles = dict(Counter(str(t.get("role")) for turns in chats.values() for t in turns))
    if tokenizer is not None:
        tokens = _count(found, chats, getattr(tokenizer, "tokenizer", tokenizer), longest)
        if price is not None:
            found.cost = tokens * epochs * price / 1e6
    return found


class _Found(dict):
    def add(self, what, number):
        self.setdefault(what, []).append(number)


def _pair(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _read(line, number, problems):
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return problems.add(f"no JSON ({error.msg})", number)
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) for t in turns):
        return problems.add('no list "messages" of turns', number)
    return turns


def _of_turns(turns: list[dict]) -> Iterable[str]:
    """Yield what a service refuses in a chat."""
    spoken = [turn.get("role") for turn in turns]
    for turn in turns:
        role = turn.get("role")
        if role not in ROLES:
            yield f"role {role!r}; known are {', '.join(ROLES)}"
        calls = role == "assistant" and (turn.get("tool_calls") or turn.get("function_call"))
        if not isinstance(turn.get("content"), (str, list)) and not calls:
            yield f"a turn of {role} has no content"
        elif not calls and not _content(turn).strip():
            yield f"a turn of {role} is empty"
        if turn.get("weight", 1) not in (0, 1):
            yield f"weight {turn['weight']!r}; 0 and 1 are known"
    if any(role in ("system", "developer") for role in spoken[1:]):
        yield "a system turn that is not the first"
    said = [role for role in spoken if role in ("user", "assistant")]
    if said[:1] != ["user"]:
        yield "no user speaks first"
    if spoken[-1] != "assistant":
        yield "the last turn is not the assistant's"
    elif not any(turn.get("weight", 1) for turn in turns if turn.get("role") == "assistant"):
        yield "all of the assistant's turns have weight 0: nothing is trained on"


def _content(turn):
    content = turn.get("content")
    if isinstance(content, list):  # parts, of which those of text are read
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _repeated(chats, warnings):
    whole, asked = {}, {}
    for number, turns in chats.items():
        key = [(turn.get("role"), " ".join(_content(turn).split())) for turn in turns]
        question, answer = tuple(key[:-1]), key[-1][1]
        if tuple(key) in whole:
            warnings.add("the same chat as one before", number)
        elif asked.setdefault(question, answer) != answer:
            warnings.add("the same question with another answer", number)
        whole[tuple(key)] = number


def _count(found, chats, tokenizer, longest):
    sizes, found.trained = [], 0
    for number, turns in chats.items():
        counts = [len(tokenizer(_content(turn), add_special_tokens=False)["input_ids"])
                  for turn in turns]
        sizes.append(sum(counts) + PER_MESSAGE * len(turns))
        found.trained += sum(count for count, turn in zip(counts, turns, strict=True)
                             if turn.get("role") == "assistant" and turn.get("weight", 1))
        if sizes[-1] > longest:
            found.warnings.setdefault(f"longer than {longest:,} tokens", []).append(number)
    found.tokens, found.longest = sum(sizes), max(sizes, default=0)
    return found.tokens


def _where(what, rows):
    if what.startswith("fewer than"):
        return f"{what}: {rows[0]}"
    return f"{what}: line{'s' if len(rows) > 1 else ''} {_places(rows)}"


def _places(rows):
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(map(str, rows[:SHOWN])) + more
