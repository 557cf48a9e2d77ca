"""What each task asks of a network: its class, its head, and what its labels are.

Everything else about a task, from columns to metrics, stands in `ftkit/tasks/`, a file each. Code
asks these questions and never for a task's name.
"""

from dataclasses import dataclass

CARD = "ftkit.json"  # what a saved folder says about itself, beside the weights


@dataclass(frozen=True)
class TaskSpec:
    """The facts of a task that loading and training a network depend on.

    auto: the class of transformers. answer: what a model answers with: "class", "number", "tags",
    "choice", "tokens", or None for an encoder without a head. labelled: whether the labels have
    names that loading must know. problem: what a configuration calls the task, where it does. peft:
    what peft calls it, where it has a class for it. next_token: whether a position's label is the
    token behind it. target: whether labels are a text of their own, which the network reads.
    writes: whether a model continues a text.
    """

    auto: str
    answer: str | None = None
    labelled: bool = False
    problem: str | None = None
    peft: str | None = None
    next_token: bool = False
    target: bool = False
    writes: bool = False

    @property
    def language(self):
        """Whether the loss is one of tokens: nats for each, over the vocabulary."""
        return self.answer == "tokens"

    @property
    def own_head(self):
        """Whether the head has an output for each label of the task, or the one of a number."""
        return self.answer in ("class", "number", "tags")

    @property
    def new_head(self):
        """Whether the head may be new, of weights that no checkpoint of the base has."""
        return self.own_head or self.masked

    @property
    def masked(self):
        """Whether the labels are words that each batch masks anew."""
        return self.language and not self.writes


SPECS = {
    "classification": TaskSpec("AutoModelForSequenceClassification", "class", labelled=True,
                               problem="single_label_classification", peft="SEQ_CLS"),
    "regression": TaskSpec("AutoModelForSequenceClassification",
                           "number", problem="regression", peft="SEQ_CLS"),
    "tagging": TaskSpec("AutoModelForTokenClassification", "tags", labelled=True, peft="TOKEN_CLS"),
    "causal-lm": TaskSpec("AutoModelForCausalLM",
                          "tokens", next_token=True, writes=True, peft="CAUSAL_LM"),
    "masked-lm": TaskSpec("AutoModelForMaskedLM", "tokens"),
    "seq2seq-lm": TaskSpec("AutoModelForSeq2SeqLM",
                           "tokens", target=True, writes=True, peft="SEQ_2_SEQ_LM"),
    "choice": TaskSpec("AutoModel", "choice"),
    "encoder": TaskSpec("AutoModel"),
}
TASKS = tuple(SPECS)
