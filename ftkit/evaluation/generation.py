"""What a decoder answers to a prompt: the likelihood of given answers, or text of its own.

What many prompts begin with is read once, as keys and values that all of them share.
"""

import copy
import inspect
import warnings

import numpy as np
import torch
import transformers

from ftkit.data.conversations import begun, turn_marks
from ftkit.data.templates import apply_template
from ftkit.errors import DataError, SettingError
from ftkit.models import capabilities, precision
from ftkit.models.learned_prompt import learned_tokens, prompt_cache
from ftkit.models.model import check_model
from ftkit.models.structure import inner
from ftkit.models.weights import no_answer
from ftkit.speed import attention, feature_cache, optimizations, tree_attention
from ftkit.speed.kv_cache import preallocate
from ftkit.speed.logits_to_keep import text_logits
from ftkit.tasks.batching import pad

SHORTEST_PREFIX = 8  # tokens; sharing less than this saves nothing
FEWER = 0.85  # of a batch's rows still open: then the rest is let go; it copies the cache
ROWS = 32  # prompts that are run side by side
# Tokens that are run side by side while candidates are scored, padding included. A processor's own
# memory holds what a few hundred need; with more, it waits for the main memory.
LOAD = {"cpu": 320, "gpu": 16_384}
POSITIONS = 512  # whose logits over the vocabulary are held at a time


def log_likelihood(model, prompts, candidates, *, prefix="", batch_size=ROWS, normalize=False,
                   dtype=None, disable=()):
    """The log-likelihood of each candidate answer after each prompt.

    model: a decoder, also with a learned prompt (PromptTuning, PrefixTuning), which then stands
    before it all. prompts: strings, each read after `prefix`. candidates: one list for all prompts,
    or a list of lists, one for each; a candidate usually begins with a space. What all prompts
    begin with is run through the model once (key-value cache), each prompt once for all its
    candidates, and frozen lower blocks once for each text, also over several calls.
    normalize=True divides by the number of tokens. dtype: as in evaluate. disable: what to leave
    off of that, names of optimizations.OPTIMIZATIONS: "prefix_caching" (each prompt is read whole
    for each of its candidates), "feature_cache", "logits_to_keep" (the head is applied where an
    answer's tokens are), "eager_attention", "group_by_length". Returns an array of shape (prompts,
    candidates), in nats; -inf where a prompt has fewer. Raises SettingError when the model is no
    decoder or a candidate is empty, NotANumber where a likelihood is NaN, of which an argmax would
    make the first candidate.
    """
    check_model(model)
    if not model.spec.next_token:
        raise SettingError(f"likelihoods need a causal-lm model; {model.name} was loaded for "
                           f"{model.task!r}.")
    disable = optimizations.disabled(disable)
    prompts, own = list(prompts), len(candidates) and not isinstance(candidates[0], str)
    lists = candidates if own else [candidates] * len(prompts)
    if len(lists) != len(prompts):
        raise SettingError(f"{len(lists)} lists of candidates for {len(prompts)} prompts; give one "
                           "list for all, or one for each.")
    first = _tokens(model, [prefix + prompt for prompt in prompts])
    distinct = sorted({c for cs in lists for c in cs})
    options = {"add_special_tokens": False}
    ids = model.tokenizer(distinct, **options)["input_ids"] if distinct else []
    known = dict(zip(distinct, ids, strict=True))
    if empty := [c for c, ids in known.items() if not ids]:
        raise SettingError(f"candidate {empty[0]!r} has no tokens; a candidate must not be empty.")
    _check_room(model, first, [max((len(known[c]) for c in own), default=0) for own in lists])
    sharing = "prefix_caching" not in disable
    shared = _common_prefix(first) if sharing and capabilities.continues(model.net) else []
    out = np.full((len(prompts), max(map(len, lists), default=0)), -np.inf)
    longest = max(map(len, first), default=0) + max(map(len, known.values()), default=0)
    apart = not sharing or not tree_attention.supported(model.net, longest)
    load = LOAD["cpu" if model.device.type == "cpu" else "gpu"]
    wanted = "feature_cache" not in disable
    kernel = attention.chosen(inner(model.net), longest, disable)
    computing = precision.computing(model, dtype)
    backbone = feature_cache.frozen_features(model.net, wanted=wanted)
    with torch.inference_mode(), computing, kernel, backbone:
        past, skip = _beginning(model, shared) if sharing else (None, 0)
        own = [row[len(shared) :] for row in first]
        answers = [[known[c] for c in each] for each in lists]
        sort = "group_by_length" not in disable
        for batch in _batches(own, answers, batch_size, load, apart, sort):
            rows = [own[row] for row, _ in batch]
            wanted = [[answers[row][j] for j in columns] for row, columns in batch]
            found = _score_batch(model, rows, wanted, past, skip, disable)
            for (row, columns), ids, values in zip(batch, wanted, found, strict=True):
                counts = [len(i) if normalize else 1 for i in ids]
                out[row, columns] = np.array(values) / counts
    if np.isnan(out).any():
        row, column = np.argwhere(np.isnan(out))[0]
        raise no_answer(model, f"the likelihood of candidate {column} after prompt {row}")
    return out


def _batches(prompts, answers, most, load, apart, sort=True):
    """Lists of (row, columns) to run side by side: at most `most` prompts, within `load` tokens.

    apart: a prompt is read for each answer, not once for all. sort: the longest first.
    """
    lengths = [len(p) + sum(map(len, own)) for p, own in zip(prompts, answers, strict=True)]
    batch, widest = [], 0
    for row in sorted(range(len(prompts)), key=lambda row: -lengths[row] if sort else 0):
        columns, width = [], len(prompts[row])
        for column, answer in enumerate(answers[row]):
            columns.append(column)
            width += len(answer)
            if apart or width > load or column == len(answers[row]) - 1:
                widest = max(widest, width)
                if batch and (len(batch) == most or widest * (len(batch) + 1) > load):
                    yield batch
                    batch, widest = [], width
                batch.append((row, columns))
                columns, width = [], len(prompts[row])
    if batch:
        yield batch


def _score_batch(model, rows, answers, past, skip, disable):
    """The log-likelihood of each answer after its prompt: a list of floats for each prompt.

    rows: token ids of the prompts from position `skip` on, where the cache `past` ends. answers:
    lists of token ids for each. A prompt is read once, its answers behind it as branches of a tree.
    """
    ids, sources, wanted = [], set(), []
    for i, (row, own) in enumerate(zip(rows, answers, strict=True)):
        ids.append(list(row))
        for j, answer in enumerate(own):
            # What an answer's first token follows is the prompt's last, for all of them.
            places = [len(row) - 1, *range(len(ids[i]), len(ids[i]) + len(answer) - 1)]
            ids[i] += answer[:-1]
            sources |= {(i, place) for place in places}
            wanted += [(i, place, j, token) for place, token in zip(places, answer, strict=True)]
    batch = pad(ids, model.tokenizer.pad_token_id).to(model.device)
    keep = torch.zeros(batch.shape, dtype=torch.bool, device=batch.device)
    keep[tuple(torch.tensor(sorted(sources), device=batch.device).T)] = True
    apart = tree_attention.tree_attention_inputs(model.net, rows, answers, ids, skip)
    given = {"input_ids": batch, **apart}
    if skip:
        given |= {"past_key_values": _expand(past, len(rows)), "use_cache": True}
    logits = text_logits(model.net, keep, disable=disable, **given)
    number = {source: n for n, source in enumerate(sorted(sources))}  # logits come row by row
    wanted = [(number[i, place], i, j, token) for i, place, j, token in wanted]
    found = [[0.0] * len(own) for own in answers]
    for start in range(0, len(sources), POSITIONS):
        logs = logits[start : start + POSITIONS].float().log_softmax(-1)
        here = [w for w in wanted if start <= w[0] < start + POSITIONS]
        values = logs[[w[0] - start for w in here], [w[3] for w in here]].tolist()
        for (_, i, j, _), value in zip(here, values, strict=True):
            found[i][j] += value
    return found


def contextual_calibration(scores, null_scores):
    """Contextual calibration: take out the preference that the prompt has before it sees the input.

    scores: log-likelihoods, shape (n, candidates). null_scores: the same candidates after the same
    prompt with an empty input such as "N/A", shape (candidates,) or (m, candidates).
    Returns centred scores, shape (n, candidates); the highest is the answer. A candidate that is
    not there (-inf) stays so. Raises DataError for NaN, of which an argmax would make an answer.
    Source: Zhao et al. 2021, "Calibrate Before Use" (their diagonal matrix, in logarithms).
    """
    scores, null = np.asarray(scores, dtype=float), np.atleast_2d(null_scores).mean(axis=0)
    for name, values in (("scores", scores), ("null_scores", np.asarray(null_scores))):
        if np.isnan(values).any():
            raise DataError(f"{name} hold NaN; log-likelihoods, as of ft.log_likelihood, were "
                            "expected.")
    there = np.isfinite(scores)
    return np.where(there, scores - np.where(there, null, 0), scores)


def generate(model, prompts, *, max_new_tokens=32, stop=None, prefix="", batch_size=ROWS,
             dtype=None, disable=()):
    """Continue prompts greedily, many side by side.

    prompts: one string or a list, each read after `prefix`, whose key-value cache is computed once.
    stop: a string (such as "\\n") or a list of them; the text ends before it. dtype: as in
    evaluate. disable: "prefix_caching" reads what all prompts begin with once for each;
    "eager_attention"; "group_by_length".
    Returns the new text alone, a string or a list of strings. Raises SettingError for a model that
    writes no text, NotANumber where the logits are NaN, of which an argmax would make the
    vocabulary's first word.
    """
    check_model(model)
    if not hasattr(model.net, "generate"):
        raise SettingError(f"{model.name} was loaded for {model.task!r}, which writes no text; "
                           'load a decoder with task="causal-lm", or a T5 with "seq2seq-lm".')
    if type(max_new_tokens) is not int or max_new_tokens < 1:
        raise SettingError(f"max_new_tokens={max_new_tokens!r}: a whole number from 1 on is "
                           "expected.")
    single = isinstance(prompts, str)
    texts = [prefix + prompt for prompt in ([prompts] if single else prompts)]
    stops = [s for s in ([stop] if isinstance(stop, str) else stop or []) if s]
    out, disable = [""] * len(texts), optimizations.disabled(disable)
    order = list(range(len(texts)))
    if "group_by_length" not in disable:
        order.sort(key=lambda i: -len(texts[i]))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        some = [texts[i] for i in part]
        with precision.computing(model, dtype):
            if model.net.config.is_encoder_decoder or not capabilities.continues(model.net):
                said = _by_library(model, some, max_new_tokens, stops, part)
            else:
                said = _greedy(model, some, max_new_tokens, stops, disable, part)
        for i, text in zip(part, said, strict=True):
            out[i] = text
    return out[0] if single else out


def chat(model, message, *, system=None, max_new_tokens=64):
    """Ask a chat model one question. Returns its answer, a string."""
    prompt, _ = apply_template({"instruction": message}, model.tokenizer, system=system)
    return generate(model, prompt, max_new_tokens=max_new_tokens).strip()


def _greedy(model, texts, limit, stops, disable, numbers):
    tokens = _tokens(model, texts, numbers)
    _check_room(model, tokens, [limit] * len(tokens), numbers)
    longest = learned_tokens(model.net) + max(map(len, tokens)) + limit
    sharing = "prefix_caching" not in disable and tree_attention.sees_all(model.net, longest)
    with attention.chosen(inner(model.net), longest, disable):
        return _written(model, tokens, limit, stops, sharing)


@torch.inference_mode()
def _written(model, tokens, limit, stops, sharing):
    shared = _common_prefix(tokens) if sharing else []
    past, skip = _beginning(model, shared)
    past = _expand(past, len(tokens))
    pad_id, ends = model.tokenizer.pad_token_id, end_ids(model)
    rows = [t[len(shared) :] for t in tokens]
    ids = pad(rows, pad_id, left=True).to(model.device)
    own = pad([[1] * len(r) for r in rows], 0, left=True).to(model.device)
    mask = torch.cat([own.new_ones(len(rows), skip), own], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, skip:]
    new, done, alive = [[] for _ in tokens], ["" for _ in tokens], list(range(len(tokens)))
    ended, last = set(), _last_only(model.net)
    for _ in range(limit):
        step = inner(model.net)(input_ids=ids, attention_mask=mask, position_ids=positions,
                                past_key_values=past, use_cache=True, **last)
        past, (most, chosen) = preallocate(step.past_key_values), step.logits[:, -1].max(-1)
        if most.isnan().any():
            raise no_answer(model, "the next token")
        keep = []
        for place, (row, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
            if row in ended:
                continue
            if token not in ends:
                new[row].append(token)
            done[row] = model.tokenizer.decode(new[row], skip_special_tokens=True)
            if token in ends or any(s in done[row] for s in stops):
                ended.add(row)
            else:
                keep.append(place)
        if not keep:
            break
        if len(keep) < FEWER * len(alive):  # finished rows leave the batch, several at a time
            index = torch.tensor(keep, device=ids.device)
            past.batch_select_indices(index)
            chosen, mask, positions = chosen[index], mask[index], positions[index]
            alive = [alive[place] for place in keep]
        ids, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [_cut(text, stops) for text in done]


def _by_library(model, texts, limit, stops, numbers):
    """The same through transformers' generate, for encoder-decoders and for unusual decoders."""
    decoder = not model.net.config.is_encoder_decoder
    rows = _tokens(model, texts, numbers) if decoder else model.tokenizer(texts)["input_ids"]
    _check_room(model, rows, [limit if decoder else 0] * len(rows), numbers)
    # On the right: a learned prompt stands directly before an encoder's text, padding or not.
    batch = {"input_ids": pad(rows, model.tokenizer.pad_token_id, left=decoder),
             "attention_mask": pad([[1] * len(row) for row in rows], 0, left=decoder)}
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    ids = model.net.generate(**batch, max_new_tokens=limit, do_sample=False,
                             pad_token_id=model.tokenizer.pad_token_id,
                             logits_processor=transformers.LogitsProcessorList([_Checked(model)]))
    if decoder:
        ids = ids[:, batch["input_ids"].shape[1] :]
    return [_cut(t, stops) for t in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]


class _Checked(transformers.LogitsProcessor):
    """The logits of a step of transformers' generate, as they are, if they are numbers."""

    def __init__(self, model):
        self.model = model

    def __call__(self, input_ids, scores):
        if scores.isnan().any():
            raise no_answer(self.model, "the next token")
        return scores


def _last_only(net):
    """Arguments that make a forward give the logits of the last position alone, where it can."""
    model = inner(net)
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return ({"logits_to_keep": 1} if takes else {}) | capabilities.without_routing(model)


def end_ids(model):
    """The tokens that end an answer: the library's, eos, and what ends a turn of the template."""
    ids = getattr(model.net.generation_config, "eos_token_id", None)
    ids = ids if isinstance(ids, list) else [ids]
    ids = [*ids, model.tokenizer.eos_token_id, *turn_marks(model.tokenizer)[1]]
    return {i for i in ids if i is not None}


def _cut(text, stops):
    return text[: min((text.index(s) for s in stops if s in text), default=len(text))]


def _tokens(model, texts, numbers=None):
    """Token ids of prompts, begun as texts are in training; none of them may be empty.

    numbers: of the prompts, for words, where they stand in another order than they were given in.
    """
    if not texts:
        return []
    rows = begun(model.tokenizer(texts, add_special_tokens=False)["input_ids"], model.tokenizer)
    if empty := [i for i, row in enumerate(rows) if not row]:
        number = numbers[empty[0]] if numbers else empty[0]
        raise SettingError(f"prompt {number} is {texts[empty[0]]!r}, and the tokenizer puts no "
                           "BOS before a text, so there is nothing that an answer could follow. "
                           "Give at least a word.")
    return rows


def _check_room(model, rows, more, numbers=None):
    """Refuse a prompt that leaves no room for `more` tokens behind it, a number for each prompt.

    Where positions are no table, but computed (rotary), a model goes on beyond those that it was
    trained on, and worse: that is a warning.
    """
    config = model.net.config.get_text_config()
    room = getattr(config, "max_position_embeddings", None)
    if room is None:
        return
    before = learned_tokens(model.net)
    numbers = range(len(rows)) if numbers is None else numbers
    for i, row, behind in zip(numbers, rows, more, strict=True):
        if before + len(row) + behind > room:
            learned = f", a learned prompt of {before} before it" if before else ""
            if _position_table(model.net, room):
                raise SettingError(
                    f"prompt {i} has {len(row):,} tokens{learned} and {behind:,} for the answer; "
                    f"{model.name} has positions for {room:,}. Shorten the prompt, or ask for "
                    "fewer new tokens.")
            warnings.warn(f"prompt {i} has {len(row):,} tokens{learned} and {behind:,} for the "
                          f"answer; {model.name} was trained on {room:,} positions and is worse "
                          "beyond them.", stacklevel=4)
            return


def _position_table(net, room):
    """Whether a network looks positions up in a table of so many rows, and has no others."""
    words = net.get_input_embeddings()
    return any(isinstance(module, torch.nn.Embedding) and module is not words
               and room <= module.num_embeddings <= room + 8 for module in net.modules())


def _common_prefix(rows):
    """The tokens that all rows begin with, leaving each at least one of its own."""
    if len(rows) < 2:
        return []
    low, high = min(rows), max(rows)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    n = min(n, min(map(len, rows)) - 1)
    return low[:n] if n >= SHORTEST_PREFIX else []


def _beginning(model, shared):
    """One row's cache of the learned prompt, if any, and the shared tokens, and its positions."""
    learned = learned_tokens(model.net) if capabilities.continues(model.net) else 0
    with torch.inference_mode():
        past = prompt_cache(model.net) if learned else None
        if shared:
            ids = torch.tensor([shared], device=model.device)
            past = inner(model.net)(
                input_ids=ids, past_key_values=past, use_cache=True, **_last_only(model.net)
            ).past_key_values
    return past, learned + len(shared)


def _expand(past, rows):
    """A copy of a one-row key-value cache for `rows` rows."""
    if past is None:
        return None
    wide = copy.deepcopy(past)
    wide.batch_repeat_interleave(rows)
    return wide
