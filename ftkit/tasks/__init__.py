"""The tasks, a file each, by name: `of(model)` is the one that a model was loaded for."""

from ftkit.models.model import check_model
from ftkit.tasks.classification import Classification
from ftkit.tasks.encoder import Encoder
from ftkit.tasks.language_modeling import LanguageModeling
from ftkit.tasks.masked_lm import MaskedLM
from ftkit.tasks.multiple_choice import MultipleChoice
from ftkit.tasks.regression import Regression
from ftkit.tasks.seq2seq import Seq2Seq
from ftkit.tasks.tagging import Tagging

TASKS = {
    task.name: task
    for task in (Classification(), Regression(), Tagging(), MultipleChoice(), LanguageModeling(),
                 MaskedLM(), Seq2Seq(), Encoder())
}


def of(model):
    """The Task that a model was loaded for. Raises SettingError for what is no Model."""
    check_model(model)
    return TASKS[model.task]
