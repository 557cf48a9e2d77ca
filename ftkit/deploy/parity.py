"""Whether two models are the same in use: tokens, template, end of answers, logits, answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ftkit.data.conversations import begun, opened
from ftkit.display import Table
from ftkit.errors import DataError, SettingError
from ftkit.evaluation.generation import end_ids
from ftkit.models.model import Model

ROUNDING = 1e-3  # what float32 logits differ by when the same sums are taken in another order
UNSEEN = "not seen from outside"
# A conversation that shows all that a template writes: with a system turn, and after an answer.
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day."}, {"role": "user", "content": "Bye"}]


@dataclass(frozen=True)
class Parity:
    """What is the same in two models and what is not.

    rows: the table, a dict of strings for each aspect. findings: what differs beyond rounding, in
    words; none means parity. logits: the largest difference over all prompts and positions, None
    where it could not be taken. tolerance: up to which it counts as rounding. top1: share of
    positions (0 to 1) at which both have the same token, or class, on top. kl: mean KL divergence
    of b from a, nats a position; kl_max: the largest. first_difference: (prompt, token) of the
    first answer that parts, None where none does. precision: of the weights of either side.
    answers: pairs of texts, [] of models that do not write.
    """

    rows: list[dict[str, str]]
    findings: list[str]
    logits: float | None
    tolerance: float
    top1: float | None
    kl: float | None
    kl_max: float | None
    first_difference: tuple[int, int] | None
    precision: tuple[str, str]
    answers: list[tuple[str, str]]

    @property
    def same(self) -> bool:
        """Whether nothing differs beyond rounding."""
        return not self.findings

    def table(self) -> Table:
        """All aspects as a table."""
        verdict = "the same" if self.same else "; ".join(self.findings)
        return Table(self.rows, f"parity: {verdict}")

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def parity(a: Model, b: Any, prompts: Sequence[str | list[dict]], *, max_new_tokens: int = 24,
           tolerance: float | None = None) -> Parity:
    """Compare two models that ought to be the same: merged, loaded again, exported, served.

    a: a Model. b: another, or the Service of ft.serve, or a function from a prompt to its answer:
    of the latter two only the answers can be compared. prompts: strings, or conversations (lists of
    {"role", "content"}); a string is one turn of the user where a decoder has a chat template.
    Each layer is compared by itself, so that one fault shows once: the tokenizer on the plain
    texts, the names of the labels, the template as text, the logits of both on the tokens of `a`,
    and greedy answers of `max_new_tokens` tokens from end to end.
    tolerance: how far logits may differ; by default 1e-3, or four steps of the coarser format at
    the largest logit. Answers that part where the two tokens lie within that are rounding, too.
    Returns a Parity, which shows itself as a table.
    Raises SettingError without prompts, and for models of different tasks or without logits.
    """
    if not prompts:
        raise SettingError("parity needs prompts; give some as they will come in use.")
    if isinstance(prompts, str):
        raise SettingError(f"prompts is one string, {prompts!r:.40}; give a list of them.")
    if isinstance(b, Model):
        if a.task != b.task:
            raise SettingError(f"{a.name} is for {a.task!r} and {b.name} for {b.task!r}; load both "
                               "for one task.")
        return _of_models(a, b, prompts, max_new_tokens, tolerance)
    if not a.spec.next_token:
        raise SettingError(f"{a.name} is for {a.task!r} and writes no answers; give two models, "
                           "not a function.")
    if hasattr(b, "answer"):
        return _of_answers(a, partial(b.answer, max_new_tokens=max_new_tokens), prompts,
                           max_new_tokens, tolerance)
    return _of_answers(a, b, prompts, max_new_tokens, tolerance)


def _of_models(a, b, prompts, limit, tolerance):
    rows, findings = [], []
    _row(rows, "precision", precision(a), precision(b), None, "")
    _tokens(a, b, prompts, rows, findings)
    if a.spec.labelled:
        shown = [", ".join(map(str, model.labels or [])) for model in (a, b)]
        _row(rows, "labels", *shown, a.labels == b.labels, "")
        if a.labels != b.labels:
            findings.append(f"the labels differ ({shown[0]}; {shown[1]})")
    if a.spec.next_token:
        _templates(a, b, rows, findings)
        _ends(a, b, rows, findings)
    inputs = [[encoded(model, prompt) for prompt in prompts] for model in (a, b)]
    beyond = _beyond(a, inputs[0]) or _beyond(b, inputs[1])
    if beyond:
        _row(rows, "logits", "", "", False, beyond)
        findings.append(beyond)
        numbers = dict.fromkeys(("logits", "top1", "kl", "kl_max")) | {
            "tolerance": ROUNDING if tolerance is None else tolerance}
        return Parity(rows, findings, first_difference=None, answers=[],
                      precision=(precision(a), precision(b)), **numbers)
    numbers = _logits(a, b, inputs[0], tolerance, rows, findings)
    first, answers = None, []
    if a.spec.next_token:
        written = [(_written(a, one, limit), _written(b, two, limit))
                   for one, two in zip(*inputs, strict=True)]
        first = _first_difference(written, numbers["tolerance"], rows, findings)
        answers = [(_text(a, one[0]), _text(b, two[0])) for one, two in written]
    return Parity(rows, findings, first_difference=first, answers=answers,
                  precision=(precision(a), precision(b)), **numbers)


def _of_answers(a, ask, prompts, limit, tolerance):
    rows, findings = [], []
    for aspect in ("precision", "token ids", "chat template", "end of an answer", "logits"):
        _row(rows, aspect, precision(a) if aspect == "precision" else "", UNSEEN, None, "")
    written, answers = [], []
    for prompt in prompts:
        own, said = _written(a, encoded(a, prompt), limit), ask(prompt)
        answers.append((_text(a, own[0]), said))
        again = a.tokenizer(said, add_special_tokens=False)["input_ids"]
        # The same text may be cut into tokens in more than one way: the text decides.
        written.append((own, (own[0] if said.strip() == answers[-1][0].strip() else again, [])))
    limit_of = ROUNDING if tolerance is None else tolerance
    first = _first_difference(written, limit_of, rows, findings)
    return Parity(rows, findings, None, limit_of, None, None, None, first,
                  (precision(a), UNSEEN), answers)


def precision(model: Model) -> str:
    """The formats of a model's weights, the commonest first, such as "float32"."""
    sizes: dict[str, int] = {}
    for weight in model.net.parameters():
        name = str(weight.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + weight.numel()
    return ", ".join(sorted(sizes, key=lambda name: -sizes[name]))


def encoded(model: Model, prompt: str | list[dict]) -> list[int]:
    """The token ids that a model reads for a prompt, its template and BOS included."""
    tokenizer: Any = model.tokenizer
    if not model.spec.next_token:
        return tokenizer(_plain(prompt))["input_ids"]
    if isinstance(prompt, str) and not getattr(tokenizer, "chat_template", None):
        text = prompt
    else:
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        text = opened(turns, tokenizer)
    return begun([tokenizer(text, add_special_tokens=False)["input_ids"]], tokenizer)[0]


def _plain(prompt):
    if isinstance(prompt, str):
        return prompt
    return "\n".join(turn["content"] for turn in prompt)


def _row(rows, aspect, one, two, same, found):
    said = {None: "", True: "yes", False: "NO"}[same]
    rows.append({"aspect": aspect, "a": one, "b": two, "found": found, "same": said})


def _tokens(a, b, prompts, rows, findings):
    """Compare what the tokenizers make of the plain texts, and their special tokens."""
    sizes = [f"{len(model.tokenizer):,} entries" for model in (a, b)]
    found, same = "", True
    for number, prompt in enumerate(prompts):
        one, two = (model.tokenizer(_plain(prompt))["input_ids"] for model in (a, b))
        if one != two:
            place = _parts_at(one, two)
            same, found = False, f"prompt {number} differs from token {place} on"
            break
    if same and len(a.tokenizer) != len(b.tokenizer):
        same, found = False, "the same ids for these prompts, from vocabularies of other sizes"
    _row(rows, "token ids", *sizes, same, found or f"{len(prompts)} prompts alike")
    if not same:
        findings.append(f"the tokenizers differ ({found})")


def _templates(a, b, rows, findings):
    """Compare what the templates make of a conversation with all roles, and of a question."""
    told = []
    for model in (a, b):
        if not getattr(model.tokenizer, "chat_template", None):
            told.append(["no template"])
            continue
        written = []
        for turns in (TALK, TALK[1:], TALK[1:2]):
            try:
                written.append(opened(turns, model.tokenizer))
            except DataError as error:
                written.append(f"refused: {error}")
        told.append(written)
    same, found = told[0] == told[1], ""
    if not same:
        pairs = zip(told[0], told[1], strict=False)
        one, two = next(pair for pair in pairs if pair[0] != pair[1])
        place = _parts_at(one, two)
        start = max(0, place - 10)
        found = f"{one[start:place + 20]!r} and {two[start:place + 20]!r}"
        findings.append(f"the chat templates differ ({found})")
    _row(rows, "chat template", *("none" if t == ["no template"] else f"{len(t[0])} characters"
                                  for t in told), same, found or "the same text")


def _ends(a, b, rows, findings):
    shown = []
    for model in (a, b):
        ids = sorted(end_ids(model))
        shown.append(", ".join(model.tokenizer.convert_ids_to_tokens(ids)) or "none")
    same = end_ids(a) == end_ids(b)
    _row(rows, "end of an answer", *shown, same, "")
    if not same:
        findings.append(f"answers end with other tokens ({shown[0]}; {shown[1]})")


def _beyond(model, inputs):
    """What is wrong where a tokenizer gives tokens that the network has no embedding for, or ""."""
    size, largest = model.net.get_input_embeddings().num_embeddings, max(map(max, inputs))
    if largest < size:
        return ""
    return f"the tokenizer of {model.name} gives token {largest:,} to a network of {size:,}"


@torch.inference_mode()
def _logits(a, b, inputs, tolerance, rows, findings):
    """The numbers of a Parity that the logits give, of both networks on the same tokens."""
    numbers = {"logits": None, "tolerance": ROUNDING if tolerance is None else tolerance,
               "top1": None, "kl": None, "kl_max": None}
    shapes = [_shape(model) for model in (a, b)]
    if shapes[0] != shapes[1]:
        _row(rows, "logits", *shapes, False, "not comparable")
        findings.append(f"the networks are of other sizes ({shapes[0]}; {shapes[1]})")
        return numbers
    largest, gaps, tops, divergences = 0.0, [], [], []
    for ids in inputs:
        one, two = _forward(a, ids), _forward(b, ids)
        if one.shape != two.shape:
            raise SettingError(f"{a.name} gives logits of shape {tuple(one.shape)} and {b.name} of "
                               f"shape {tuple(two.shape)} for one prompt; load both with the same "
                               "labels.")
        largest = max(largest, float(one.abs().max()), float(two.abs().max()))
        gaps.append(float((one - two).abs().max()))
        if one.shape[-1] > 1:
            tops += (one.argmax(-1) == two.argmax(-1)).flatten().tolist()
            logs = one.log_softmax(-1), two.log_softmax(-1)
            each = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
            divergences += each.flatten().clamp(min=0).tolist()
    if tolerance is None:
        step = max(torch.finfo(p.dtype).eps for model in (a, b) for p in model.net.parameters()
                   if p.dtype.is_floating_point)
        numbers["tolerance"] = max(ROUNDING, 4 * step * largest)
    numbers["logits"] = float(torch.tensor(gaps).max())  # NaN where one of them is
    same = numbers["logits"] <= numbers["tolerance"]
    what = f"largest difference {numbers['logits']:.2g}; rounding up to {numbers['tolerance']:.2g}"
    _row(rows, "logits", f"up to {largest:.1f}", "", same, what)
    if not same:
        findings.append(f"the logits differ by {numbers['logits']:.2g}")
    if tops:
        numbers |= {"top1": sum(tops) / len(tops), "kl": sum(divergences) / len(divergences),
                    "kl_max": max(divergences)}
        _row(rows, "top-1 agreement", "", "", None, f"{numbers['top1']:.2%} of {len(tops):,}")
        _row(rows, "KL divergence", "", "", None,
             f"mean {numbers['kl']:.2g}, largest {numbers['kl_max']:.2g} nats")
    return numbers


def _forward(model, ids):
    """The logits for one prompt, on the processor in float32."""
    given = {"input_ids": torch.tensor([ids], device=model.device)}
    if model.net.config.is_encoder_decoder:
        start = model.net.config.decoder_start_token_id
        given["decoder_input_ids"] = torch.tensor([[start]], device=model.device)
    training = model.net.training
    model.net.eval()
    try:
        output = model.net(**given)
    finally:
        model.net.train(training)
    if getattr(output, "logits", None) is None:
        raise SettingError(f"{model.name} was loaded for {model.task!r} and gives no logits; load "
                           "it for classification, tagging, causal-lm or another task with a head.")
    return output.logits[0].float().cpu()


def _shape(model):
    """The size of what a network reads, in words; ids of another tokenizer may lie beyond it."""
    return f"{model.net.get_input_embeddings().num_embeddings:,} rows of embeddings"


@torch.inference_mode()
def _written(model, ids, limit):
    """A greedy answer: its token ids, and the logits of each step, with its end where it came."""
    ends = sorted(end_ids(model))
    batch = torch.tensor([ids], device=model.device)
    made = model.net.generate(
        input_ids=batch, attention_mask=torch.ones_like(batch), max_new_tokens=limit,
        do_sample=False, num_beams=1, repetition_penalty=1.0, eos_token_id=ends or None,
        pad_token_id=model.tokenizer.pad_token_id, return_dict_in_generate=True, output_logits=True,
    )
    start = 0 if model.net.config.is_encoder_decoder else len(ids)
    return made.sequences[0, start:].tolist(), [step[0].float().cpu() for step in made.logits]


def _text(model, ids):
    return model.tokenizer.decode(ids, skip_special_tokens=True)


def _first_difference(written, tolerance, rows, findings):
    """(prompt, token) of the first answer that parts by more than rounding, else of the first."""
    first, beyond, parted = None, None, 0
    for number, ((one, steps), (two, _)) in enumerate(written):
        if one == two:
            continue
        place, parted = _parts_at(one, two), parted + 1
        first = first or (number, place)
        if not _tie(one, two, steps, place, tolerance):
            beyond = beyond or (number, place)
    where = beyond or first
    found = f"{len(written)} answers alike"
    if where:
        found = f"{parted} of {len(written)} part; answer {where[0]} from token {where[1]} on"
        found += "" if beyond else " (ties within rounding)"
    _row(rows, "greedy answers", "", "", beyond is None, found)
    if beyond:
        findings.append(f"the answers differ ({found})")
    return where


def _tie(one, two, steps, place, tolerance):
    """Whether both tokens at which answers part were as likely to `a`, up to rounding."""
    if place >= min(len(one), len(two), len(steps)):
        return False
    own = steps[place]
    if two[place] >= len(own):
        return False
    return abs(float(own[one[place]] - own[two[place]])) <= 2 * tolerance


def _parts_at(one: Any, two: Any) -> int:
    """The first place at which two sequences differ; the shorter one's length if none does."""
    pairs = zip(one, two, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(one), len(two)))
