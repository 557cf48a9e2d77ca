"""What fit looks at before it computes anything: its settings, the updates, what there is to learn.

Each that cannot be meant is an error with the value, what was expected, and what to do.
"""

import inspect
import math
import numbers

from ftkit.errors import DataError, SettingError
from ftkit.models.specs import SPECS
from ftkit.models.structure import IGNORED


def check_method(method):
    """Raise SettingError for what is no method, such as its name or its class."""
    if inspect.isclass(method) and hasattr(method, "apply"):
        raise SettingError(f"method={method.__name__} is the class; give one with its settings, "
                           f"such as method=ft.{method.__name__}().")
    if not callable(getattr(method, "apply", None)):
        from ftkit import methods

        known = [name for name in methods.__all__ if hasattr(getattr(methods, name), "apply")]
        same = [name for name in known if name.lower() == str(method).lower().replace("_", "")]
        raise SettingError(f"method={method!r} is no method; give one of the kit's, such as "
                           f"method=ft.{(same or ['LoRA'])[0]}(). There are {', '.join(known)}.")


def check_numbers(**given):
    """Raise SettingError unless each setting is a number of its kind, or None where it may be.

    epochs, batch_size, max_length and patience must be above 0; all but epochs, learning_rate and
    warmup are whole.
    """
    for name, value in given.items():
        whole = name in ("batch_size", "max_length", "patience", "seed")
        kind = numbers.Integral if whole else numbers.Real
        if value is None and name in ("max_length", "patience", "learning_rate"):
            continue
        positive = name in ("epochs", "batch_size", "max_length", "patience")
        least = (1 if whole else 1e-12) if positive else 0
        if not (isinstance(value, kind) and math.isfinite(value)) or value < least:
            expected = f"a {'whole ' * whole}number {'above 0' if positive else 'from 0 on'}"
            raise SettingError(f"{name}={value!r} was given; {expected} is expected.")


def count_updates(settings, rows, processes):
    """How many updates a training and an epoch of it have, as the Trainer counts its settings."""
    whole = math.floor if settings.get("dataloader_drop_last") else math.ceil
    batches = whole(rows / (settings["per_device_train_batch_size"] * processes))
    epoch = max(1, math.ceil(batches / settings["gradient_accumulation_steps"]))
    if settings.get("max_steps", -1) > 0:
        return settings["max_steps"], epoch
    return max(1, math.ceil(settings["num_train_epochs"] * epoch)), epoch


def check_base(model, method):
    """Raise SettingError where a peft adapter's base would be trained: it is saved without it."""
    if not getattr(model.net, "peft_config", None):
        return
    base = model.net.get_base_model()
    body = base if model.spec.writes else base.base_model
    if any(p.requires_grad and "lora_" not in name and "modules_to_save" not in name
           for name, p in body.named_parameters()):
        raise SettingError(
            f"{type(method).__name__} would train the base under the adapter of {model.name}, and "
            "an adapter is saved without its base. Put LoRA into the weights first, "
            "ft.merge(model); or begin with the base, and add an adapter to what was trained."
        )


def check_losses(model, method, smoothing, own):
    """Raise SettingError where label smoothing or a loss of the caller's would not be used.

    smoothing: label_smoothing_factor. own: compute_loss_func, or None.
    """
    asked = "label_smoothing_factor" if smoothing else "compute_loss_func" if own else None
    if asked is None:
        return
    name = type(method).__name__
    if model.task in getattr(method, "replaces", ()):
        raise SettingError(f"{name} has a loss of its own for {model.task}, in which {asked} would "
                           "do nothing; leave it out, or choose another method.")
    if smoothing and own:
        raise SettingError("label_smoothing_factor and compute_loss_func were both given, and only "
                           "one loss can be learned from; smooth the labels in your own function.")
    if smoothing and model.spec.answer == "number":
        raise SettingError(f"label_smoothing_factor={smoothing} spreads a label over classes, and "
                           f"{model.name} is loaded for regression, which has none; leave it out.")


def check_saving(folder, resume, passed):
    """Raise SettingError where checkpoints are asked for, and no folder to keep them in."""
    saves = [f"{name}={passed[name]!r}" for name in ("save_strategy", "load_best_model_at_end")
             if passed.get(name, "no") not in ("no", False)]
    asked = [*saves, *(["resume=True"] if resume else [])]
    if asked and not folder:
        raise SettingError(f"{asked[0]} was given without checkpoint_dir, and checkpoints would be "
                           "written where nobody finds them; give fit checkpoint_dir=, or "
                           "patience= to end with the best weights.")
    if "output_dir" in passed:
        raise SettingError(f"output_dir={passed['output_dir']!r} has another name here: give fit "
                           "checkpoint_dir=.")


def check_supervised(task, rows, split="train"):
    """Raise DataError for data of which nothing can be learned. Returns what was cut, in words.

    rows: an Encoded. The words are empty where everything was short enough.
    """
    _need_labels(task, rows)
    said = str(rows.cut)
    # Masked words are drawn anew in each epoch.
    spec = SPECS[task]
    if not spec.masked and not sum(_count(spec, row["labels"]) for row in rows.rows):
        short = "A text needs two tokens or more."
        why = said or (short if spec.next_token else "Every label is ignored.")
        raise DataError(f"nothing is left to learn from in the split {split!r}: none of its "
                        f"{len(rows):,} rows has a token or a label that carries loss. {why}")
    return said and f"{split}: {said}"


def _count(spec, labels):
    if not isinstance(labels, list):
        return 1
    return sum(label != IGNORED for label in (labels[1:] if spec.next_token else labels))


def _need_labels(task, rows):
    # Masked words are their own labels: the collator draws them.
    if SPECS[task].answer is None:
        raise SettingError("an encoder without a head has nothing to learn; load it with "
                           'task="classification", "choice", "masked-lm" or another.')
    if not SPECS[task].masked and "labels" not in rows[0]:
        raise DataError("column 'label' is missing; training needs the right answers.")
