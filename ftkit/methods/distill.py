"""Knowledge distillation: a small student learns what a large teacher would say.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; Sun et al. 2019, "Patient
Knowledge Distillation for BERT Model Compression".
"""

from dataclasses import dataclass, field

import torch

from ftkit.errors import SettingError
from ftkit.methods import teacher as teachers
from ftkit.methods.base import WrappedMethod
from ftkit.models import structure

TASKS = ("classification", "tagging", "causal-lm", "seq2seq-lm")


@dataclass(frozen=True)
class Distill(WrappedMethod):
    """Train a student on the answers of a teacher, and on labels where wanted.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; with hidden, Sun et al.
    2019, "Patient Knowledge Distillation for BERT Model Compression". teacher: a Model with the
    student's task, labels and vocabulary. temperature: of both answers; above 1 it shows what the
    teacher holds for the next most likely. alpha: the share of the teacher's answers in the loss;
    the rest is the labels', so 1 needs no right label. hidden: how much it weighs that the mean
    vector of a text after each block of the student is that of the teacher at the same share of its
    depth. top_k: of a vocabulary, how many of the teacher's likeliest words are kept. trainable: a
    method that says which weights learn, such as Freeze(unfreeze_last=2); None for all.

    The teacher reads each text once, at the latest when training first meets it; `prepare` asks
    about a whole data set, and keeps the answers in files for later runs.
    """

    teacher: object = None
    temperature: float = 2.0
    alpha: float = 0.5
    hidden: float = 0.0
    top_k: int = 64
    trainable: object = None
    _asked: object = field(default=None, init=False, repr=False, compare=False)

    lesson = "13_distillation"
    when = "a small device or many requests, a good large model, texts without labels"
    example = {}  # settings in the table of methods

    def __post_init__(self):
        if not self.temperature > 0 or not 0 <= self.alpha <= 1 or not self.hidden >= 0:
            raise SettingError(f"Distill(temperature={self.temperature}, alpha={self.alpha}, "
                               f"hidden={self.hidden}): choose a temperature above 0, alpha from 0 "
                               "to 1, and hidden 0 or more.")
        if self.teacher is not None:
            object.__setattr__(self, "_asked", teachers.Teacher(self.teacher, self.top_k))

    @property
    def asks(self):
        """What the network is asked for in training, beside its answer."""
        return {"output_hidden_states": True} if self.hidden else {}

    @property
    def replaces(self):
        """The tasks whose own loss is not used."""
        return TASKS if self.alpha == 1 else ()

    def apply(self, model):
        """Make the student's weights trainable. Returns the model.

        Raises SettingError when teacher and student differ in task, labels or vocabulary, or when
        hidden states are to be matched and their widths differ.
        """
        if self.teacher is not None:
            self._check(model)
        return self.free(model)

    def prepare(self, dataset, *, max_length=None, loss_on="response", batch_size=32):
        """Ask the teacher about every row now, in batches of similar length, and keep the answers.

        max_length, loss_on: the same as will be given to fit. Returns the data set; for
        classification without a column `label`, with the teacher's answers as such.
        """
        said = self._asked.prepare(dataset, batch_size, max_length=max_length, loss_on=loss_on)
        if self.teacher.spec.answer == "class" and "label" not in dataset.column_names:
            return type(dataset).from_dict(dataset[:] | {"label": said})
        return dataset

    def loss(self, net, inputs, outputs, loss):
        """alpha * T² * KL(teacher || student) + (1 - alpha) * loss, and hidden * distance.

        A mean over the batch's answers. The distance of a text counts for each of its answers.
        """
        if self.teacher is None:
            raise SettingError("Distill needs somebody to learn from; give it a teacher=.")
        asked = {k: v for k, v in inputs.items() if k not in ("logits_to_keep", "shift_labels")}
        logits, index, theirs = zip(*self._asked.about(asked), strict=True)
        said = teachers.labelled_logits(self.teacher.spec, inputs, outputs).float()
        if not len(said):  # no labelled token in the batch
            return loss
        wanted, index = torch.cat(logits).to(loss.device), torch.cat(index).to(loss.device)
        soft = kd_loss(said, wanted, self.temperature, index)
        mixed = (1 - self.alpha) * loss + self.alpha * soft
        if not self.hidden:
            return mixed
        own = teachers.vectors_of(outputs.hidden_states, inputs["attention_mask"])
        theirs = torch.stack(theirs).to(loss.device)  # (texts, blocks of the teacher, width)
        depth, blocks = own.shape[1], theirs.shape[1]
        same_share = [(i + 1) * blocks // depth - 1 for i in range(depth)]
        answers = None
        if self.teacher.spec.answer != "class":
            labels = teachers.targets(self.teacher.spec, inputs)
            answers = labels.ne(structure.IGNORED).sum(1)
        return mixed + self.hidden * hidden_state_loss(own, theirs[:, same_share], answers)

    def _check(self, model):
        teacher = self.teacher
        if model.task not in TASKS or (self.hidden and model.spec.target):
            raise SettingError(f"Distill(hidden={self.hidden}) does not know task {model.task!r}; "
                               f"it knows {', '.join(TASKS)}, and hidden states for all but the "
                               "last.")
        for what in ("task", "labels"):
            one, two = getattr(teacher, what), getattr(model, what)
            if one != two:
                raise SettingError(f"the teacher's {what}, {one!r}, must be the student's: "
                                   f"{two!r}.")
        if teacher.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise SettingError(f"{teacher.name} and {model.name} have other vocabularies, and a "
                               "teacher must read what the student reads; make the student with "
                               "ft.drop_layers(teacher, blocks).")
        widths = [structure.inner(m.net).config.hidden_size for m in (teacher, model)]
        if self.hidden and widths[0] != widths[1]:
            raise SettingError(f"hidden={self.hidden} compares vectors of {widths[0]} and "
                               f"{widths[1]} numbers; use hidden=0, or a student of the teacher's "
                               "width.")


def kd_loss(student, teacher, temperature, index=None):
    """T² * KL(teacher || student) of logits (answers, classes) at a temperature, a mean.

    index: which of the student's classes the teacher's logits are of; by default all, in order.
    T² makes up for the gradients, which are that much smaller (Hinton et al. 2015, section 2.1).
    """
    said = (student / temperature).log_softmax(-1)
    wanted = (teacher / temperature).log_softmax(-1)
    if index is not None:
        said = said.gather(-1, index)
    return temperature**2 * (wanted.exp() * (wanted - said)).sum(-1).mean()


def hidden_state_loss(one, two, answers=None):
    """The mean squared distance of vectors of length 1 (Sun et al. 2019, equation 7).

    answers: how often the vectors of each text count; by default once.
    """
    one, two = (torch.nn.functional.normalize(v.float(), dim=-1) for v in (one, two))
    found = (one - two).square().sum(-1)
    if answers is None:
        return found.mean()
    return (found.flatten(1).mean(1) * answers).sum() / answers.sum()
