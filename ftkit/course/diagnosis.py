"""Does a training over- or underfit? What its two loss curves say, drawn, and to look around in."""

from ftkit.course.view import Control, View
from ftkit.display import COLORS, LINES, MARKERS, Picture, Table, finished, in_notebook
from ftkit.errors import SettingError

RISEN, LEARNED = 1.1, 0.7
ALL = "all"


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

    runs: a Run, or {name: Run}, trained with a validation split. In an open notebook returns a
    View, to choose the run and the epoch up to which to look: what would have been said at that
    time? Its rows are "run", "up to epoch", "verdict", and both losses there. Elsewhere returns the
    matplotlib Figure with a panel for each run. Raises SettingError for a run that has no
    validation curve.
    """
    runs = runs if isinstance(runs, dict) else {"this run": runs}
    for name, run in runs.items():
        if "eval_loss" not in run.history:
            raise SettingError(f"run {name!r} has no validation curve, which a diagnosis needs; "
                               'train it with a split "validation".')
    histories = {name: run.history for name, run in runs.items()}
    return _view(histories) if in_notebook() else _panels(histories)


def _panels(histories, last=None):
    """A panel for each run, up to an epoch; the axes are those of the whole, to compare by eye."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(histories), figsize=(max(4.5, 2.8 * len(histories)), 3.2),
                                dpi=100, sharey=True, squeeze=False, layout="constrained")
    for one, (name, history) in zip(axes[0], histories.items(), strict=True):
        seen = history if last is None else history[history["epoch"] <= last]
        for i, (column, label) in enumerate((("loss", "training"), ("eval_loss", "validation"))):
            rows = seen.dropna(subset=[column])
            one.plot(rows["epoch"], rows[column], label=label, color=COLORS[i], marker=MARKERS[i],
                     linestyle=LINES[i], markersize=4)
        one.spines[["top", "right"]].set_visible(False)
        one.set(title=f"{name}: {verdict(seen)}", xlabel="epochs")
        one.xaxis.get_major_locator().set_params(integer=True)
        if last is not None:
            one.update_datalim(history.melt("epoch", ["loss", "eval_loss"]).dropna()[
                ["epoch", "value"]].to_numpy())
            one.autoscale_view()
    axes[0][0].set_ylabel("loss (nats an example)")
    axes[0][0].legend(frameon=False, fontsize=9)
    return finished(figure)


def _view(histories):
    last = max(int(history["epoch"].max()) for history in histories.values())

    def compute(run, epochs):
        rows = []
        for name in histories if run == ALL else (run,):
            seen = histories[name][histories[name]["epoch"] <= epochs]
            rows.append({"run": name, "up to epoch": epochs, "verdict": verdict(seen),
                         "training loss": seen["loss"].dropna().iloc[-1],
                         "validation loss": seen["eval_loss"].dropna().iloc[-1]})
        return rows

    def render(rows, settings):
        chosen = {row["run"]: histories[row["run"]] for row in rows}
        return [Picture(_panels(chosen, settings["epochs"])), Table(rows)]

    return View("Loss curves, and what they say", {
        "run": Control("run", ALL, (ALL, *histories)),
        "epochs": Control("up to epoch", last, low=1, high=last)}, compute, render)
