"""Views to look around in: tokens, answers side by side, prompts, flips."""

import html
from contextlib import contextmanager

import numpy as np

from ftkit.course.plots import Tokens, answer_of, asked_of, truth_of
from ftkit.course.view import Control, View
from ftkit.display import Table
from ftkit.errors import DataError, SettingError

BEST = 5  # next tokens of the token inspector


def inspect_tokens(model, record, *, loss_on="response", at=None):
    """What a model reads of one record, token by token, and what it expects next.

    model: of load_model or run.model. record: a dict with the columns that `fit` would train on.
    loss_on: "response" or "all", as in fit. at: the number of the token to look at, by default the
    first that carries loss. Returns a View with a row for each token: "number", "id", "token",
    "carries loss" (what does not is masked), and of a decoder the "probability" that it gave to
    this token after the ones before it, the "loss" (nats) and what would have been "most
    probable", pairs of token and probability. Controls: at, loss_on.
    Raises DataError for a record that the model's task cannot read, or a token that is not there.
    """
    import datasets

    from ftkit.models.structure import IGNORED
    from ftkit.tasks.batching import encode

    one = datasets.Dataset.from_list([dict(record)])
    ids = encode(one, model, loss_on=loss_on)[0]["input_ids"]
    pieces = [model.tokenizer.decode([token]) for token in ids]
    expected = _expected(model, ids) if model.spec.next_token else [{} for _ in ids]

    def compute(at, loss_on):
        labels = encode(one, model, loss_on=loss_on)[0].get("labels")
        labels = labels if isinstance(labels, list) else [IGNORED] * len(ids)
        return [{"number": i, "id": token, "token": piece,
                 "carries loss": i > 0 and label != IGNORED, **after}
                for i, (token, piece, label, after) in enumerate(
                    zip(ids, pieces, labels, expected, strict=True))]

    def render(rows, settings):
        tokens = Tokens(pieces, [row["carries loss"] for row in rows])
        row = rows[settings["at"]]
        said = [{"what": name, "value": repr(value) if name == "token" else value}
                for name, value in row.items() if name != "most probable"]
        tables = [tokens, Table(said, caption="the token that is looked at")]
        if best := row.get("most probable"):
            tables.append(Table([{"token": repr(token), "probability": value}
                                 for token, value in best],
                                caption=f"most probable in place {settings['at']}"))
        return tables

    if at is None:
        carry = [row["number"] for row in compute(0, loss_on) if row["carries loss"]]
        at = carry[0] if carry else 0
    if not 0 <= at < len(ids):
        raise DataError(f"at={at}: the record has the tokens 0 to {len(ids) - 1}.")
    controls = {"at": Control("number of the token", at, high=len(ids) - 1),
                "loss_on": Control("tokens that carry loss", loss_on, ("response", "all"))}
    where = "" if model.spec.writes else "; the loss is of the whole record, not of a token"
    return View(f"{len(ids)} tokens, as {model.name} reads them{where}", controls, compute, render)


def _expected(model, ids):
    """What a decoder gave each token after the ones before it; the first has none before it."""
    import torch

    with torch.inference_mode():
        logits = model.net(torch.tensor([ids], device=model.device)).logits[0, :-1].float()
    logs = logits.log_softmax(-1)
    best = logs.topk(min(BEST, logs.shape[-1]))
    rows = [{}]
    for place, token in enumerate(ids[1:]):
        value = float(logs[place, token])
        rows.append({"probability": float(np.exp(value)), "loss": -value, "most probable": [
            (model.tokenizer.decode([i]), float(np.exp(p))) for i, p in
            zip(best.indices[place].tolist(), best.values[place].tolist(), strict=True)]})
    return rows


def side_by_side(models, text, *, temperature=0.0, seed=0, max_new_tokens=48):
    """What several models answer to the same text.

    models: {name: Model}, such as {"base": base, "tuned": run.model}; of a model with several
    adapters {name: (model, adapter)}, adapters as set_adapter calls them. text: a string; a decoder
    with a chat template reads it as a question, another continues it. temperature: 0 for greedy
    decoding; above it answers are sampled, with the same `seed` for each model, so that a model
    beside itself says the same twice. Once the button is pressed, answers are seen while they are
    written. Returns a View with a row for each model: "model", "answer",
    and of a classifier the "probability". Controls: text, temperature, seed; a button asks.
    Raises SettingError without models, DataError for an empty text.
    """
    if not isinstance(models, dict) or not models:
        raise SettingError(
            'models is not a dict with a model or more; give {"base": base, "tuned": run.model}.')

    made = []  # the View, once it is there

    def compute(text, temperature, seed):
        rows = []
        for name, model in models.items():
            def tell(answer, name=name):
                if made and made[0].watch:
                    made[0].watch([*rows, {"model": name, "answer": answer}])

            with _adapter_of(model) as one:
                rows.append({"model": name,
                             **_answer(one, text, temperature, seed, max_new_tokens, tell)})
        return rows

    controls = {"text": Control("text", text),
                "temperature": Control("temperature", temperature, sorted(
                    {0.0, 0.5, 1.0, float(temperature)})),
                "seed": Control("seed", seed, high=max(99, seed))}
    made.append(View("The same text, several models", controls, compute,
                     lambda rows, settings: [Table(rows, caption=f"to: {settings['text']}")],
                     button="Ask the models"))
    return made[0]


@contextmanager
def _adapter_of(model):
    """A model as it is, or of (model, adapter) the model with that adapter for a while."""
    if not isinstance(model, tuple):
        yield model
        return
    from ftkit.models.adapters import BASE, set_adapter

    model, adapter = model
    before = getattr(getattr(model.net, "adapter_registry", None), "active", BASE)
    try:
        yield set_adapter(model, adapter)
    finally:
        set_adapter(model, before)


def _answer(model, text, temperature, seed, max_new_tokens, tell):
    from ftkit.evaluation.predict import predict

    if not text.strip():
        raise DataError("the text is empty. Give at least a word.")
    if model.spec.writes:
        return {"answer": _written(model, text, temperature, seed, max_new_tokens, tell)}
    found = predict(model, text)
    if "label" in found:
        return {"answer": found["label"], "probability": found["probability"]}
    return {"answer": str(found)}


def _written(model, text, temperature, seed, max_new_tokens, tell):
    """What a model writes; `tell` hears what there is after each token."""
    import torch

    from ftkit.data.conversations import opened

    chat = model.spec.next_token and getattr(model.tokenizer, "chat_template", None)
    prompt = opened([{"role": "user", "content": text}], model.tokenizer) if chat else text
    inputs = model.tokenizer(prompt, return_tensors="pt", add_special_tokens=not chat).to(
        model.device)
    inputs.pop("token_type_ids", None)
    tokens = []

    def said():
        return model.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    class Heard:
        """What transformers' generate calls a streamer: the prompt's tokens come first."""

        begun = False

        def put(self, value):
            if self.begun:
                tokens.extend(value.flatten().tolist())
                tell(said())
            self.begun = True

        def end(self):
            """Nothing is kept back."""

    way = dict(do_sample=True, temperature=temperature, top_k=0) if temperature else dict(
        do_sample=False)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(seed)
        model.net.generate(**inputs, **way, max_new_tokens=max_new_tokens, streamer=Heard(),
                           pad_token_id=model.tokenizer.pad_token_id)
    return said()


KINDS = {"gained": (False, True), "lost": (True, False), "both wrong": (False, False),
         "both right": (True, True)}  # right before, right after


def browse_flips(dataset, before, after, *, which="gained", number=0, metric="accuracy"):
    """Page through the examples that two evaluations answered differently, or alike.

    dataset: the rows that both measured. before, after: their Evaluations. which: "gained",
    "lost", "both wrong" or "both right". number: of the example, from 0, within that kind.
    metric: right or wrong, for each example. Returns a View whose rows are all examples of that
    kind: "row" (its number in the data set), what was asked, "right answer", "before", "after".
    Controls: which, number. Raises SettingError for another kind, or a metric that is not right or
    wrong.
    """
    from ftkit.evaluation.compare import compare

    if which not in KINDS:
        raise SettingError(f"which={which!r} does not exist; choose one of {', '.join(KINDS)}.")
    found = compare(after, before, metric)
    one, two = before.per_example(metric), after.per_example(metric)
    if one is None or not np.isin([*one, *two], (0, 1)).all():
        raise SettingError(f"{metric} is not right or wrong for an example, so nothing flips; "
                           'give metric="accuracy" or "exact_match".')

    pools = {kind: np.flatnonzero((one == sides[0]) & (two == sides[1]))
             for kind, sides in KINDS.items()}
    counts = ", ".join(f"{kind}: {len(pool)}" for kind, pool in pools.items())

    def compute(which, number):
        return [_flip(dataset[int(i)], int(i), before, after, metric) for i in pools[which]]

    def render(rows, settings):
        if not rows:
            return [Table([], caption=f"{counts}. There is no example of this kind.")]
        at = min(settings["number"], len(rows) - 1)
        return [Table([{"what": name, "value": value} for name, value in rows[at].items()],
                      caption=f"{counts}. Shown: {settings['which']}, number {at}")]

    controls = {"which": Control("kind of example", which, tuple(KINDS)),
                "number": Control("number of the example", number, high=max(0, len(one) - 1))}
    return View(f"{found.metric}: {len(found.gained)} gained, {len(found.lost)} lost of {len(one)}",
                controls, compute, render)


def _flip(row, i, before, after, metric):
    right = {} if after.references is None else {"right answer": truth_of(after, i, row)}
    return {"row": i, **asked_of(row), **right, "before": answer_of(before, i, row, metric),
            "after": answer_of(after, i, row, metric)}


def build_prompt(model, examples, questions, *, number=2, order=0, instruction="",
                 template="Q: {question}\nA: {answer}"):
    """How a prompt's examples, their number and their order move its score.

    model: a decoder. examples: (question, answer) pairs to choose from, the first `number` of them
    in the order that `order` draws (0: as given). questions: pairs to be answered, of a validation
    split: a prompt that was chosen on the test split has seen it. The candidates for an answer are
    all answers that occur. template, instruction: as in few_shot. Returns a View with a row for
    each question: "question", "right answer", "answer", "right", and the "loss" of the right answer
    (nats). Its `history` has a row for each prompt tried. Controls: number, order, instruction; a
    button asks. Raises SettingError for a number beyond the examples or a model that is no
    decoder, DataError without questions.
    """
    from ftkit.data.templates import few_shot
    from ftkit.evaluation.generation import log_likelihood

    examples, questions, history = list(examples), list(questions), []
    if not questions:
        raise DataError("there are no questions to score a prompt by; give (question, answer).")
    candidates = list(dict.fromkeys(answer for _, answer in [*examples, *questions]))
    told = {}

    def compute(number, order, instruction):
        if not 0 <= number <= len(examples):
            raise SettingError(f"number={number}: there are {len(examples)} examples.")
        chosen = examples[:number]
        if order:
            chosen = [chosen[i] for i in np.random.default_rng(order).permutation(number)]
        prompts = [few_shot(chosen, question, template=template, instruction=instruction)
                   for question, _ in questions]
        scores = log_likelihood(model, prompts, [f" {answer}" for answer in candidates])
        said = [candidates[i] for i in scores.argmax(1)]
        rows = [{"question": question, "right answer": right, "answer": answer,
                 "right": answer == right, "loss": float(-own[candidates.index(right)])}
                for (question, right), answer, own in zip(questions, said, scores, strict=True)]
        told["prompt"] = prompts[0]
        history.append({"examples": number, "order": order, "instruction": instruction,
                        "share right": float(np.mean([row["right"] for row in rows])),
                        "loss": float(np.mean([row["loss"] for row in rows]))})
        return rows

    def render(rows, settings):
        return [_Prompt(told["prompt"]), Table(history, caption="the prompts tried so far"),
                Table(rows[:BEST], caption=f"the first of {len(rows)} questions")]

    controls = {"number": Control("number of examples", number, high=len(examples)),
                "order": Control("order (0: as given)", order, high=max(99, order)),
                "instruction": Control("instruction", instruction)}
    made = View("A prompt and its score", controls, compute, render, button="Try this prompt")
    made.history = history
    return made


class _Prompt:
    """The prompt as the model reads it, blanks and line ends included."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return f"the prompt:\n{self.text}"

    def _repr_html_(self):
        # Long lines wrap, so that nothing has to be scrolled, which a keyboard might not reach.
        return (f"<p>the prompt:</p><pre style='white-space:pre-wrap;border-left:3px solid;"
                f"padding-left:8px'>{html.escape(self.text)}</pre>")
