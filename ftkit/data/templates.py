"""Prompts as text: few-shot examples, chat templates, and which columns hold them."""

from ftkit.data.conversations import opened
from ftkit.errors import DataError, SettingError

PLAIN = "### Instruction:\n{question}\n\n### Response:\n"


def few_shot(examples, question, *, template="Q: {question}\nA: {answer}", instruction=""):
    """A prompt that shows solved examples and then asks a question.

    examples: (question, answer) pairs, or dicts with the template's fields. question: a string, or
    a dict with the template's fields but `answer`. The prompt ends where the answer would begin,
    without a trailing space: a decoder's words carry their space in front.
    Returns a string. Raises DataError for an example that lacks a field of the template.
    """
    if "{answer}" not in template:
        raise SettingError(f"template {template!r} has no {{answer}}; the examples need one.")

    def fill(fields):
        try:
            return template.format(**fields)
        except KeyError as missing:
            raise DataError(f"{fields!r} lacks the field {missing} of the template.") from None

    shown = [fill(e if isinstance(e, dict) else dict(zip(("question", "answer"), e, strict=True)))
             for e in examples]
    asked = question if isinstance(question, dict) else {"question": question}
    open_end = template[: template.index("{answer}")].rstrip(" ")
    last = open_end.format(**{**asked, "answer": ""})
    return "\n\n".join([instruction, *shown, last] if instruction else [*shown, last])


def apply_template(record, tokenizer=None, *, system=None):
    """Turn an instruction record into what the model reads and what it shall answer.

    record: a dict with `instruction`, `output` and perhaps `input`, or with `messages`, of which
    the assistant's last is the answer. With a tokenizer that has a chat template, the record
    becomes one turn of that chat (`system`: its system message); else a plain frame with headings
    is used.
    Returns (prompt, response), two strings; the prompt ends where the response begins.
    """
    if "messages" in record:
        return _last_answer(record["messages"], tokenizer)
    question = "\n".join(filter(None, [record["instruction"], record.get("input")]))
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        return PLAIN.format(question=question), record.get("output", "")
    messages = [{"role": "user", "content": question}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return prompt, record.get("output", "")


def as_prompt_and_response(dataset, tokenizer, *, chat=True):
    """Lists of prompts and responses of a data set, whichever columns it has.

    dataset: columns `messages` (through the template; the assistant's last turn is the response),
    `prompt` and `response` (used as they are; a prompt of turns through the template),
    `instruction` and `output` (through the template), `source` and `target`, or `question` and
    `answers` (the first counts).
    Raises DataError when it has none of these pairs.
    """
    names = dataset.column_names
    if "messages" in names:
        pairs = [_last_answer(turns, tokenizer if chat else None) for turns in dataset["messages"]]
        return [p for p, _ in pairs], [r for _, r in pairs]
    if {"prompt", "response"} <= set(names):
        prompts = [p if isinstance(p, str | None) else opened(p, tokenizer if chat else None)
                   for p in dataset["prompt"][:]]
        return prompts, dataset["response"][:]
    if {"instruction", "output"} <= set(names):
        pairs = [apply_template(row, tokenizer if chat else None) for row in dataset]
        return [p for p, _ in pairs], [r for _, r in pairs]
    if {"source", "target"} <= set(names):
        return dataset["source"][:], dataset["target"][:]
    if {"question", "answers"} <= set(names):
        prompts = [few_shot([], q) for q in dataset["question"]]
        return prompts, [" " + answers[0] for answers in dataset["answers"]]
    if {"chosen", "rejected"} <= set(names):
        raise DataError("pairs of a chosen and a rejected answer are learned with a loss that "
                        "compares the two (lesson 14). To learn the chosen answers alone, rename "
                        'the column: data.rename_column("chosen", "response").')
    raise DataError("columns text, messages, prompt and response, instruction and output, source "
                    "and target, or question and answers were expected; the data has "
                    f"{', '.join(names)}.")


def _last_answer(turns, tokenizer):
    """The prompt and the answer of a conversation: all up to the assistant's last turn, and it."""
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
    return opened(turns[:last], tokenizer), turns[last]["content"]
