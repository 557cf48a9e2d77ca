"""Faults between the rows and the network: tokens, labels, masks, templates."""

from unittest.mock import patch

import numpy as np
import torch

from ftkit.course.faults.registry import CLASSES, TEXTS, plants, together
from ftkit.data import conversations
from ftkit.evaluation import evaluate, generation, predict
from ftkit.models.structure import IGNORED
from ftkit.speed import padding_free
from ftkit.tasks import language_modeling
from ftkit.tasks.batching import Collator
from ftkit.training import fit


def _collating(change):
    """A context manager in which fit's batches have other labels. change: of (labels, model)."""
    original = fit.Collator

    class Changed(original):
        def __init__(self, model, seed=0):
            super().__init__(model, seed)
            self.model = model

        def __call__(self, rows):
            batch = super().__call__(rows)
            return batch | {"labels": change(batch["labels"], self.model)}

    return patch.object(fit, "Collator", Changed)


@plants("labels masked", check="something carries loss",
        symptom="a loss of 0.0 from the first update on, and a model that stays as it was",
        mend="count the labels that are not -100; look at one batch, decoded")
def labels_masked():
    return _collating(lambda labels, model: torch.full_like(labels, IGNORED))


@plants("prompt learned", check="prompts carry no loss", tasks=(TEXTS,),
        symptom="a lower loss (prompts are alike and easy), and answers that improve less",
        mend="mask the prompt's labels; ft.show_tokens shows what is learned")
def prompt_learned():
    original = fit.encode
    return patch.object(
        fit, "encode", lambda rows, model, **given: original(rows, model, **given | {
            "loss_on": "all"})
    )


@plants("end token masked", check="the end is learned", tasks=(TEXTS,),
        symptom="good answers that do not stop",
        mend="pad with a token of its own, or mask by the attention mask and not by the token")
def end_token_masked():
    """The pad token is the end token, and whoever masks padding by its number masks both."""

    def change(labels, model):
        ends = torch.tensor(sorted(conversations.end_tokens(model.tokenizer)))
        return labels.masked_fill(torch.isin(labels, ends), IGNORED)

    return _collating(change)


@plants(
    "wrong end token", check="answers end with the end token", tasks=(TEXTS,),
    symptom="good answers that do not stop, or a foreign token behind each",
    mend="end with the token at which generation stops: eos, or the chat template's end of a turn",
)
def wrong_end_token():
    def ends(prompts, tokenizer):
        return [[tokenizer.unk_token_id if tokenizer.unk_token_id not in
                 (None, tokenizer.eos_token_id) else tokenizer.pad_token_id] for _ in prompts]

    return patch.object(language_modeling, "answer_ends", ends)


def _beginning(change):
    """A context manager in which texts begin otherwise, in training and generation alike."""
    original = conversations.begun

    def begun(rows, tokenizer):
        return [change(row, tokenizer) for row in original(rows, tokenizer)]

    return together(patch.object(language_modeling, "begun", begun),
                    patch.object(generation, "begun", begun))


@plants("doubled BOS", check="one beginning", tasks=(TEXTS,),
        symptom="nothing but a somewhat higher loss: a beginning that the model has never read",
        mend="tokenize what a template wrote with add_special_tokens=False")
def doubled_bos():
    """The template writes the beginning, and the tokenizer puts it there once more."""

    def change(row, tokenizer):
        first = tokenizer.bos_token_id
        return row if first is None else [first, *([] if row[:1] == [first] else [first]), *row]

    return _beginning(change)


@plants(
    "missing BOS", check="the beginning is there", tasks=(TEXTS,),
    symptom="a much higher loss at first (for some models), and a longer training to get over it",
    mend="begin with what the tokenizer puts before a text by itself",
)
def missing_bos():
    def change(row, tokenizer):
        first = conversations.beginning(tokenizer)
        return row[len(first) :] if first and row[: len(first)] == first else row

    return _beginning(change)


@plants("answers cut", check="answers are whole", tasks=(TEXTS,),
        symptom="answers that break off, or go on for ever",
        mend="raise max_length, or cut prompts from the left")
def answers_cut():
    original = fit.encode

    def encode(rows, model, **given):
        whole = original(rows, model, **given)
        limit = int(np.median(whole.lengths)) - 1
        return original(rows, model, **given | {"max_length": max(2, limit)})

    return patch.object(fit, "encode", encode)


@plants("labels shifted twice", check="labels are the tokens", tasks=(TEXTS,),
        symptom="a loss that falls, more slowly: the model learns the token after the next",
        mend="give labels as the inputs; the model shifts them itself")
def labels_shifted_twice():
    def change(labels, model):
        shifted = torch.roll(labels, -1, dims=1)
        shifted[:, -1] = IGNORED
        return shifted

    return _collating(change)


@plants("other template at inference", check="asked as trained", tasks=(TEXTS,),
        symptom="a good validation loss, and poor answers in use",
        mend="one function writes the prompt, for training and for use")
def other_template():
    original = predict.as_prompt_and_response

    def other(dataset, tokenizer, **given):
        prompts, responses = original(dataset, tokenizer, **given)
        return [f"Question: {prompt}\nAnswer:" for prompt in prompts], responses

    return together(patch.object(predict, "as_prompt_and_response", other),
                    patch.object(evaluate, "as_prompt_and_response", other))


@plants("padding attended to", check="padding changes nothing", tasks=(CLASSES,),
        symptom="answers that depend on which other texts are in the batch",
        mend="pass the attention mask; compare a text alone with the same text in a batch")
def padding_attended_to():
    original = Collator.ids

    def ids(self, ids):
        batch = original(self, ids)
        return batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}

    return patch.object(Collator, "ids", ids)


@plants("packed texts see each other", check="packed texts are apart", tasks=(TEXTS,),
        symptom="a validation loss that depends on how the rows were packed",
        mend="pass where each text begins (cu_seq_lens, position_ids), with a kernel that reads it")
def packed_texts_see_each_other():
    original = padding_free._one_by_one

    def as_one(query, key, value, starts, scaling, window):
        return original(query, key, value, starts[[0, -1]], scaling, window)

    return patch.object(padding_free, "_one_by_one", as_one)
