"""Does a training over- or underfit? What its two loss curves say, drawn, and to look around in."""

from ftkit.display import COLORS, LINES, MARKERS, finished, in_notebook
from ftkit.errors import SettingError

RISEN, LEARNED = 1.1, 0.7


def verdict(history):
    """What the loss curves of a training say: "overfits", "underfits" or "fits".

    history: of a Run, with the columns loss and eval_loss. It overfits when the validation loss
    has risen by a tenth since it was lowest, and underfits when even the training loss is still
    above seven tenths of what it was at first. Rules of thumb, for a first look.
    """
    training, validation = history["loss"].dropna(), history["eval_loss"].dropna()
    if validation.iloc[-1] > RISEN * validation.min():
        return "overfits"
    return "underfits" if training.iloc[-1] > LEARNED * training.iloc[0] else "fits"


def diagnose(runs):
    """Show the loss curves of one or several runs with what they say.

    runs: a Run, or {name: Run}, trained with a validation split. Where somebody watches and
    ipywidgets is there, returns a widget to choose the run and the epoch up to which to look;
    elsewhere the matplotlib Figure with a panel for each run. Raises SettingError for a run that
    has no validation curve.
    """
    runs = runs if isinstance(runs, dict) else {"this run": runs}
    for name, run in runs.items():
        if "eval_loss" not in run.history:
            raise SettingError(f"run {name!r} has no validation curve, which a diagnosis needs; "
                               'train it with a split "validation".')
    if in_notebook():
        try:
            import ipywidgets
        except ImportError:
            pass
        else:
            return _widget(ipywidgets, {name: run.history for name, run in runs.items()})
    return _panels({name: run.history for name, run in runs.items()})


def _panels(histories):
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(histories), figsize=(max(4.5, 2.8 * len(histories)), 3.2),
                                dpi=100, sharey=True, squeeze=False, layout="constrained")
    for one, (name, history) in zip(axes[0], histories.items(), strict=True):
        for i, (column, label) in enumerate((("loss", "training"), ("eval_loss", "validation"))):
            rows = history.dropna(subset=[column])
            one.plot(rows["epoch"], rows[column], label=label, color=COLORS[i], marker=MARKERS[i],
                     linestyle=LINES[i], markersize=4)
        one.spines[["top", "right"]].set_visible(False)
        one.set(title=f"{name}: {verdict(history)}", xlabel="epochs")
        one.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("loss (nats an example)")
    axes[0][0].legend(frameon=False, fontsize=9)
    return finished(figure)


def _widget(ipywidgets, histories):
    """Choose a run, and how far to look: what would have been said at that time?"""
    last = max(int(history["epoch"].max()) for history in histories.values())

    def look(run, epochs):
        history = histories[run]
        return _panels({run: history[history["epoch"] <= epochs]})

    return ipywidgets.interactive(
        look,
        {"auto_display": True},  # the figure, too, and not the two controls alone
        run=ipywidgets.Dropdown(options=list(histories), description="run"),
        epochs=ipywidgets.IntSlider(value=last, min=1, max=last, description="up to epoch"),
    )
