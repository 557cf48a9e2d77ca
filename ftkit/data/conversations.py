"""How a decoder's tokenizer begins a text, ends an answer and writes a conversation.

One rule for training, scoring and generation: a text begins with what the tokenizer puts before
one (BOS), once; an answer ends with the token that ends a turn in the template that wrote its
prompt, or with the tokenizer's eos where no template did.
"""

import jinja2

from ftkit.errors import DataError, SettingError

QUESTION, ANSWER = "ftkit asks", "ftkit answers"  # words to find in what a template writes
HEADINGS = {"user": "### Instruction:\n{}\n\n### Response:\n", "tool": "### Tool:\n{}\n\n"}


def beginning(tokenizer):
    """The tokens that a tokenizer puts before a text, such as its BOS; [] where it puts none."""
    alone = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(alone) + 1):
        if alone and whole[start : start + len(alone)] == alone:
            return whole[:start]
    return []


def begun(rows, tokenizer):
    """Rows of token ids, each behind what the tokenizer puts before a text, once."""
    first = beginning(tokenizer)
    if not first:
        return rows
    n, found = len(first), []
    for row in rows:
        while row[:n] == first and row[n : 2 * n] == first:
            row = row[n:]
        found.append(row if row[:n] == first else [*first, *row])
    return found


def turn_marks(tokenizer):
    """What a chat template writes between a question and its answer, and what ends the answer.

    Returns (opening, ends): a string, and the ids of the special tokens directly behind an answer,
    mostly one; "" and [] where there are none.
    """
    if not getattr(tokenizer, "chat_template", None):
        return "", []
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        asked = _rendered(turns[:1], tokenizer, True)
        answered = _rendered(turns, tokenizer)
    except jinja2.TemplateError:
        return "", []
    opening = asked.rpartition(QUESTION)[2] if QUESTION in asked else ""
    tail = answered.rpartition(ANSWER)[2].lstrip() if ANSWER in answered else ""
    special, ends = _special(tokenizer), []
    for token in tokenizer(tail, add_special_tokens=False)["input_ids"]:
        if token not in special:
            break
        ends.append(token)
    return opening, ends


def end_tokens(tokenizer):
    """The ids of the tokens that may end an answer: eos, and the last of what ends a turn."""
    return {tokenizer.eos_token_id, *turn_marks(tokenizer)[1][-1:]}


def _special(tokenizer):
    """The special tokens of a tokenizer, by their ids."""
    added = tokenizer.added_tokens_decoder.items()
    found = {number: token.content for number, token in added if token.special}
    return found | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def answer_ends(prompts, tokenizer):
    """The tokens that end the answer to each prompt: the template's, where it wrote the prompt."""
    opening, ends = turn_marks(tokenizer)
    eos = tokenizer.eos_token_id
    found = [ends if ends and opening and prompt.endswith(opening) else [eos] for prompt in prompts]
    if [None] in found:
        raise SettingError("the tokenizer has no eos token, so an answer could not end. Set one, "
                           'such as model.tokenizer.eos_token = "</s>".')
    return found


def opened(turns, tokenizer):
    """A conversation as text, up to where the assistant's next turn begins."""
    if not getattr(tokenizer, "chat_template", None):
        return _plain(turns, "" if tokenizer is None else tokenizer.eos_token)[0]
    try:
        return _rendered(turns, tokenizer, True)
    except jinja2.TemplateError as error:
        raise DataError(f"the chat template refuses a conversation: {error}") from None


def conversation_tokens(conversations, tokenizer):
    """Token ids of conversations, and which of them the assistant writes.

    conversations: lists of turns, dicts of role and content. All of the assistant's turns count,
    each with the token that ends it: those that the template marks with {% generation %}; where it
    marks none, a turn begins where a prompt of the turns before it would end.
    Returns two lists of lists: ids, and True for each token to be learned.
    Raises DataError, naming the row, where the template refuses a conversation or rewrites turns.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not tokenizer.is_fast:
        raise SettingError("conversations need a fast tokenizer, which knows the place of a token.")
    _, ends = turn_marks(tokenizer)
    known = sorted(_special(tokenizer).values(), key=len, reverse=True) if ends else []
    texts, spans, shapes = [], [], {}
    for i, turns in enumerate(conversations):
        try:
            if template and "{% generation" in template.replace("{%-", "{%"):
                text, own = _marked(turns, tokenizer)
            elif template:
                roles = tuple(turn["role"] for turn in turns)
                if roles not in shapes:
                    shapes[roles] = _shape(roles, tokenizer)
                text, own = _located(turns, tokenizer, shapes[roles])
            else:
                text, own = _plain(turns, tokenizer.eos_token)
        except jinja2.TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise DataError(f"row {i}: the chat template refuses this conversation "
                            f"({roles}): {error}") from None
        except DataError as error:
            raise DataError(f"row {i}: {error}") from None
        texts.append(text)
        spans.append(_ended(text, own, tokenizer, ends, known))
    tokens = tokenizer([text + tail for text, (tail, _) in zip(texts, spans, strict=True)],
                       add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, learned = begun(tokens["input_ids"], tokenizer), []
    for row, begun_row, offsets, (_, own) in zip(
        tokens["input_ids"], ids, tokens["offset_mapping"], spans, strict=True
    ):
        extra = len(begun_row) - len(row)
        offsets = [(0, 0)] * extra + offsets[max(0, -extra) :]
        learned.append(_inside(offsets, own))
    return ids, learned


def _inside(offsets, spans):
    """Whether each token holds a character of one of the spans, both in order."""
    found, place = [], 0
    for begin, end in offsets:
        while place < len(spans) and spans[place][1] <= begin:
            place += 1
        found.append(place < len(spans) and end > spans[place][0] and end > begin)
    return found


def _rendered(turns, tokenizer, prompt=False):
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)


def _marked(turns, tokenizer):
    """The text of a conversation, and the spans that the template marks as the assistant's."""
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    found = tokenizer.apply_chat_template(turns, return_dict=True,
                                          return_assistant_tokens_mask=True,
                                          tokenizer_kwargs={"return_offsets_mapping": True})
    spans = []
    for (begin, end), on in zip(found["offset_mapping"], found["assistant_masks"], strict=True):
        if on and spans and spans[-1][1] >= begin:
            spans[-1] = (spans[-1][0], end)
        elif on:
            spans.append((begin, end))
    text, at = _rendered(turns, tokenizer), 0
    for i, turn in enumerate(turns):
        if turn["role"] == "assistant":
            at = text.find(_words(turn), at)
            if at < 0:
                raise DataError(f"the chat template does not write what turn {i + 1} says.")
    return text, spans


def _words(turn):
    """What a template writes of an answer in any case; it may leave out or rewrite a thought."""
    return turn["content"].rpartition("</think>")[2].strip()


def _located(turns, tokenizer, shape=None):
    """The text of a conversation, and the spans that the assistant writes in it.

    shape: of the roles; where the text has it, no prompts need to be written to find the answers.
    """
    text, spans = _rendered(turns, tokenizer), []
    known = _starts(turns, text, shape)
    for i, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        start = known[i] if known else _start(
            text, turns[:i], tokenizer, spans[-1][1] if spans else 0)
        words = _words(turn)
        at = text.find(words, start) if start is not None else -1
        if at < 0:
            raise DataError(f"the chat template writes turn {i + 1} otherwise than it stands in "
                            "the data, or earlier turns otherwise once more follow, so it cannot "
                            "be told what the assistant writes. Mark it in the template with {% "
                            "generation %}, or give each answer a row of its own.")
        # before the words may stand what the template adds to an answer, such as an empty thought
        spans.append((start, at + len(words)))
    return text, spans


def _shape(roles, tokenizer):
    """How a template writes turns of these roles; None where their words are not left as they are.

    Returns (pieces, leads): the texts between the words of the turns, and of each of the
    assistant's turns, by number, how many characters stand between its start and its words.
    """
    turns = [{"role": role, "content": f"{ANSWER} {i}."} for i, role in enumerate(roles)]
    try:
        text, spans = _located(turns, tokenizer)
    except (DataError, jinja2.TemplateError):
        return None
    pieces, leads, end, starts = [], {}, 0, iter(spans)
    for i, turn in enumerate(turns):
        begin = text.find(turn["content"], end)
        if begin < 0:
            return None
        pieces.append(text[end:begin])
        if turn["role"] == "assistant":
            leads[i] = begin - next(starts)[0]
            if not 0 <= leads[i] <= len(pieces[-1]):
                return None
        end = begin + len(turn["content"])
    return [*pieces, text[end:]], leads


def _starts(turns, text, shape):
    """Where each of the assistant's turns begins in a text of this shape; {} if it has another."""
    if shape is None:
        return {}
    (first, *others), leads = shape
    written, starts = first, {}
    for i, (turn, piece) in enumerate(zip(turns, others, strict=True)):
        if i in leads:
            starts[i] = len(written) - leads[i]
        written += turn["content"] + piece
    return starts if written == text else {}


def _start(text, before, tokenizer, at_least):
    """Where the assistant's turn after these begins in the text; None where that cannot be told."""
    if not before:
        return at_least
    try:
        for prompt in (True, False):
            written = _rendered(before, tokenizer, prompt)
            if text.startswith(written) and len(written) >= at_least:
                if prompt:
                    return len(written)
                # The prompt opens the answer with something of its own, such as a thought.
                opening = _rendered(before, tokenizer, True)[len(written):]
                shared = [n for n in range(len(opening), 0, -1)
                          if text.startswith(opening[:n], len(written))]
                return len(written) + (shared[0] if shared else 0)
    except jinja2.TemplateError:  # it takes no conversation that ends here
        return at_least
    return None


def _ended(text, spans, tokenizer, ends, known):
    """What to put behind the text, and the spans with what ends a turn in each of them.

    Where the template writes nothing, eos ends the last turn. known: special tokens, longest first.
    """
    mark, found = "".join(tokenizer.convert_ids_to_tokens(ends)), []
    for begin, stop in spans:
        at = text.find(mark, max(begin, stop - len(mark))) if mark else -1
        if at >= 0 and not text[stop:at].strip():
            stop = at + len(mark)
        elif not any(text[begin:stop].rstrip().endswith(token) for token in known):
            # a turn that others follow may end otherwise than the last one
            gap = len(text[stop:]) - len(text[stop:].lstrip())
            other = next((t for t in known if text.startswith(t, stop + gap)), None)
            stop += gap + len(other) if other else 0
        found.append((begin, stop))
    tail = ""
    if found and not ends and not text[found[-1][1] :].strip():
        tail = tokenizer.convert_ids_to_tokens(answer_ends([""], tokenizer)[0])[0]
        tail = "" if text.endswith(tail) else tail
        found[-1] = (found[-1][0], len(text) + len(tail))
    return tail, found


def _plain(turns, eos):
    """A conversation under headings, for a tokenizer without a template, and the answers' spans."""
    text, spans = "", []
    for turn in turns:
        if turn["role"] != "assistant":
            text += HEADINGS.get(turn["role"], "{}\n\n").format(turn["content"])
            continue
        spans.append((len(text), len(text) + len(turn["content"]) + len(eos or "")))
        text += turn["content"] + (eos or "") + "\n\n"
    return (text[:-2] if turns and turns[-1]["role"] == "assistant" else text), spans
