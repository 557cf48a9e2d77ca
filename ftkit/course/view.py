"""A View: rows for fixed arguments, and the means to look further.

In an open notebook it has controls, each with a name and within reach of the keyboard; elsewhere it
is a table.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ftkit.display import Table, show_widget
from ftkit.errors import FtkitError, SettingError


@dataclass(frozen=True)
class Control:
    """Something to choose: one of several options, a whole number from low to high, or a text."""

    label: str
    value: object
    options: Sequence | None = None
    low: int = 0
    high: int | None = None

    def widget(self, ipywidgets):
        """The control of ipywidgets, with a name that a screen reader says."""
        named = dict(value=self.value, description=self.label, tooltip=self.label,
                     style={"description_width": "12em"})
        if self.options is not None:
            # No Dropdown: JupyterLab 4 takes the arrow keys away from it, to go to another cell.
            named["style"] |= {"button_width": "auto"}
            return ipywidgets.ToggleButtons(options=[*self.options], **named)
        if self.high is not None:
            return ipywidgets.BoundedIntText(
                min=self.low, max=self.high, layout=ipywidgets.Layout(width="20em"), **named)
        return ipywidgets.Text(
            continuous_update=False, layout=ipywidgets.Layout(width="95%"), **named)


@dataclass
class View:
    """What was computed, and the means to look further.

    data: rows, a list of dicts, for the settings chosen last. settings: {name: value}. Shown in an
    open notebook, it has its controls above it, and `data` follows what is chosen there. Elsewhere
    it is the table of `data`.
    """

    title: str
    controls: dict[str, Control]
    compute: Callable
    render: Callable  # rows and settings to objects with __repr__ and _repr_html_
    button: str | None = None  # where a computation takes long, it waits for this button
    resets: dict = field(default_factory=dict)  # {control: {other: value}}, set back by its change
    settings: dict = field(init=False)
    data: list = field(init=False)
    watch: Callable | None = field(default=None, init=False)  # told of rows that are not whole yet

    def __post_init__(self):
        self.settings = {name: control.value for name, control in self.controls.items()}
        self.data = self.compute(**self.settings)

    def choose(self, **settings):
        """Compute for other settings, as the controls do. Returns the View itself.

        Raises SettingError for a setting that it does not have.
        """
        for name in settings.keys() - self.controls.keys():
            raise SettingError(f"{name!r} is no setting here; choose {', '.join(self.controls)}.")
        for name, others in self.resets.items():
            if settings.get(name, self.settings[name]) != self.settings[name]:
                settings = others | settings
        self.settings |= settings
        self.data = self.compute(**self.settings)
        return self

    def __repr__(self):
        return "\n".join([self.title, *map(repr, self.render(self.data, self.settings))])

    def html(self):
        """The title and what is seen below it, as HTML."""
        parts = [f"<p style='margin:0.5em 0'><strong>{html.escape(self.title)}</strong></p>"]
        for one in self.render(self.data, self.settings):
            if isinstance(one, Table) and one.caption:  # a caption breaks where its table ends
                parts.append(f"<p style='margin:1em 0 0'>{html.escape(one.caption)}</p>")
                one = Table(one.rows)
            # A widget's page has no style for tables. A long word, such as a method with its
            # settings, breaks rather than that the table is wider than the page.
            parts.append(one._repr_html_().replace(
                "'text-align:left",
                "'padding:2px 16px 2px 0;overflow-wrap:anywhere;text-align:left"))
        return f"<div style='line-height:1.4'>{''.join(parts)}</div>"

    def _ipython_display_(self):
        show_widget(self.widget, {"text/plain": repr(self), "text/html": self.html()})

    def widget(self, ipywidgets):
        """The View with its controls, a widget."""
        made = {name: control.widget(ipywidgets) for name, control in self.controls.items()}
        # What changes is read out by a screen reader, without a move of the focus.
        shown, busy = ipywidgets.HTML(), ipywidgets.HTML(layout=ipywidgets.Layout(height="2em"))

        def follow():
            shown.value = f"<div aria-live='polite'>{self.html()}</div>"

        def so_far(rows):
            self.data = rows
            follow()

        def chosen(change):
            if busy.value:  # a control that is set back
                return
            changed = made if self.button else {
                name: one for name, one in made.items() if one is change["owner"]}
            busy.value = "<em>One moment …</em>"
            self.watch = so_far
            try:
                self.choose(**{name: one.value for name, one in changed.items()})
                for name, one in made.items():
                    one.value = self.settings[name]
            except FtkitError as error:  # a callback has no cell that could show it
                shown.value = f"<p role='alert'>{html.escape(str(error))}</p>"
            else:
                follow()
            finally:
                busy.value, self.watch = "", None

        follow()
        below = []
        if self.button:
            button = ipywidgets.Button(description=self.button, tooltip=self.button)
            button.on_click(chosen)
            below.append(button)
        else:
            for one in made.values():
                one.observe(chosen, names="value")
        return ipywidgets.VBox([*made.values(), *below, busy, shown])
