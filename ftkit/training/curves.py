"""The curve of a training: loss on training and validation data over the updates."""

from ftkit.display import COLORS, LINES, MANY, MARKERS, finished, new_figure


def plot_history(run):
    """The loss of a run on training and validation data over the epochs. Returns the Figure."""
    figure, axes = new_figure()
    for i, (column, name) in enumerate((("loss", "training"), ("eval_loss", "validation"))):
        if column in run.history:
            rows = run.history.dropna(subset=[column])
            values = rows[column]
            if column == "loss" and len(values) >= MANY:
                # Batches hold texts of similar length, so that one differs a lot from the next.
                axes.plot(rows["epoch"], values, color="0.6", linewidth=0.8, zorder=1,
                          label="training")
                name = "training (running mean)"
                values = values.rolling(max(3, len(values) // 5), center=True, min_periods=1).mean()
            axes.plot(rows["epoch"], values, label=name, color=COLORS[i], marker=MARKERS[i],
                      linestyle=LINES[i], markersize=4 + 2 * i)
    if "best_epoch" in run.metrics:
        axes.axvline(
            run.metrics["best_epoch"], color="0.1", linestyle=":", linewidth=1, label="weights kept"
        )
    unit = "nats a token" if run.model.task.endswith("lm") else "nats an example"
    unit = {"regression": "squared error", "tagging": "nats a word"}.get(run.model.task, unit)
    axes.set(title="Loss while training", xlabel="epochs", ylabel=f"loss ({unit})")
    axes.legend(frameon=False, fontsize=9)
    return finished(figure)
