"""A model card: what a tuned model is, what it was measured on, and what it should not be used for.

Mitchell et al. 2019, "Model Cards for Model Reporting"; the head is the hub's format.
"""

import json

from ftkit.errors import SettingError


def model_card(run, *, title, data, uses, limits, tables, licence="unknown", language="en"):
    """The Markdown of a model card, with its numbers taken from a run and from tables.

    run: a Run. title: of the card. data: what it was trained on, in words. uses: what it is meant
    for. limits: a list of sentences, what it should not be used for and what is known to go wrong.
    tables: {heading: rows}, rows as show_table takes them, dicts of column: value. licence and
    language go into the head. Returns a string; write it as README.md beside the saved weights.
    Raises SettingError without limits or without tables: a card that hides them is advertising.
    """
    if not limits or not tables or not all(tables.values()):
        raise SettingError(
            "a model card needs limits and tables with rows; measure first, and say what the "
            "model should not be used for."
        )
    model, trained = run.model, run.trainable
    head = {"license": licence, "language": language, "base_model": model.name,
            "pipeline_tag": _PIPELINES.get(model.task, model.task), "tags": ["ftkit"]}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", "",
             f"# {title}", "", "## Model", "",
             f"- Base: {model.name}, task: {model.task}"
             + (f", labels: {', '.join(map(str, model.labels))}" if model.labels else ""),
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


_PIPELINES = {"classification": "text-classification", "tagging": "token-classification",
              "causal-lm": "text-generation", "seq2seq-lm": "text2text-generation",
              "masked-lm": "fill-mask"}


def _table(rows):
    from ftkit.display import markdown_table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    return markdown_table(columns, cells).split("\n")


def _cell(value):
    return f"{value:.3f}" if isinstance(value, float) else str(value)
