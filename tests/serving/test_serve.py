"""Without these, a served model could answer otherwise, to anybody, or show its insides."""

import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny

import ftkit as ft
from ftkit import cli

pytest.importorskip("fastapi", reason="needs the extra: pip install 'ftkit[serve]'")
openai = pytest.importorskip("openai", reason="needs the extra: pip install 'ftkit[serve]'")

CHATML = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('the system turn comes first') }}{% endif %}"
    "<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
PROMPTS = ["the film was good", "a cat and a dog", "not so very dull"]


@pytest.fixture(scope="module")
def model():
    model = tiny.decoder()
    model.tokenizer.chat_template = CHATML
    # Settings of a checkpoint that would change greedy answers, as some bring them along.
    model.net.generation_config.repetition_penalty = 5.0
    return model


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    with ft.serve(model, feedback=tmp_path_factory.mktemp("said") / "said.db") as service:
        yield service


def post(service, body, path="/chat/completions", token=None, method="POST", raw=None):
    """(status, the answer as JSON) of a plain request."""
    data = json.dumps(body).encode() if raw is None else raw
    request = urllib.request.Request(service.url + path, data=data, method=method, headers={
        "Content-Type": "application/json",
        **({} if token == "" else {"Authorization": f"Bearer {token or service.token}"})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def asking(text="the film", **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def test_the_openai_client_gets_what_the_model_answers(model, service):
    found = ft.parity(model, service, PROMPTS, max_new_tokens=12)
    assert found.same, found
    said = service.client().chat.completions.create(
        model=service.name, messages=asking()["messages"], max_tokens=5)
    assert said.usage.completion_tokens <= 5 and said.choices[0].finish_reason in ("length", "stop")
    assert [one.id for one in service.client().models.list()] == [service.name]


def test_an_answer_is_streamed_in_parts_that_make_the_whole(service):
    stream = service.client().chat.completions.create(
        model=service.name, messages=asking()["messages"], max_tokens=8, stream=True)
    parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    whole = service.answer("the film", max_new_tokens=8)
    # Bytes that make no letter yet are not sent; the whole answer shows them as a mark.
    cut = "\N{REPLACEMENT CHARACTER}"
    assert len(parts) > 2 and "".join(parts).strip() == whole.strip().rstrip(cut)


def test_a_temperature_samples_and_a_seed_repeats_it(service):
    def say(seed, temperature=1.5):
        status, said = post(service, asking(temperature=temperature, seed=seed, max_tokens=12))
        assert status == 200
        return said["choices"][0]["message"]["content"]
    assert say(1) == say(1) and len({say(seed) for seed in range(4)}) > 1
    assert len({say(seed, 0) for seed in range(3)}) == 1


def test_requests_at_once_are_each_answered_as_alone(service):
    alone = [service.answer(prompt, max_new_tokens=8) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda i: service.answer(PROMPTS[i % 3], max_new_tokens=8),
                             range(12)))
    assert many == [alone[i % 3] for i in range(12)]


@pytest.mark.parametrize("token", ["", "wrong", "Bearer"])
def test_nobody_is_answered_without_the_token(service, token):
    for path in ("/chat/completions", "/models", "/feedback", "/nothing"):
        status, said = post(service, asking(), path, token=token)
        assert status == 401 and "token" in said["error"]["message"]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=service.url, api_key="no", max_retries=0).models.list()


@pytest.mark.parametrize("body, status, said", [
    ({}, 400, "messages has to be a list"),
    (asking(model="gpt2"), 404, "'gpt2' is not served"),
    (asking(model="../../etc/passwd"), 404, "not served"),
    (asking(generation_config="{}"), 400, "'generation_config' is not supported"),
    (asking(chat_template_kwargs={}), 400, "'chat_template_kwargs'"),
    (asking(tools=[]), 400, "'tools' is not supported"),
    (asking(max_tokens=0), 400, "1 to 1024"),
    (asking(max_tokens=10**9), 400, "1 to 1024"),
    (asking(max_tokens=True), 400, "1 to 1024"),
    (asking(max_tokens=127), 400, "leaves room for"),
    (asking(temperature="hot"), 400, "0 to 2"),
    (asking(temperature=float("nan")), 400, "0 to 2"),
    (asking(seed=1.5), 400, "seed is 1.5"),
    (asking(stream="yes"), 400, "true or false"),
    ({"messages": []}, 400, "1 to 200 turns"),
    ({"messages": "hello"}, 400, "1 to 200 turns"),
    ({"messages": [{"role": "user"}]}, 400, "turn 0"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, 400, "turn 0"),
    ({"messages": [{"role": "root", "content": "a"}]}, 400, "turn 0"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, 400,
     "the system turn comes first"),
    (asking("the film " * 200), 400, "leaves room for 0 tokens"),
    ([1], 400, "no JSON object"),
])
def test_a_bad_request_is_answered_by_a_sentence(service, body, status, said):
    code, answer = post(service, body)
    assert code == status and said in answer["error"]["message"], answer
    assert "Traceback" not in json.dumps(answer) and ".py" not in json.dumps(answer)


@pytest.mark.parametrize("raw, status", [
    (b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400),
    (b'{"messages": "' + b"x" * (1 << 20) + b'"}', 413),
])
def test_bytes_that_are_no_request_are_refused(service, raw, status):
    assert post(service, None, raw=raw)[0] == status


@pytest.mark.parametrize("path, method, status", [
    ("/responses", "POST", 404), ("/../load_model", "POST", 404), ("/completions", "POST", 404),
    ("/chat/completions", "GET", 405), ("/models", "POST", 405), ("/models", "DELETE", 405),
])
def test_no_other_door_of_the_server_is_open(service, path, method, status):
    assert post(service, {}, path, method=method)[0] == status


def test_a_fault_of_the_server_is_told_without_its_insides(model, monkeypatch):
    with ft.serve(model) as broken:
        def fails(*given, **more):
            raise RuntimeError("secret: /home/someone")
        monkeypatch.setattr(type(model.net), "generate", fails)
        status, said = post(broken, asking())
        assert status == 500 and "secret" not in json.dumps(said)
        with pytest.raises(openai.APIError) as told:
            list(broken.client().chat.completions.create(
                model=broken.name, messages=asking()["messages"], stream=True))
        assert "secret" not in str(told.value)
        monkeypatch.undo()
        assert post(broken, asking(max_tokens=2))[0] == 200  # and it goes on


def test_what_users_say_comes_in_by_the_same_door(service):
    body = {"messages": "the film", "answer": "dull", "correction": "the film was good"}
    status, said = post(service, body, "/feedback")
    assert status == 200
    from ftkit.serving.feedback import Feedback

    store = service._server.config.app.feedback
    assert isinstance(store, Feedback)
    kept = [row for row in store.entries() if row["id"] == said["id"]][0]
    assert kept["correction"] == "the film was good" and kept["model"] == service.name
    for wrong in ({}, body | {"thumb": "up"}, body | {"admin": 1}, body | {"answer": 3}):
        assert post(service, wrong, "/feedback")[0] == 400


def test_it_listens_on_this_machine_alone_and_ends_when_closed(model):
    with ft.serve(model) as service:
        port = int(service.url.split(":")[2].split("/")[0])
        assert service._socket.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ft.SettingError, match=f"port {port}"):
            ft.serve(model, port=port)
        assert post(service, {}, "/feedback")[0] == 404  # no store was given
    with socket.socket() as again, pytest.raises(OSError):
        again.connect(("127.0.0.1", port))


def test_serving_changes_nothing_in_the_model(model):
    before = model.net.generation_config.to_dict()
    with ft.serve(model) as service:
        service.answer("the film", max_new_tokens=3)
    assert model.net.generation_config.to_dict() == before


def test_a_tuned_adapter_is_served_as_it_answers(model):
    from datasets import Dataset

    rows = Dataset.from_dict({"text": [f"the film was {word}" for word in tiny.WORDS]})
    tuned = ft.fit(model, rows, method=ft.LoRA(rank=4), learning_rate=2e-2, epochs=3, quiet=True,
                   dtype="float32").model
    with ft.serve(tuned, name="voice") as service:
        assert service.name == "voice"
        assert ft.parity(tuned, service, PROMPTS, max_new_tokens=8).same


def test_a_registered_version_is_served_under_its_name(store, model):
    ft.register(model, "served", aliases=["champion"])
    with ft.serve("registry:served@champion") as service:
        assert service.name == "served/1"
        assert ft.parity(model, service, PROMPTS[:1], max_new_tokens=4).same


@pytest.mark.parametrize("make, more, said", [
    (tiny.encoder, {}, "no chat template"),
    (tiny.decoder, {}, "no chat template"),
    (None, {"token": "short"}, "has 5 characters"),
])
def test_what_cannot_be_served_is_refused(model, make, more, said):
    with pytest.raises(ft.SettingError, match=said):
        ft.serve(make() if make else model, **more)


def test_the_command_serves_and_says_where(model, store, monkeypatch, capsys):
    ft.register(model, "by-command", aliases=["champion"])
    monkeypatch.setenv("FTKIT_TOKEN", "a-token-of-enough-letters")
    monkeypatch.setattr("ftkit.serving.serve.Service.wait", lambda self: None)
    assert cli.main(["serve", "registry:by-command@champion", "--port", "0"]) == 0
    said = capsys.readouterr().out
    assert "http://127.0.0.1:" in said and "a-token-of-enough-letters" not in said
