"""ftkit: every way to adapt a pretrained language model, taught in notebooks that run for real."""

from importlib import import_module

from ftkit.display import describe_figures

__version__ = "0.1.0"

# Public names and where each lives. They load on first use, so that `import ftkit` stays quick.
_WHERE = {
    "errors": ["FtkitError", "FetchError", "DataError", "DataWarning", "SettingError", "Diverged",
               "NotANumber", "ClaimNotHeld"],
    "models.hardware": ["profile", "this_machine", "plan"],
    "models.adapters": ["set_adapter", "load_adapter"],
    "models.load": ["load_model"],
    "models.model": ["Model", "trainable_summary"],
    "data.load": ["load_data", "Data"],
    "methods": ["Adapter", "Distill", "EWC", "fisher", "Full", "Freeze", "LoRA", "Mixup", "merge",
                "MultiTask", "share_label_init", "joint_labels", "temperature_sampling",
                "extract_task_head", "PromptTuning", "PrefixTuning", "nearest_words", "Reinforce",
                "reinforce_loss"],
    "training.search": ["rate_range", "Prune"],
    "methods.ewc": ["EWCState"],
    "models.drop_layers": ["drop_layers"],
    "data.templates": ["few_shot", "apply_template"],
    "evaluation.generation": ["log_likelihood", "contextual_calibration", "generate", "chat"],
    "training.fit": ["fit", "Run"],
    "evaluation.predict": ["predict"],
    "tasks.look": ["look"],
    "evaluation.evaluate": ["evaluate", "from_predictions", "from_values", "from_tags",
                            "from_texts", "from_scores", "Evaluation"],
    "evaluation.metrics": ["rouge_l"],
    "data.files": ["read_conll", "read_pairs"],
    "tasks.tagging": ["align_tags", "entities"],
    "evaluation.resampling": ["bootstrap", "Estimate"],
    "evaluation.power": ["power"],
    "evaluation.compare": ["compare"],
    "serving.hosted": ["ChatFile", "check_chats", "export_chats"],
    "deploy.parity": ["parity"],
    "deploy.registry": ["register", "list_versions", "promote", "roll_back", "compare_versions"],
    "deploy.suite": ["general_suite", "SuitePart"],
    "deploy.export": ["export"],
    "deploy.gate": ["ship", "forgotten"],
    "serving.serve": ["serve"],
    "serving.feedback": ["Feedback"],
    "course.claims": ["claim", "conclude"],
    "training.records": ["runs"],
    "batch.index": ["lessons"],
    "course.exercises": ["check", "cases"],
    "course.quiz": ["quiz"],
    "course.hints": ["hint"],
    "course.diagnosis": ["diagnose", "verdict"],
    "course.faults": ["fault"],
    "course.sanity": ["sanity_checks"],
    "course.advise": ["advise", "Advice"],
    "course.model_card": ["model_card"],
    "training.curves": ["plot_history"],
    "course.plots": ["plot_bars", "plot_curve", "plot_confusion", "plot_calibration",
                     "show_examples", "show_tokens"],
    "course.explore": ["inspect_tokens", "side_by_side", "browse_flips", "build_prompt"],
    "course.explore_model": ["inspect_attention", "inspect_occlusion"],
    "course.explore_runs": ["explore_runs"],
    "course.faults.game": ["which_fault"],
    "course.forgetting": ["forgetting_map"],
    "course.your_own": ["your_own"],
    "display": ["show_table"],
    "batch.front": ["batch"],
    "reproduce.difference": ["explain_difference"],
    "reproduce.capsule": ["capsule"],
    "reproduce.replay": ["replay"],
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}
__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name):
    if name in _MODULE_OF:
        value = getattr(import_module(f"ftkit.{_MODULE_OF[name]}"), name)
        # Kept here, so that the second use costs nothing; `batch` is the room, which can be called.
        return globals().setdefault(name, value)
    raise AttributeError(f"module 'ftkit' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


describe_figures()
