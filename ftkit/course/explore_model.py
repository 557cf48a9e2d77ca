"""Views of one answer: which words it hangs on, and where the network's attention goes."""

import html
import re

from ftkit import compat
from ftkit.course.explore import BEST
from ftkit.course.view import Control, View
from ftkit.display import Table
from ftkit.errors import DataError, SettingError

MEAN = "mean of all heads"
_WORD = re.compile(r"\S+")


def inspect_occlusion(model, text, *, label=None):
    """How a classifier's answer changes when each word of a text is left out (occlusion).

    model: of load_model or run.model, for classification. text: a string of two words or more.
    label: the class whose probability is looked at, by default the one that is predicted. Returns a
    View with a row for each word: "word", "without it" (the probability of the label when the word
    is missing) and "change" (with it minus without it: above 0, the word speaks for the label).
    Control: label. One pass for each word, all in batches; words that only matter together are not
    seen. Li, Monroe, Jurafsky 2016, *Understanding Neural Networks through Representation Erasure*.
    Raises SettingError for a model of another task or a label it does not know, DataError for a
    text of fewer than two words.
    """
    from ftkit.evaluation.predict import predict

    if model.task != "classification":
        raise SettingError(f"{model.name} was loaded for {model.task!r}; leaving words out is "
                           'for a classifier: load it with task="classification".')
    places = [found.span() for found in _WORD.finditer(text)]
    if len(places) < 2:
        raise DataError(f"{text!r} has {len(places)} words; give a text of two or more.")
    shorter = [(text[:start] + text[end:].lstrip()).strip() for start, end in places]
    whole, *without = (one["probabilities"] for one in predict(model, [text, *shorter]))
    label = max(whole, key=whole.get) if label is None else label
    if label not in whole:
        raise SettingError(f"label={label!r} does not exist; choose one of {', '.join(whole)}.")

    def compute(label):
        return [{"word": text[start:end], "without it": probabilities[label],
                 "change": whole[label] - probabilities[label]}
                for (start, end), probabilities in zip(places, without, strict=True)]

    def render(rows, settings):
        weights = [row["change"] for row in rows]
        return [Shaded([row["word"] for row in rows], weights, " "),
                Table(sorted(rows, key=lambda row: -abs(row["change"]))[:BEST],
                      caption=f"the words that move it most; with all of them {settings['label']} "
                              f"has {whole[settings['label']]:.3f}")]

    return View(f"What {model.name} says without each word", {
        "label": Control("probability of", label, tuple(whole))}, compute, render)


def inspect_attention(model, text, *, at=None, layer=None, head=MEAN):
    """How strongly each token of a text is attended to from one of them.

    model: an encoder or decoder of load_model or run.model. text: a string. at: the number of the
    token that looks; by default the first of an encoder (its [CLS]) and the last of a decoder.
    layer: from 1, by default the last. head: from 1, or the mean of all. Returns a View with a row
    for each token: "number", "token" and "weight", which sum to 1. Controls: at, layer, head.
    A weight says where a value was read, not that the answer hangs on it: Jain and Wallace 2019,
    *Attention is not Explanation*. Raises SettingError for a model that has no attention weights
    to show, or a layer or head that is not there, DataError for an empty text or a token that is
    not there.
    """
    if not text.strip():
        raise DataError("the text is empty. Give at least a word.")
    inputs = model.tokenizer(text, return_tensors="pt", truncation=True).to(model.device)
    pieces = [model.tokenizer.decode([token]) for token in inputs["input_ids"][0].tolist()]
    weights = _weights(model, inputs)
    layers, heads = len(weights), weights[0].shape[0]
    at = (len(pieces) - 1 if model.spec.next_token else 0) if at is None else at
    layer = layers if layer is None else layer
    names = (MEAN, *(str(i) for i in range(1, heads + 1)))

    def compute(at, layer, head):
        if not 0 <= at < len(pieces):
            raise DataError(f"at={at}: the text has the tokens 0 to {len(pieces) - 1}.")
        if not 1 <= layer <= layers or str(head) not in names:
            raise SettingError(f"layer={layer}, head={head}: there are the layers 1 to {layers}, "
                               f"the heads 1 to {heads} and {MEAN!r}.")
        of_layer = weights[layer - 1]
        row = of_layer.mean(0)[at] if head == MEAN else of_layer[int(head) - 1][at]
        return [{"number": i, "token": piece, "weight": float(weight)}
                for i, (piece, weight) in enumerate(zip(pieces, row, strict=True))]

    def render(rows, settings):
        best = sorted(rows, key=lambda row: -row["weight"])[:BEST]
        return [Shaded(pieces, [row["weight"] for row in rows]),
                Table([row | {"token": repr(row["token"])} for row in best],
                      caption=f"most attended to from token {settings['at']}, "
                              f"{pieces[settings['at']]!r}")]

    controls = {"at": Control("number of the token", at, high=len(pieces) - 1),
                "layer": Control("layer", layer, low=1, high=layers),
                "head": Control("head", str(head), names)}
    return View(f"Attention of {model.name}, {layers} layers of {heads} heads", controls, compute,
                render)


def _weights(model, inputs):
    """The attention weights of each layer, (heads, tokens, tokens) in float32."""
    import torch

    net = model.net
    if model.net.config.is_encoder_decoder or not hasattr(net, "set_attn_implementation"):
        raise SettingError(f"{model.name} is no encoder or decoder alone; its attention is not "
                           "shown. Take one such as minilm-l6 or smollm2-135m-instruct.")
    before, training = compat.attention_kernel(net.config), net.training
    try:
        net.set_attn_implementation("eager")  # the only kernel that has the weights
        net.eval()
        with torch.inference_mode():
            found = net(**inputs, output_attentions=True).attentions
    finally:
        net.set_attn_implementation(before)
        net.train(training)
    if not found or any(layer is None for layer in found):
        raise SettingError(f"{model.name} has layers without attention weights, such as a "
                           "state-space model's; there is nothing to show.")
    return [layer[0].float().cpu().numpy() for layer in found]


class Shaded:
    """Words or tokens, coloured by how large their weight is; those below 0 are underlined."""

    def __init__(self, pieces, weights, between=""):
        self.pieces, self.weights, self.between = pieces, weights, between
        self.largest = max(map(abs, weights)) or 1

    def __repr__(self):
        return self.between.join(
            f"{'-' * (weight < 0)}{'+' * (weight > 0)}[{piece}]"
            if abs(weight) > self.largest / 2 else piece
            for piece, weight in zip(self.pieces, self.weights, strict=True))

    def _repr_html_(self):
        spans = []
        for piece, weight in zip(self.pieces, self.weights, strict=True):
            shown = html.escape(piece).replace("\n", "⏎<br>").replace(" ", "&nbsp;")
            # At most 0.35 of orange or blue: dark text keeps a contrast of 4.5 on it.
            depth = 0.35 * abs(weight) / self.largest
            color = f"rgba(213,94,0,{depth:.2f})" if weight < 0 else f"rgba(0,114,178,{depth:.2f})"
            line = ";text-decoration:underline" if weight < 0 and depth > 0.05 else ""
            spans.append(f"<span style='background:{color};padding:2px 1px{line}'>{shown}</span>")
        return (f"<p style='font-family:monospace;line-height:2'>{self.between.join(spans)}</p>"
                "<p>the stronger the colour, the larger; underlined: below 0</p>")
