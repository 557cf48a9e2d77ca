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
ASKED = [f"is the {word} good" for word in tiny.WORDS]
RIGHT = "the cat was warm"


def say(service, path, body):
    """What a service answers to a plain request, as a page in a browser would send it."""
    request = urllib.request.Request(service.url + path, data=json.dumps(body).encode(), headers={
        "Content-Type": "application/json", "Authorization": f"Bearer {service.token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def asking(text):
    return [{"role": "user", "content": text}]


def test_from_a_users_correction_to_the_next_version_and_back(store, tmp_path):
    model = tiny.decoder()
    model.tokenizer.chat_template = TEMPLATE
    ft.register(model, "voice-loop", aliases=["champion"])
    said = ft.Feedback(tmp_path / "said.db")

    with ft.serve("registry:voice-loop@champion", feedback=said) as service:
        for text in ASKED:
            first = say(service, "/chat/completions",
                        {"messages": asking(text), "max_tokens": 8})["choices"][0]["message"]
            number = say(service, "/feedback", {
                "messages": asking(text), "answer": first["content"], "thumb": "down",
                "correction": RIGHT})["id"]
            said.review(number, accept=True)
    assert {row["model"] for row in said.entries()} == {"voice-loop/1"}

    told = ft.load_data(said.export(tmp_path / "told.jsonl", "supervised"))
    champion = ft.load_model("registry:voice-loop@champion")
    run = ft.fit(champion, told["train"], epochs=30, batch_size=8, learning_rate=5e-3, quiet=True,
                 dtype="float32")
    ft.register(run, "voice-loop", data=told, aliases=["candidate"])
    won = ft.compare(ft.evaluate(run.model, told["test"]), ft.evaluate(champion, told["test"]),
                     "loss")
    general = Dataset.from_dict({"text": [f"{a} {b}" for a in tiny.WORDS for b in tiny.WORDS[:4]]})

    def suite(bound):
        return [ft.SuitePart("general text", "loss", bound,
                             lambda model: ft.evaluate(model, general))]

    assert not ft.ship(run.model, champion, [won], suite(0.001)).ship
    verdict = ft.ship("registry:voice-loop@candidate", "registry:voice-loop@champion", [won],
                      suite(50.0))
    assert verdict.ship, verdict
    ft.promote("voice-loop@candidate", "champion")

    with ft.serve("registry:voice-loop@champion") as service:
        assert service.name.startswith("voice-loop")
        assert service.answer(ASKED[0], max_new_tokens=16).strip() == RIGHT
    assert ft.roll_back("voice-loop").number == 1
