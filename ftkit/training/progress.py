"""What somebody sees of a training while it runs: a page in a notebook, single lines elsewhere."""

import base64
import html
import math
import sys
import time
from contextlib import contextmanager

import transformers

from ftkit import display
from ftkit.training.measure import held

ROWS = 8  # of the table: the latest, and the best before them
EVERY = 0.5  # seconds between two updates of the page
COLOURS = ("#0072b2", "#d55e00")  # told apart by colour-blind readers, too
GREY = "#767676"  # can be read on white and on black
SIZE = (440, 200)  # of the curve, in pixels, and its margins
LEFT, RIGHT, TOP, BOTTOM = 64, 80, 8, 36


def shown(quiet):
    """What tells of a training here: Page in a notebook, Lines elsewhere."""
    if display.in_notebook():
        return Brief() if quiet else Page()
    return Lines(quiet)


class Lines(transformers.TrainerCallback):
    """A line for each evaluation, the same in a batch and in a terminal, which has a bar, too."""

    bar = loss = None

    def __init__(self, quiet):
        self.quiet, self.tokens = quiet, 0

    def tell(self, *texts):
        """Print what everybody should read; empty texts are left out."""
        for text in filter(None, [] if self.quiet else texts):
            print(text)

    details = tell

    def on_train_begin(self, args, state, control, **_):
        if sys.stderr.isatty() and state.is_world_process_zero and not display.is_plain():
            from tqdm import tqdm

            self.bar = tqdm(total=state.max_steps, unit="update", leave=False)

    def on_step_end(self, args, state, control, **_):
        if self.bar is not None:
            self.bar.update()

    def on_log(self, args, state, control, logs=None, **_):
        self.loss = (logs or {}).get("loss", self.loss)

    def on_evaluate(self, args, state, control, metrics=None, **_):
        if not self.quiet and "eval_loss" in (metrics or {}):
            train = f"{self.loss:.3f}" if self.loss is not None else "-"
            print(f"epoch {state.epoch:4.1f}   training loss {train}   "
                  f"validation loss {metrics['eval_loss']:.3f}")

    def on_train_end(self, args, state, control, **_):
        if self.bar is not None:
            self.bar.close()

    def end(self, words, important=False):
        """Say how the training ended, where that is not what anybody would expect."""
        if important:
            print(words)

    def failed(self, error):
        """Take the bar away; the error speaks for itself."""
        self.on_train_end(None, None, None)


class Page(transformers.TrainerCallback):
    """An output that is updated in place: losses, their curve, the speed and the time left.

    It is plain HTML and a picture, so that it is there when the notebook is opened again, and its
    last words say how the training ended. tokens: of one pass over the training data.
    """

    into = None  # a function that shows the page elsewhere than as an output of its own

    @classmethod
    @contextmanager
    def shown_by(cls, function):
        """Call function(page) in place of an output of its own, for trainings within a block."""
        cls.into, before = function, cls.into
        try:
            yield
        finally:
            cls.into = before

    def __init__(self):
        self.texts, self.notes, self.ended, self.tokens = [], [], None, 0
        self.losses, self.evaluations = [], []  # (epoch, loss); (update, epoch, loss, loss)
        self.step = self.steps = self.epoch = self.epochs = self.busy = 0
        self.began, self.first, self.due, self.handle = None, (0, 0), 0, None

    def tell(self, *texts):
        """Show what everybody should read."""
        self.texts += filter(None, texts)
        self.draw()

    def details(self, *texts):
        """Keep what an expert may ask for, folded away."""
        self.notes += filter(None, texts)
        self.draw()

    def draw(self):
        """Show the present state in place of the one before."""
        import IPython.display

        if self.into:
            type(self).into(self)
        elif self.handle is None:
            self.handle = IPython.display.display(self, display_id=True)
        else:
            self.handle.update(self)
        self.due = time.monotonic() + EVERY

    def on_train_begin(self, args, state, control, **_):
        self.began = self.since = time.monotonic()
        self.first, self.steps = (state.global_step, state.epoch or 0), state.max_steps
        self.epochs = args.num_train_epochs if args.max_steps <= 0 else 0
        self._look(state)

    def on_step_end(self, args, state, control, **_):
        now = time.monotonic()
        self.busy, self.since = self.busy + now - self.since, now
        self._look(state)

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in (logs or {}):
            self.losses.append((state.epoch, logs["loss"]))

    def on_evaluate(self, args, state, control, metrics=None, **_):
        if "eval_loss" in (metrics or {}):
            train = self.losses[-1][1] if self.losses else None
            self.evaluations.append((state.global_step, state.epoch, train, metrics["eval_loss"]))
        self.since, self.due = time.monotonic(), 0  # time that no token was trained in
        self._look(state)

    def _look(self, state):
        self.step, self.epoch = state.global_step, state.epoch or 0
        if time.monotonic() >= self.due:
            self.draw()

    def end(self, words, important=False):
        """Say how the training ended; nothing is updated after it."""
        self.ended = words[0].upper() + words[1:]
        self.draw()

    def failed(self, error):
        """Say that an error ended the training, which stands below."""
        if self.handle is not None or self.into:
            self.end(f"stopped by {type(error).__name__} at update {self.step:,}, see below.", True)

    def now(self):
        """How far the training is, in a sentence."""
        if self.began is None:
            return "Prepares the training."
        words = [f"Update {self.step:,} of {self.steps:,}"]
        if self.epochs:
            words.append(f"epoch {self.epoch:.1f} of {self.epochs:g}")
        if self.busy and self.epoch > self.first[1]:
            words.append(f"{self.tokens * (self.epoch - self.first[1]) / self.busy:,.0f} tokens/s")
        words.append(f"{held() / 1e9:.1f} GB of memory")
        if done := self.step - self.first[0]:
            left = (time.monotonic() - self.began) / done * (self.steps - self.step)
            words.append(f"about {duration(left)} left")
        return ", ".join(words)

    def __repr__(self):
        rows = [f"epoch {epoch:4.1f}   training loss {'-' if train is None else f'{train:.3f}'}   "
                f"validation loss {loss:.3f}" for _, epoch, train, loss in self.evaluations]
        return "\n".join([*self.texts, *rows, self.ended or self.now()])

    def _repr_html_(self):
        parts = [f"<div>{html.escape(text)}</div>" for text in self.texts]
        if self.began is not None:
            parts.append("<div style='display:flex;flex-wrap:wrap;align-items:flex-start'>"
                         f"{self._curve()}{self._table()}</div>")
        if self.ended:
            parts.append(f"<div><strong>{html.escape(self.ended)}</strong></div>")
        else:
            share = self.step / self.steps if self.steps else 0
            parts.append("<div><progress aria-label='share of the training that is done' "
                         f"value='{share:.3f}' max='1'></progress> "
                         f"<strong>{html.escape(self.now())}</strong></div>")
            parts.append(
                f"<div>As of {time.strftime('%H:%M:%S')}. ■ above stops the training; you get the "
                "weights so far. If you close this page, the training goes on, and the page shows "
                "this moment when it is opened again.</div>")
        if self.notes:
            lines = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)
            parts.append("<details><summary>What was chosen for this machine, and why</summary>"
                         f"{lines}</details>")
        return "".join(parts)

    def _table(self):
        if not self.evaluations:
            return ""
        best = min(row[3] for row in self.evaluations)
        before, rows = self.evaluations[:-ROWS], self.evaluations[-ROWS:]
        rows = [row for row in before if row[3] == best] + rows
        return display.Table({"update": f"{step:,}", "epoch": f"{epoch:.1f}",
                              "training loss": "–" if train is None else f"{train:.3f}",
                              "validation loss": f"{loss:.3f}{' (lowest)' * (loss == best)}"}
                             for step, epoch, train, loss in rows)._repr_html_()

    def _curve(self):
        """The losses over the epochs as a picture, with a text that says the same."""
        lines = {"training": self.losses,
                 "validation": [(epoch, loss) for _, epoch, _, loss in self.evaluations]}
        lines = {name: [point for point in line if math.isfinite(point[1])]
                 for name, line in lines.items()}
        whole = 0 if self.ended else self.epochs  # while it runs, the curve grows into its frame
        if not (picture := drawing(lines, whole)):
            return ""
        said = "; ".join(f"{name} loss from {line[0][1]:.3f} to {line[-1][1]:.3f}"
                         for name, line in lines.items() if line)
        coded = base64.b64encode(picture.encode()).decode()
        return (f"<img alt='Curve of the training: {said}.' width='{SIZE[0]}' "
                "style='max-width:100%;height:auto' "
                f"src='data:image/svg+xml;base64,{coded}'>")


class Brief(Page):
    """One line for all the quiet trainings of a cell, such as those of a sweep."""

    last = None  # of the kernel: (number of the cell, handle, trainings ended)

    def __init__(self):
        super().__init__()
        cell = sys.modules["IPython"].get_ipython().execution_count
        if Brief.last and Brief.last[0] == cell:
            _, self.handle, self.before = Brief.last
        else:
            self.before = 0
        self.cell = cell

    def tell(self, *texts):
        """A quiet training says nothing."""

    details = tell

    def end(self, words, important=False):
        """Say how many trainings of the cell have ended, or how this one did where it matters."""
        number = self.before + 1
        told = f"{number} trainings" if number > 1 else "1 training"
        super().end(words if important else f"{told} done in this cell.")
        Brief.last = (self.cell, self.handle, number)

    def now(self):
        """How far the training is, in a sentence."""
        return f"Training {self.before + 1} of this cell: {super().now()}"

    def __repr__(self):
        return self.ended or self.now()

    def _repr_html_(self):
        return f"<div>{html.escape(repr(self))}</div>"


def ending(state, keep, interrupted, seconds):
    """How a training ended, in words, and whether that is what anybody would expect.

    keep: KeepBest or None. interrupted: where somebody did, or None.
    """
    kept = f"weights of epoch {keep.epoch:g}" if keep and keep.weights else ""
    if interrupted:
        best = kept and f"best weights so far, of epoch {keep.epoch:g}"
        return f"interrupted {interrupted}: the Run holds the {best or 'weights so far'}.", False
    best = kept and f": the {kept} are kept, with the lowest validation loss, {keep.best:.3f}"
    if keep and keep.bad >= keep.patience and state.global_step < state.max_steps:
        return f"stopped early after epoch {state.epoch:g}{best}.", False
    return f"done, {state.global_step:,} updates in {duration(seconds)}{best}.", True


def duration(seconds):
    """A number of seconds in words that can be read at a glance."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def drawing(lines, epochs=0):
    """An SVG of {name: [(epoch, loss)]}, with a marker and a name at each line, on any background.

    epochs: up to which the axis goes, if that is further than the lines. Returns "" where there are
    not two points.
    """
    points = [point for line in lines.values() for point in line]
    if len(points) < 2:
        return ""
    floor, end = SIZE[1] - BOTTOM, SIZE[0] - RIGHT
    last = max(epochs, *(epoch for epoch, _ in points)) or 1
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    high = high if high > low else low + 1
    digits = max(2, 1 - math.floor(math.log10(high - low)))  # enough to tell the ends apart

    def text(x, y, words, anchor="start"):
        return f"<text x='{x:.0f}' y='{y:.0f}' text-anchor='{anchor}'>{words}</text>"

    parts = [f"<path d='M{LEFT} {TOP}V{floor}H{end}' fill='none' stroke='{GREY}'/>",
             text(LEFT - 4, TOP + 8, f"{high:.{digits}f}", "end"),
             text(LEFT - 4, floor, f"{low:.{digits}f}", "end"),
             text(LEFT, floor + 14, "0"), text(end, floor + 14, f"{last:.3g}", "end"),
             text((LEFT + end) / 2, floor + 28, "epochs", "middle")]
    heights = []
    for (name, line), colour in zip(lines.items(), COLOURS, strict=True):
        where = [(LEFT + epoch / last * (end - LEFT),
                  TOP + (high - loss) / (high - low) * (floor - TOP)) for epoch, loss in line]
        if not where:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        square = name == "validation"
        dashes = "6 3" if square else "none"
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2' "
                     f"stroke-dasharray='{dashes}'/>")
        parts += [f"<rect x='{x - 3:.1f}' y='{y - 3:.1f}' width='6' height='6' fill='{colour}'/>"
                  if square else f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.5' fill='{colour}'/>"
                  for x, y in where]
        height = where[-1][1] + 4
        if heights and abs(height - heights[0]) < 13:  # one name above the other
            height = heights[0] + (13 if height >= heights[0] else -13)
        heights.append(height)
        parts.append(text(where[-1][0] + 8, height, name))
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {SIZE[0]} {SIZE[1]}' "
            f"font-family='sans-serif' font-size='12' fill='{GREY}'>" + "".join(parts) + "</svg>")
