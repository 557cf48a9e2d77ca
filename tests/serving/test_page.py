"""Without these, what a user types into the page would be lost, or an answer could run as code."""

import urllib.error
import urllib.request

import pytest
import tiny

import ftkit as ft

pytest.importorskip("fastapi", reason="needs the extra: pip install 'ftkit[serve]'")

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
MARKUP = "<img src=x onerror=document.title='run'>"


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    return ft.Feedback(tmp_path_factory.mktemp("said") / "said.db")


@pytest.fixture(scope="module")
def service(said):
    model = tiny.decoder()
    model.tokenizer.chat_template = TEMPLATE
    with ft.serve(model, name=f"voice {MARKUP}", feedback=said) as service:
        yield service


def test_the_page_holds_no_token_and_lets_no_other_script_run(service):
    with urllib.request.urlopen(service.page.partition("#")[0], timeout=60) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert service.token not in text and MARKUP not in text
    assert "unsafe" not in policy and "default-src 'none'" in policy


def test_without_a_store_there_is_no_page():
    model = tiny.decoder()
    model.tokenizer.chat_template = TEMPLATE
    with ft.serve(model) as service, pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(service.page.partition("#")[0], timeout=60)


def test_a_question_a_correction_and_a_thumb_reach_the_store(service, said, browser):
    tab = browser.new_page()
    tab.goto(service.page)
    assert tab.url.endswith("/")  # the token is out of the address
    tab.fill("#system", "Be brief.")
    for number, press in enumerate(("correct", "up", "down")):
        tab.fill("#question", f"Is {MARKUP} good?")
        tab.click("#ask")
        tab.wait_for_selector("#answer", state="visible")
        answer = tab.text_content("#answer")
        tab.fill("#correction", f"No. {MARKUP}")
        tab.click(f"#{press}")
        tab.wait_for_selector("#state:has-text('Kept')")
        row = said.entries()[number]
        assert row["answer"] == answer and row["review"] == "waiting"
        assert row["messages"] == [{"role": "system", "content": "Be brief."},
                                   {"role": "user", "content": f"Is {MARKUP} good?"}]
        assert row["thumb"] == ("up" if press == "up" else "down")
        assert row["correction"] == (f"No. {MARKUP}" if press == "correct" else None)
    assert tab.title() == service.name and tab.query_selector("img") is None


def test_a_wrong_token_and_a_refusal_are_told_on_the_page(service, browser):
    tab = browser.new_page()
    tab.goto(service.page.partition("#")[0] + "#wrong")
    tab.fill("#question", "Is it good?")
    tab.click("#ask")
    tab.wait_for_selector("#state:has-text('the token is missing or wrong')")
    assert not tab.is_visible("#opinion")
