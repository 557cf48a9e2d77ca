"""Without these, a page of messages could leave out the one that somebody looks for."""

import re

import pandas as pd
import pytest
import tiny
import troubleshooting_page as page

import ftkit as ft

KNOWN = page.error_names(page.ERRORS.read_text(encoding="utf-8"))


def test_the_page_is_current():
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.page(), "run `python tools/troubleshooting_page.py`"


@pytest.fixture
def found(tmp_path):
    """A function that writes a module and returns the texts of its messages."""

    def read(source):
        file = tmp_path / "module.py"
        file.write_text(source)
        return [one.text for one in page.messages(file, KNOWN)]

    return read


@pytest.mark.parametrize("source, text", [
    ('raise SettingError("rate is negative; give another.")', "rate is negative; give another."),
    ('raise DataError(f"row {i} has {names[0]!r}, " "and no label.")',
     "row ‹i› has ‹…›, and no label."),
    ('def late(hint):\n    return FetchError("nothing came: " + hint + ". Try it again.")',
     "nothing came: ‹…›. Try it again."),
    ('class DataError(ValueError):\n    def __init__(self, n):\n'
     '        super().__init__(f"{n} rows are too few of them.")', "‹n› rows are too few of them."),
    ('warnings.warn("labels look alike here", DataWarning, stacklevel=2)',
     "labels look alike here"),
])
def test_a_message_is_found_however_it_is_made(found, source, text):
    assert found(source) == [text]


def test_what_is_no_message_of_the_kit_is_left_out(found):
    assert found('raise ValueError("something of another kind")\nprint("a text that is long")\n'
                 "raise SettingError(text)\nwarnings.warn('a long text', UserWarning)") == []


def raised(call):
    with pytest.raises(ft.FtkitError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("call", [
    lambda: ft.load_model("minilm"),
    lambda: ft.load_data(pd.DataFrame({"a": ["x"], "b": ["y"]})),
    lambda: ft.fit(tiny.encoder(), tiny.reviews(), epochs=-1),
    lambda: ft.fit(tiny.encoder(), tiny.reviews(), learning_rat=1),
    lambda: ft.LoRA(rank=0).apply(tiny.encoder()),
    lambda: ft.fault("leaked row"),
])
def test_a_message_that_is_met_is_on_the_page(call):
    """Whoever searches for the words that do not differ finds the line."""
    text = " ".join(raised(call).split())
    every = [one for file in page.files() for one in page.messages(file, KNOWN)]
    fits = [one for one in every if re.fullmatch(
        "(.*)".join(map(re.escape, re.split(r"‹[^›]*›", one.text))), text)]
    assert fits, text
    shown = page.PAGE.read_text(encoding="utf-8")
    assert all(page.escaped(part).replace("|", "\\|") in shown for part in fits[0].parts())
