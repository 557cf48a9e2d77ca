"""What a tuned model should still be able to do: questions, general text, the form of a chat."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ftkit.data.conversations import turn_marks
from ftkit.data.load import load_data
from ftkit.data.templates import apply_template
from ftkit.errors import SettingError
from ftkit.evaluation.evaluate import Evaluation, evaluate, from_predictions, from_scores
from ftkit.evaluation.generation import generate, log_likelihood
from ftkit.evaluation.metrics import softmax
from ftkit.models.model import Model

LOWER_IS_BETTER = {"loss", "perplexity", "rmse", "mae", "calibration_error"}
PASSAGE = 60  # words of a passage that a yes/no question is asked about
ANSWER = 64  # tokens in which an answer of one sentence should have ended
# A role at the beginning of a line: the model writes the next turn itself.
_NEXT_TURN = re.compile(r"^\s*(user|assistant|system|### Instruction)\s*:?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class SuitePart:
    """One thing that should not get worse.

    measure: a function from a Model to an Evaluation of the same examples each time. metric: of
    that Evaluation. bound: by how much it may get worse, in the metric's own units. applies: a
    function that tells why the part has no meaning for a model, "" where it has.
    """

    name: str
    metric: str
    bound: float
    measure: Callable[[Model], Evaluation]
    applies: Callable[[Model], str] = lambda model: ""
    _known: dict[str, Evaluation] = field(default_factory=dict, repr=False, compare=False)

    def of(self, model: Model) -> Evaluation:
        """The part's Evaluation of a model, measured once for the same weights."""
        key = model.hash() + repr(getattr(model.tokenizer, "chat_template", None))
        if key not in self._known:
            self._known[key] = self.measure(model)
        return self._known[key]


def general_suite(rows: int = 200, *, bounds: Mapping[str, float] | None = None,
                  seed: int = 0) -> list[SuitePart]:
    """What a language model should still be able to do after it was tuned, in four parts.

    rows: of each part (a quarter for the chat, whose answers are written). bounds: by how much a
    part may get worse, by its name, in place of the default. seed: which rows are drawn.
    Returns a list of SuiteParts, to which you may add your own:
    "yes/no questions": loss between yes and no, nats (boolq, test; Clark et al. 2019), bound 0.05;
    "open questions": loss of the right answer, nats a token (nq-open, test; Lee et al. 2019),
    bound 0.1; "general text": loss, nats a token (xsum-text, test; Narayan et al. 2018), bound
    0.05; "chat format": share of answers to a short question that end by themselves and write no
    other turn, bound 0.1, for models with a chat template.
    Raises SettingError for a bound of a part that does not exist, or fewer rows than 4.
    """
    if rows < 4:
        raise SettingError(f"rows={rows} can tell nothing; give 4 or more, better 200.")
    parts = [SuitePart("yes/no questions", "loss", 0.05, _yes_no(rows, seed), _decoders),
             SuitePart("open questions", "loss", 0.1, _loss_on("nq-open", rows, seed), _decoders),
             SuitePart("general text", "loss", 0.05, _loss_on("xsum-text", rows, seed), _decoders),
             SuitePart("chat format", "well formed", 0.1, _well_formed(rows // 4, seed), _chats)]
    if unknown := set(bounds or {}) - {part.name for part in parts}:
        raise SettingError(f"bounds names {min(unknown)!r}; the parts are "
                           f"{', '.join(part.name for part in parts)}.")
    return [replace(part, bound=(bounds or {}).get(part.name, part.bound)) for part in parts]


def _decoders(model):
    if model.spec.next_token:
        return ""
    return f"{model.name} is for {model.task!r}; give SuiteParts of your own"


def _chats(model):
    if not _decoders(model) and getattr(model.tokenizer, "chat_template", None):
        return ""
    return "it has no chat template"


def _loss_on(name, rows, seed):
    return lambda model: evaluate(model, load_data(name, n_test=rows, seed=seed)["test"])


def _yes_no(rows, seed):
    def measure(model):
        asked = load_data("boolq", n_test=rows, seed=seed)["test"]
        prompts = [f"{_begins(row['text_pair'])}\nQuestion: {row['text']}?\nAnswer:"
                   for row in asked]
        scores = log_likelihood(model, prompts, [" no", " yes"])
        return from_predictions(scores.argmax(1), np.array(asked["label"]), labels=["no", "yes"],
                                probabilities=softmax(list(scores)), dataset=asked)
    return measure


def _begins(passage):
    return " ".join(passage.split()[:PASSAGE])


def _well_formed(rows, seed):
    def measure(model):
        asked = load_data("nq-open", n_test=rows, seed=seed)["test"]
        prompts = [apply_template({"instruction": f"{question}? Answer in one short sentence."},
                                  model.tokenizer)[0] for question in asked["question"]]
        said = generate(model, prompts, max_new_tokens=ANSWER)
        return from_scores("well formed", [float(_is_one_turn(text, model)) for text in said],
                           dataset=asked)
    return measure


def _is_one_turn(text: str, model: Any) -> bool:
    """Whether an answer says something, ended by itself, and holds no beginning of another turn."""
    tokens = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    opening = turn_marks(model.tokenizer)[0].strip()
    return bool(text.strip()) and len(tokens) < ANSWER and not _NEXT_TURN.search(text) and not (
        opening and opening in text)


def names(parts: Sequence[SuitePart]) -> list[str]:
    """The names of parts. Raises SettingError where there are none, or two of one name."""
    found = [part.name for part in parts]
    if not found or len(set(found)) != len(found):
        raise SettingError(f"the general suite has the parts {found}; at least one is needed, each "
                           "by a name of its own, such as those of ft.general_suite().")
    return found
