"""Without this, each part could work and a user's correction still never reach the next version."""

import json
import urllib.request

import pytest
import tiny
from datasets import Dataset

import ftkit as ft

pytest.importorskip("fastapi", reason="needs the extra: pip install 'ftkit[serve]'")

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
ASKED = [f"is the {word} good" for word in tiny.WORDS[:10]]
RIGHT = "the cat was warm"
# What users will ask next, and what nobody corrected: the training makes all of it less likely.
LATER = [{"messages": [{"role": "user", "content": f"was the {word} dull"},
                       {"role": "assistant", "content": RIGHT}]} for word in tiny.WORDS]
DIGITS = Dataset.from_dict({"text": [f"{number} {number * 37} 0" for number in range(40)]})


def say(service, path, body):
    """What a service answers to a plain request, as a page in a browser would send it."""
    request = urllib.request.Request(service.url + path, data=json.dumps(body).encode(), headers={
        "Content-Type": "application/json", "Authorization": f"Bearer {service.token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def asking(text):
    return [{"role": "user", "content": text}]


def by_requests(service, request):
    """Ask, and correct the answer, by plain requests."""
    for text in ASKED:
        first = say(service, "/chat/completions", {"messages": asking(text), "max_tokens": 8})
        say(service, "/feedback", {
            "messages": asking(text), "answer": first["choices"][0]["message"]["content"],
            "thumb": "down", "correction": RIGHT})


def by_clicks(service, request):
    """The same on the service's page, in a browser."""
    tab = request.getfixturevalue("browser").new_page()
    tab.goto(service.page)
    for text in ASKED:
        tab.fill("#question", text)
        tab.click("#ask")
        tab.wait_for_selector("#answer", state="visible")
        tab.fill("#correction", RIGHT)
        tab.click("#correct")
        tab.wait_for_selector("#state:has-text('Kept')")


@pytest.mark.parametrize("corrected", [by_requests, by_clicks])
def test_from_a_users_correction_to_the_next_version_and_back(store, tmp_path, corrected, request):
    model, name = tiny.decoder(), f"voice-{corrected.__name__}"
    model.tokenizer.chat_template = TEMPLATE
    ft.register(model, name, aliases=["champion"])
    said = ft.Feedback(tmp_path / "said.db")

    with ft.serve(f"registry:{name}@champion", feedback=said) as service:
        corrected(service, request)
    for row in said.entries("waiting"):
        said.review(row["id"], accept=True)
    assert {row["model"] for row in said.entries()} == {f"{name}/1"}

    told = ft.load_data(said.export(tmp_path / "told.jsonl", "supervised"))
    champion = ft.load_model(f"registry:{name}@champion")
    run = ft.fit(champion, told["train"], epochs=30, batch_size=8, learning_rate=5e-3, quiet=True,
                 dtype="float32")
    ft.register(run, name, data=told, aliases=["candidate"])
    later = Dataset.from_list(LATER)
    won = ft.compare(ft.evaluate(run.model, later), ft.evaluate(champion, later), "loss")
    both = f"registry:{name}@candidate", f"registry:{name}@champion"

    def verdict(bound):
        part = ft.SuitePart("digits", "loss", bound, lambda model: ft.evaluate(model, DIGITS))
        return ft.ship(*both, [won], [part])

    (reason,) = verdict(bound=0.05).reasons
    assert reason.startswith("digits")  # the only one: the task is won
    assert verdict(bound=50).ship
    ft.promote(f"{name}@candidate", "champion")

    with ft.serve(f"registry:{name}@champion") as service:
        assert service.name.startswith(name)
        assert service.answer(ASKED[0], max_new_tokens=16).strip() == RIGHT
    assert ft.roll_back(name).number == 1
