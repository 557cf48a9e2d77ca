"""Conversations and preferences as people store them, brought to one form.

`messages` (OpenAI, TRL), `conversations` (ShareGPT), `prompt` and `completion`, and `prompt`,
`chosen` and `rejected`, each of texts or of turns.
"""

from __future__ import annotations

import json

from ftkit.data.files import Columns, count
from ftkit.errors import DataError

ROLES = {"system": "system", "developer": "system",
         "user": "user", "human": "user", "prompter": "user", "instruction": "user",
         "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
         "model": "assistant", "bard": "assistant", "bing": "assistant",
         "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool"}
_ROLE, _CONTENT = ("role", "from"), ("content", "value")
_CHATS = ("messages", "conversations", "conversation")


def recognized(columns: Columns, source: str) -> Columns:
    """Return the columns with conversations as `messages` and answers as `response`.

    `messages`: turns, dicts of `role` ("system", "user", "assistant" or "tool") and `content`.
    Raises DataError, naming row and turn, for a turn that lacks one of the two or has an unknown
    role, and for a conversation in which nobody answers.
    """
    found = dict(columns)
    name = next((name for name in _CHATS if name in columns), None)
    if name and (name == "messages" or _has_turns(columns[name], written=True)):
        chats = found.pop(name)
        systems = found.pop("system", None) or [None] * len(chats)
        found["messages"] = [
            _with_system(_turns(chat, f"{source}, row {i}", name), system)
            for i, (chat, system) in enumerate(zip(chats, systems, strict=True), 1)
        ]
    if {"chosen", "rejected"} <= found.keys():
        found |= _preferences(found, source)
    elif "completion" in found and "response" not in found and "prompt" in found:
        found["response"] = found.pop("completion")
    if {"prompt", "response"} <= found.keys() and (
        _has_turns(found["prompt"]) or _has_turns(found["response"])
    ):
        found["messages"] = [_turns(prompt, f"{source}, row {i}", "prompt", "user")
                             + _turns(answer, f"{source}, row {i}", "completion", "assistant")
                             for i, (prompt, answer) in enumerate(
                                 zip(found.pop("prompt"), found.pop("response"), strict=True), 1
                             )]
    for i, chat in enumerate(found.get("messages", ()), 1):
        if chat and not any(turn["role"] == "assistant" for turn in chat):
            raise DataError(f"{source}, row {i}: none of the {len(chat)} turns is the assistant's, "
                            "so there is no answer to learn from. Take the row out, or add its "
                            "answer.")
    return found


def _has_turns(values: list, written: bool = False) -> bool:
    """Tell whether a column holds conversations. written: also as JSON in a text, as in a CSV."""
    first = next((value for value in values if value), None)
    if written and isinstance(first, str):
        return first.lstrip().startswith("[{")
    return isinstance(first, list) and all(isinstance(turn, dict) for turn in first)


def _turns(chat, where: str, name: str, alone: str | None = None) -> list[dict]:
    """Return the turns of a conversation. alone: whose words a plain text is, if it may be one."""
    if isinstance(chat, str) and not alone:
        try:
            chat = json.loads(chat)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: {name} is a text, and no JSON: {error}") from None
    if isinstance(chat, str) and alone:
        return [{"role": alone, "content": chat}]
    if chat is None:
        return []  # an empty field, which is counted with the others
    if not isinstance(chat, list):
        raise DataError(f"{where}: {name} is a {type(chat).__name__}; a list of turns was "
                        'expected, such as [{"role": "user", "content": "Hello"}, …].')
    found = []
    for number, turn in enumerate(chat, 1):
        place = f"{where}, turn {number}"
        if not isinstance(turn, dict):
            raise DataError(f"{place} is {turn!r:.60}; expected an object with role and content.")
        role = next((turn[key] for key in _ROLE if turn.get(key) is not None), None)
        content = next((turn[key] for key in _CONTENT if turn.get(key) is not None), None)
        if role is None or content is None:
            lacks = "role (or from)" if role is None else "content (or value)"
            raise DataError(f"{place} has no {lacks}: {json.dumps(turn, default=str):.80}. Turns "
                            "that call tools are not read; take such rows out.")
        if str(role).lower() not in ROLES:
            raise DataError(f"{place} has the role {role!r}; expected one of {', '.join(ROLES)}.")
        found.append({"role": ROLES[str(role).lower()], "content": _text(content, place)})
    return found


def _text(content, place: str) -> str:
    """Return the text of a turn, which may be given in parts."""
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise DataError(f"{place}: the content is {content!r:.60}; a text was expected.")
    return content


def _with_system(turns: list[dict], system) -> list[dict]:
    """Return the turns behind the system message that stands in a column of its own."""
    if not system or not turns or turns[0]["role"] == "system":
        return turns
    return [{"role": "system", "content": str(system)}, *turns]


def _preferences(columns: Columns, source: str) -> Columns:
    """Return `prompt`, a text or turns, `chosen` and `rejected`, which both begin with it."""
    rows = count(columns)
    found: Columns = {"prompt": [], "chosen": [], "rejected": []}
    chats = _has_turns(columns["chosen"]) or _has_turns(columns["rejected"])
    prompts = columns.get("prompt", [None] * rows)
    for i, (prompt, good, bad) in enumerate(
        zip(prompts, columns["chosen"], columns["rejected"], strict=True), 1
    ):
        where = f"{source}, row {i}"
        if not good or not bad:
            row = (prompt or "", good or None, bad or None)
        elif not chats:
            if prompt is None:
                prompt = _common(str(good), str(bad))
                good, bad = str(good)[len(prompt):], str(bad)[len(prompt):]
            row = (prompt, good, bad)
        else:
            asked = _turns(prompt, where, "prompt", "user")
            good, bad = _turns(good, where, "chosen"), _turns(bad, where, "rejected")
            shared = 0
            while shared < min(len(good), len(bad)) - 1 and good[shared] == bad[shared]:
                shared += 1
            asked = asked if good[:len(asked)] == asked else asked + good[:shared]
            asked = good[:shared] if len(asked) < shared else asked
            ends = [turns[shared:] for turns in (good, bad)]
            if any([turn["role"] for turn in end] != ["assistant"] for end in ends):
                raise DataError(f"{where}: chosen and rejected must be one answer of the assistant "
                                "each, after the same turns.")
            row = (asked, ends[0][0]["content"], ends[1][0]["content"])
        for name, value in zip(found, row, strict=True):
            found[name].append(value)
    return found


def _common(one: str, two: str) -> str:
    """Return what two texts begin with, up to the last blank in it."""
    n = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
             min(len(one), len(two)))
    while n and not one[n - 1].isspace():
        n -= 1
    return one[:n].rstrip(" ")
