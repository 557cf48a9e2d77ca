"""A model card: what a tuned model is, what it was measured on, and what it should not be used for.

Mitchell et al. 2019, "Model Cards for Model Reporting"; the head is the hub's, by huggingface_hub.
"""

from ftkit.assets import catalog
from ftkit.display import Table, markdown_table
from ftkit.errors import SettingError


def model_card(run, *, title, data, uses, limits, tables, licence="unknown", language="en"):
    """The Markdown of a model card, with its numbers taken from a run and from tables.

    run: a Run. title: of the card. data: what it was trained on, in words. uses: what it is meant
    for. limits: a list of sentences, what it should not be used for and what is known to go wrong.
    tables: {heading: rows}, rows as show_table takes them, dicts of column: value. licence and
    language go into the head, with the base's name on the hub where it has one. Returns a string,
    for ft.export(..., card=), or to be written as README.md beside saved weights.
    Raises SettingError without limits or without tables, for a card that hides them is
    advertising, and for a part that is empty.
    """
    from huggingface_hub import ModelCardData

    asked = {"title": title, "data": data, "uses": uses, "licence": licence, "language": language}
    if empty := [name for name, value in asked.items() if not value or not value.strip()]:
        raise SettingError(f"{', '.join(empty)} of the model card is empty; write a sentence, or "
                           'for a licence that you do not know "unknown".')
    if not limits or not tables or not all(tables.values()):
        raise SettingError("a model card needs limits and tables with rows; measure first, and say "
                           "what the model should not be used for.")
    model, trained = run.model, run.trainable
    entry = next((entry for entry in catalog.models() if entry.name == model.name), None)
    head = ModelCardData(license=licence, language=language, pipeline_tag=_PIPELINES[model.task],
                         base_model=_on_hub(entry.hub if entry else model.name), tags=["ftkit"])
    lines = ["---", head.to_yaml(), "---", "", f"# {title}", "", "## Model", "",
             f"- Base: {model.name}, task: {model.task}"
             + (f", labels: {', '.join(map(str, model.labels))}" if model.labels else ""),
             *([f"- Of the base: {entry.warning}"] if entry and entry.warning else []),
             f"- Method: {run.settings['method']}; {trained['trained']:,} of {trained['total']:,} "
             f"parameters trained in {run.seconds:.0f} s",
             f"- Settings: rate {run.settings['learning_rate']:g}, "
             f"{run.settings['num_train_epochs']:g} epochs, schedule "
             f"{run.settings['lr_scheduler_type']}, seed {run.settings['seed']}",
             "", "## Data", "", data, "", "## Meant for", "", uses, "",
             "## Not meant for, and known to go wrong", "", *(f"- {limit}" for limit in limits), ""]
    for heading, rows in tables.items():
        lines += [f"## {heading}", "", *_table(rows), ""]
    return "\n".join(lines)


# What the hub calls the tasks.
_PIPELINES = {"classification": "text-classification", "regression": "text-classification",
              "tagging": "token-classification", "choice": "multiple-choice",
              "causal-lm": "text-generation", "seq2seq-lm": "text2text-generation",
              "masked-lm": "fill-mask", "encoder": "feature-extraction"}


def _on_hub(name):
    """The name if the hub could have a model of it, else None: a folder is nobody else's."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:  # also for None
        return None
    return name


def _table(rows):
    table = Table(rows)
    return markdown_table(table.columns, table.cells()).split("\n")
