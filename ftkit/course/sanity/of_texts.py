"""Checks of what the network reads: tokens, labels, prompts, padding, packing."""

from contextlib import contextmanager

import torch

from ftkit.course.sanity.observed import far, logits_of, rounding
from ftkit.course.sanity.registry import Found, checks, not_asked
from ftkit.data.conversations import beginning, end_tokens
from ftkit.data.templates import as_prompt_and_response
from ftkit.evaluation.predict import predict
from ftkit.models.structure import IGNORED, at_rest, inner
from ftkit.speed import padding_free
from ftkit.speed.attention import kernel
from ftkit.training import fit

ONLY_ANSWERS = "the rows are no prompts with answers"


def _learned(labels):
    return [label for label in labels if label != IGNORED]


@checks("something carries loss", "some label of a batch is not ignored",
        "print the labels of a batch; all -100 means that masking went too far")
def something_carries_loss(observed):
    labels = observed.batch["labels"]
    count = int((labels != IGNORED).sum())
    return Found(count > 0, f"{count} of {labels.numel()} labels", "more than 0")


@checks("prompts carry no loss", "no more tokens are learned than the answer has",
        "mask the prompt's labels with -100 (loss_on=\"response\")")
def prompts_carry_no_loss(observed):
    if not observed.writes or "messages" in observed.rows.column_names:
        return not_asked(ONLY_ANSWERS)
    _, answers = as_prompt_and_response(observed.rows, observed.model.tokenizer)
    known = observed.model.tokenizer(answers, add_special_tokens=False)["input_ids"]
    over = [i for i, (row, ids) in enumerate(zip(observed.encoded.rows, known, strict=True))
            if len(_learned(row["labels"])) > len(ids) + 2]
    return Found(not over, f"{len(over)} of {len(known)} rows learn more than their answer",
                 "0 rows")


@checks("the end is learned", "the token that ends an answer keeps its label in the batch",
        "mask padding by the attention mask, or give padding a token of its own")
def the_end_is_learned(observed):
    if not observed.writes:
        return not_asked(ONLY_ANSWERS)
    ends = torch.tensor(sorted(end_tokens(observed.model.tokenizer)))
    given = torch.tensor([label for row in observed.encoded.rows for label in row["labels"]])
    before = int(torch.isin(given, ends).sum())
    left = int(torch.isin(observed.batch["labels"], ends).sum())
    if not (observed.batch["labels"] != IGNORED).any():
        return not_asked("the batch carries no loss at all")
    return Found(left >= before, f"{left} of {before} end tokens", f"all {before}")


def _whole(observed):
    """The numbers of the rows that were not cut."""
    cut = set(observed.encoded.cut.rows.tolist())
    return [i for i in range(len(observed.encoded)) if i not in cut]


@checks("answers end with the end token", "the last token learned is one at which generation stops",
        "append tokenizer.eos_token, or the chat template's end of a turn")
def answers_end_with_the_end_token(observed):
    if not observed.writes:
        return not_asked(ONLY_ANSWERS)
    ends = end_tokens(observed.model.tokenizer)
    rows = [observed.encoded.rows[i] for i in _whole(observed)]
    last = [found[-1] for row in rows if (found := _learned(row["labels"]))]
    odd = [token for token in last if token not in ends]
    said = observed.model.tokenizer.convert_ids_to_tokens(odd[:1] or last[:1])
    return Found(not odd, f"{len(odd)} of {len(last)} end otherwise; one ends in {said}",
                 f"{observed.model.tokenizer.convert_ids_to_tokens(sorted(ends))}")


@checks("one beginning", "the token that begins a text stands there once",
        "tokenize what a template wrote with add_special_tokens=False")
def one_beginning(observed):
    first = observed.model.tokenizer.bos_token_id
    if not observed.model.spec.next_token or first is None:
        return not_asked("texts have no token that begins them")
    double = sum(row["input_ids"][:2] == [first, first] for row in observed.encoded.rows)
    return Found(not double, f"{double} of {len(observed.encoded)} rows begin twice", "0 rows")


@checks("the beginning is there", "a text begins with what the tokenizer puts before one",
        "tokenize with special tokens, or put tokenizer.bos_token before the text")
def the_beginning_is_there(observed):
    first = beginning(observed.model.tokenizer)
    if not observed.model.spec.next_token or not first:
        return not_asked("this tokenizer puts nothing before a text")
    n = len(first)
    without = sum(row["input_ids"][:n] != first for row in observed.encoded.rows)
    return Found(not without, f"{without} of {len(observed.encoded)} rows without it", "0 rows")


@checks("answers are whole", "no answer was cut at the limit of tokens",
        'raise max_length, or cut prompts: model.tokenizer.truncation_side = "left"')
def answers_are_whole(observed):
    if not observed.writes:
        return not_asked(ONLY_ANSWERS)
    cut = observed.encoded.cut
    return Found(not len(cut.answers), f"{len(cut.answers)} of {len(cut.whole)} answers were cut",
                 "0 answers")


@checks("labels are the tokens", "a label is the token at its own place, before the model shifts",
        "give labels as a copy of the inputs; the model shifts them")
def labels_are_the_tokens(observed):
    if not observed.model.spec.next_token:
        return not_asked("labels are no tokens of the text")
    labels, ids = observed.batch["labels"], observed.batch["input_ids"]
    learned = labels != IGNORED
    if not learned.any():
        return not_asked("the batch carries no loss at all")
    wrong = int((labels[learned] != ids[learned]).sum())
    return Found(not wrong, f"{wrong} of {int(learned.sum())} labels differ", "0 labels")


@checks("asked as trained", "what generation reads is how a training row begins",
        "write the prompt with one function, in training and in use")
def asked_as_trained(observed):
    rows = _whole(observed)
    if not observed.writes or not rows:
        return not_asked(ONLY_ANSWERS if rows else "every row was cut")
    trained = observed.encoded.rows[rows[0]]["input_ids"]
    row = observed.rows.select([rows[0]])
    predict(observed.model, row, max_new_tokens=1)  # the first time, the kit tries a model out
    with _reading(observed.model) as seen:
        predict(observed.model, row, max_new_tokens=1)
    same = trained[: len(seen)] == seen
    place = next((i for i, (a, b) in enumerate(zip(trained, seen, strict=False)) if a != b), 0)
    tokens = observed.model.tokenizer
    return Found(
        same,
        "the same tokens" if same else f"from token {place} on {tokens.decode(seen[place:])!r:.40}",
        "the same tokens" if same else f"{tokens.decode(trained[place:])!r:.40}",
    )


@contextmanager
def _reading(model):
    """While open, the token ids that a network reads are put into the list that it yields."""
    seen = []

    def note(module, given):
        seen.extend(given[0][0].tolist())

    hook = inner(model.net).get_input_embeddings().register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


@checks("padding changes nothing", "a text alone gives what it gives beside a longer one",
        "pass attention_mask, and positions that do not count padding")
def padding_changes_nothing(observed):
    rows, collate = observed.encoded, fit.Collator(observed.model)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    short, long = rows[order[0]], rows[order[-1]]
    width = len(short["input_ids"])
    if width == len(long["input_ids"]):
        return not_asked("all texts have the same length")
    alone, beside = (
        logits_of(observed.model, {k: v for k, v in collate(part).items() if k != "labels"})[0]
        for part in ([short], [short, long])
    )
    if beside.dim() == 2:  # logits of each token
        alone, beside = alone[:width], beside[:width]
    away, near = far(alone, beside), rounding(observed.model)
    return Found(away < near, f"logits differ by {away:.1e} of their size", f"below {near:g}")


@checks("packed texts are apart", "a text is read the same whatever stands before it in the row",
        "tell attention where each text begins")
def packed_texts_are_apart(observed):
    net = observed.model.net
    if not observed.model.spec.next_token:
        return not_asked("only decoders are packed")
    rows = [observed.encoded.rows[i]["input_ids"][:32] for i in range(3)]
    try:
        with torch.no_grad(), at_rest(net), kernel(inner(net), padding_free.NAME):
            one, two = (padding_free.text_states(net, text, rows[2]) for text in rows[:2])
    except (ValueError, TypeError, NotImplementedError):
        return not_asked("this model is not packed")
    away, near = far(one, two), rounding(observed.model)
    return Found(away < near, f"hidden states differ by {away:.1e} of their size",
                 f"below {near:g}")
