"""Tables and figures: titled, with units, readable in black and white, anywhere."""

import html
import os
import sys

MANY = 12  # points of a loss curve, from which on it is smoothed
SIZE = (6, 3.5)  # inches, at 100 dots an inch
MARKERS = "osD^vXP*"
LINES = ("-", "--", "-.", ":")
SHADES = ("0.15", "0.45", "0.65", "0.8")
# What tells a notebook that somebody has open from one that papermill or nbval runs: Jupyter's
# server, VS Code and Colab set these for the kernels that they start.
FRONT_ENDS = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++")


def is_plain():
    """Whether FTKIT_PLAIN asks for plain text."""
    return os.environ.get("FTKIT_PLAIN", "0") != "0"


def in_notebook():
    """Whether what is shown goes to a notebook that somebody has open."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel") and not is_plain() and any(n in os.environ for n in FRONT_ENDS)


def new_figure(size=SIZE):
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=size, dpi=100, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def finished(figure):
    """Close the figure, so that a notebook shows the returned one once and not twice."""
    from matplotlib import pyplot as plt

    plt.close(figure)
    return figure


def label_bar(axes, place, value, errors, fontsize=9, text=None):
    """Write a bar's value beyond the end of its interval, on the side that the bar points to."""
    up = value >= 0
    axes.annotate(
        text or f"{value:.3g}",
        (place, value + errors[1] if up else value - errors[0]),
        ha="center",
        va="bottom" if up else "top",
        xytext=(0, 2 if up else -2),
        textcoords="offset points",
        fontsize=fontsize,
    )
    axes.margins(y=0.12)  # room for the label


class Table:
    """Rows of a table: HTML in a notebook, plain text elsewhere. Cells are shown as text."""

    def __init__(self, rows, caption=None):
        self.rows, self.caption = [dict(row) for row in rows], caption
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))

    def _cell(self, row, column):
        value = row.get(column, "")
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    def __repr__(self):
        lines = [self.columns, *([self._cell(r, c) for c in self.columns] for r in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        text = "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return f"{self.caption}\n{text}" if self.caption else text

    def _repr_html_(self):
        style = "style='text-align:left'"
        head = "".join(f"<th {style}>{html.escape(str(c))}</th>" for c in self.columns)
        body = "".join(
            "<tr>"
            + "".join(f"<td {style}>{html.escape(self._cell(r, c))}</td>" for c in self.columns)
            + "</tr>"
            for r in self.rows
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<tr>{head}</tr>{body}</table>"


def show_table(rows, caption=None):
    """Display rows (dicts of column: value) as a table. Returns nothing."""
    from ftkit.display import display

    display(Table(rows, caption))


class Banner:
    """A notice that stands out by its border and its first words, not by colour alone."""

    def __init__(self, heading, text):
        self.heading, self.text = heading, text

    def __repr__(self):
        return f"{self.heading} {self.text}"

    def html(self):
        """The notice as HTML."""
        return (f"<div role='note' style='border-left:4px solid #d55e00;padding:4px 12px'>"
                f"<strong>{html.escape(self.heading)}</strong> {html.escape(self.text)}</div>")

    _repr_html_ = html


def display(thing):
    try:
        from IPython.display import display
    except ImportError:
        print(thing)
    else:
        display(thing)


def markdown_table(header, rows):
    """Return a Markdown table."""
    def line(words):
        return "| " + " | ".join(" ".join(w.replace("|", "\\|").split()) for w in words) + " |"
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])
