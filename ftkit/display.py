"""Tables and figures: titled, with units, readable in black and white, anywhere."""

import base64
import html
import io
import os
import re
import sys

MANY = 12  # points of a loss curve, from which on it is smoothed
SIZE = (6, 3.5)  # inches, at 100 dots an inch
LONG = 15  # characters of a cell, from which on its column gets room for more than a word
# A value with its interval or bound, which is not broken into two lines.
VALUE = re.compile(r"(at (least|most) )?[-+±]?\d[^A-Za-z]*(to [^A-Za-z]*)?")
MARKERS = "osD^vXP*"
LINES = ("-", "--", "-.", ":")
# Of Okabe and Ito's palette (2008), which the colour-blind tell apart, each dark enough on white.
# In print the markers and lines tell series apart.
COLORS = ("#222222", "#0072b2", "#d55e00", "#009e73")
# What tells a notebook that somebody has open from one that papermill or nbval runs: Jupyter's
# server, VS Code and Colab set these for the kernels that they start.
FRONT_ENDS = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")


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


def label_bar(axes, place, value, errors, text):
    """Write a text beyond the end of a bar's interval, on the side that the bar points to."""
    up = value >= 0
    axes.annotate(text, (place, value + errors[1] if up else value - errors[0]),
                  ha="center", va="bottom" if up else "top", xytext=(0, 2 if up else -2),
                  textcoords="offset points", fontsize=9)
    axes.margins(y=0.12)  # room for the label


def in_words(figure):
    """The text alternative of a matplotlib Figure: what a reader who cannot see it is told.

    Returns a paragraph: of each part its title and axes, all bars, and of each series the first,
    last, lowest and highest value.
    """
    told = [figure.get_suptitle(), *(_axes_in_words(axes) for axes in figure.axes
                                     if axes.get_label() != "<colorbar>")]
    return " ".join(" ".join(part.rstrip(".") + "." for part in told if part).split())


def _axes_in_words(axes):
    from matplotlib.collections import PathCollection
    from matplotlib.container import BarContainer

    named = [f"{name} axis: {text}" for name, text in
             (("horizontal", axes.get_xlabel()), ("vertical", axes.get_ylabel())) if text]
    column, row, told, lines = _ticks(axes.xaxis), _ticks(axes.yaxis), [], {}
    for one in axes.containers if axes.axison else ():  # without axes it is a drawing
        if isinstance(one, BarContainer):
            told.append(_label(one) + _bars(one, column, row))
        elif getattr(one, "lines", None) and one.lines[0]:  # with error bars
            lines[one] = one.lines[0]
    lines |= {one: one for one in axes.lines if one.get_label() != "_nolegend_"}
    named_lines = [one for one in lines if _label(one)]
    told += [_label(one) + _course(lines[one], column, row) for one in named_lines or lines
             if len(lines[one].get_xdata())]
    told += [_label(one) + f"{len(one.get_offsets())} points" for one in axes.collections
             if isinstance(one, PathCollection)]
    told += [_cells(image.get_array(), column, row) for image in axes.images]
    if not told:
        told = [", ".join(text.get_text() for text in axes.texts if text.get_text())]
    return ". ".join(part for part in (axes.get_title(), "; ".join(named), *told) if part)


def _label(one):
    name = str(one.get_label())
    return "" if name.startswith("_") else f"{name}: "


def _ticks(axis):
    """What says a place on an axis: the word that stands there, or the number."""
    words = {float(at): text.get_text() for at, text in
             zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)}

    def say(at):
        word = words.get(float(at), "")
        return word if any(map(str.isalpha, word)) and "$" not in word else f"{at:.4g}"

    return say


def _bars(bars, column, row):
    flat = bars.orientation == "horizontal"
    if len(bars.datavalues) > MANY:
        return f"{len(bars.datavalues)} bars, the highest {max(bars.datavalues):.3g}"
    places = [row(bar.get_y() + bar.get_height() / 2) if flat else
              column(bar.get_x() + bar.get_width() / 2) for bar in bars]
    return ", ".join(f"{at} {value:.3g}" for at, value in zip(places, bars.datavalues, strict=True))


def _cells(cells, column, row):
    """What each cell shows, as far as it shows a number."""
    from numpy.ma import masked

    if cells.ndim > 2 or cells.size > MANY:
        size = " by ".join(map(str, cells.shape))
        return f"{size} cells from {cells.min():.3g} to {cells.max():.3g}"
    lines = [[f"{column(j)} {cell:.3g}" for j, cell in enumerate(line) if cell is not masked]
             for line in cells]
    return ". ".join(f"{row(i)}: " + ", ".join(line) for i, line in enumerate(lines) if line)


def _course(line, column, row):
    """A line's first, last, lowest and highest value; each point where places have names."""
    points = [*zip(line.get_xdata(orig=False), line.get_ydata(orig=False), strict=True)]
    if len(points) == 1:
        return f"{points[0][1]:.3g} at {column(points[0][0])}"
    if any(row(y) != f"{y:.4g}" for _, y in points):
        return ", ".join(f"{row(y)} {x:.3g}" for x, y in points)
    if len({y for _, y in points}) == 1:
        return f"level at {points[0][1]:.3g}"
    if len({x for x, _ in points}) == 1:
        return f"upright at {column(points[0][0])}"
    ends = {"from": points[0], "to": points[-1]}
    for name, choose in (("lowest", min), ("highest", max)):
        found = choose(points, key=lambda point: point[1])
        if found[1] not in (points[0][1], points[-1][1]):
            ends[name] = found
    return ", ".join(f"{name} {y:.3g} at {column(x)}" for name, (x, y) in ends.items())


def describe_figures():
    """From now on, each figure that this kernel shows carries its text alternative. Elsewhere
    than in a notebook's kernel nothing happens; no library is loaded.

    In the output's metadata it stands where nbconvert's classic template looks for it (7.17), and
    JupyterLab (4.6) nowhere does: an open notebook gets the picture in HTML as well.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return
    formatter = shell.display_formatter

    def both(figure):
        words = in_words(figure)
        shown = {"text/plain": words}
        if in_notebook() and isinstance(png := formatter.formatters["image/png"](figure), str):
            shown["text/html"] = image(words, png)
        return shown, {"image/png": {"alt": words}}

    formatter.mimebundle_formatter.for_type_by_name("matplotlib.figure", "Figure", both)


def image(words, png):
    """A picture as HTML, no wider than its place; png: in base64. words: its text alternative."""
    return (f"<img alt='{html.escape(words)}' style='max-width:100%' "
            f"src='data:image/png;base64,{png.strip()}'>")


def cell(tag, text):
    """A cell of a table as HTML. Where a table is too wide for the page, it is scrolled before
    its values break and its texts become columns of one word."""
    # Blanks count where there are several, or at an end: those of tokens and of columns.
    if "  " in text or text != text.strip():
        more = ";white-space:pre-wrap"
    elif " " in text and VALUE.fullmatch(text):
        more = ";white-space:nowrap"
    else:
        more = ";min-width:9em" if len(text) > LONG else ""
    return f"<{tag} style='text-align:left{more}'>{html.escape(text)}</{tag}>"


class Table:
    """Rows of a table: HTML in a notebook, plain text elsewhere. Cells are shown as text."""

    def __init__(self, rows, caption=None):
        self.rows, self.caption = [dict(row) for row in rows], caption
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))

    def cells(self):
        """The rows as lists of texts, in the order of the columns."""
        return [[f"{value:.3f}" if isinstance(value, float) else str(value)
                 for value in (row.get(column, "") for column in self.columns)]
                for row in self.rows]

    def __repr__(self):
        lines = [self.columns, *self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return f"{self.caption}\n{text}" if self.caption else text

    def _repr_html_(self):
        head = "".join(cell("th", str(column)) for column in self.columns)
        body = "".join(f"<tr>{''.join(cell('td', text) for text in row)}</tr>"
                       for row in self.cells())
        caption = (f"<caption style='text-align:left;font-weight:bold'>{html.escape(self.caption)}"
                   "</caption>") if self.caption else ""
        return f"<table>{caption}<tr>{head}</tr>{body}</table>"


class Facts:
    """Of a class whose `facts()` are {what: value}: a table in a notebook, its own words elsewhere.

    Facts that are None or empty are left out.
    """

    def _repr_html_(self):
        return Table({"what": what, "value": value} for what, value in self.facts().items()
                     if value not in (None, ""))._repr_html_()


def show_table(rows, caption=None):
    """Display rows (dicts of column: value) as a table. Returns nothing."""
    display(Table(rows, caption))


class Picture:
    """A figure as a picture with its text alternative, and as that text elsewhere."""

    def __init__(self, figure, words=None):
        self.figure, self.words = figure, words or in_words(figure)

    def __repr__(self):
        return self.words

    def _repr_html_(self):
        file = io.BytesIO()
        self.figure.savefig(file, format="png", bbox_inches="tight")
        return image(self.words, base64.b64encode(file.getvalue()).decode())


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
    from IPython.display import display

    display(thing)


def show_widget(make, otherwise):
    """Display what `make(ipywidgets)` returns in an open notebook that has ipywidgets.

    otherwise: {mime type: text}, which is displayed elsewhere.
    """
    if in_notebook():
        try:
            import ipywidgets
        except ImportError:
            pass
        else:
            return display(make(ipywidgets))
    from IPython.display import display as show

    return show(otherwise, raw=True)


def markdown_table(header, rows):
    """Return a Markdown table."""
    def line(words):
        return "| " + " | ".join(" ".join(w.replace("|", "\\|").split()) for w in words) + " |"
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])
