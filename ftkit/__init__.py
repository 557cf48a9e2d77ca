"""ftkit: every way to adapt a pretrained language model, taught in notebooks that run for real."""

from importlib import import_module

__version__ = "0.1.0"

# Public names and where each lives. They load on first use, so that `import ftkit` stays quick.
_WHERE = {
    "errors": [
        "FtkitError",
        "FetchError",
        "DataError",
        "DataWarning",
        "SettingError",
        "Diverged",
        "NotANumber",
        "ClaimNotHeld",
    ],
    "hardware": ["profile", "this_machine", "plan"],
    "shelf": ["activate", "attach"],
    "models": ["load_model", "Model", "trainable_summary"],
    "data": ["load_data", "Data"],
    "methods": [
        "Adapter",
        "Distill",
        "EWC",
        "fisher",
        "Full",
        "Freeze",
        "LoRA",
        "Mixup",
        "merge",
        "MultiTask",
        "begin_alike",
        "joint_labels",
        "mixture",
        "single_task",
        "PromptTuning",
        "PrefixTuning",
        "nearest_words",
        "Reinforce",
        "reinforce_loss",
    ],
    "search": ["rate_range", "Prune"],
    "methods.ewc": ["Memory"],
    "students": ["shrink"],
    "prompting": ["few_shot", "apply_template"],
    "answering": ["score", "calibrate", "generate", "chat"],
    "training": ["fit", "Run"],
    "predicting": ["predict"],
    "looking": ["look"],
    "evaluation": [
        "evaluate",
        "from_predictions",
        "from_values",
        "from_tags",
        "from_texts",
        "from_scores",
        "Evaluation",
    ],
    "metrics": ["rouge_l"],
    "files": ["read_conll", "read_pairs"],
    "tagging": ["align_tags", "entities"],
    "resampling": ["bootstrap", "Estimate"],
    "power_analysis": ["power"],
    "comparing": ["compare"],
    "evidence": ["claim", "conclude"],
    "records": ["runs"],
    "exercises": ["check", "cases"],
    "diagnosis": ["diagnose", "verdict"],
    "modelcard": ["model_card"],
    "show": [
        "plot_history",
        "plot_bars",
        "plot_curve",
        "plot_confusion",
        "plot_calibration",
        "show_examples",
        "show_tokens",
        "show_table",
    ],
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}
__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name):
    if name in _MODULE_OF:
        # Kept here, so that the second use costs nothing.
        value = getattr(import_module(f"ftkit.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ftkit' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
