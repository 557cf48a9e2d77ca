"""Without these, a model would learn the user's words, never learn to stop, or read BOS twice."""

import json

import numpy as np
import pytest
import tiny
import torch
from chats import CHATML, INST, LLAMA, MARKED, NO_END, THOUGHT, TURNS, UNSTABLE, words
from datasets import Dataset

import ftkit as ft
from ftkit.data.conversations import answer_ends, beginning, begun, turn_marks
from ftkit.data.load import load_data
from ftkit.errors import DataError, DataWarning, SettingError
from ftkit.models.model import Model
from ftkit.models.structure import IGNORED
from ftkit.tasks.batching import encode


def decoder(template=None, bos=False):
    model = tiny.decoder()
    model.tokenizer = words(template, bos)
    model.net.resize_token_embeddings(len(model.tokenizer))
    return model


def learned(model, turns=TURNS, **options):
    """(the text that is read, the texts that carry loss), with a bar between the stretches."""
    row = encode(Dataset.from_list([{"messages": turns}]), model, **options)[0]
    pieces, last = [], None
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            if last == IGNORED or last is None:
                pieces.append([])
            pieces[-1].append(token)
        last = label
    decode = model.tokenizer.decode
    return decode(row["input_ids"]), [decode(piece) for piece in pieces]


@pytest.mark.parametrize(("template", "end"), [
    (CHATML, "<|im_end|>"), (LLAMA, "<|eot|>"), (MARKED, "<|im_end|>"),
])
@pytest.mark.parametrize("bos", [False, True])
def test_every_answer_is_learned_with_the_templates_own_end(template, end, bos):
    model = decoder(template, bos)
    text, answers = learned(model)
    assert answers == [f"great{end}", f"not so bad{end}"]
    written = model.tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert text == ("<s>" if bos and template != LLAMA else "") + written
    assert text.count("<s>") == (bos or template == LLAMA)
    _, everything = learned(model, loss_on="all")
    assert everything == [text]


def test_answers_of_a_template_that_writes_eos_and_a_blank_before_them():
    model = decoder(INST, bos=True)
    text, answers = learned(model, TURNS[1:])
    assert text == "<s>[INST] the film [/INST] great</s>[INST] and the cat [/INST] not so bad</s>"
    assert answers == [" great</s>", " not so bad</s>"]
    wrong = [TURNS[1], TURNS[1], TURNS[2]]
    with pytest.raises(DataError, match=r"row 0: .*refuses.* .user, user, assistant.*alternate"):
        learned(model, wrong)


def test_an_answer_without_an_end_in_the_template_ends_with_eos():
    text, answers = learned(decoder(NO_END), TURNS[1:3])
    assert text.endswith("great\n</s>") and answers == [" great\n</s>"]


def test_ends_of_several_tokens_and_of_turns_that_others_follow():
    two = CHATML.replace("<|im_end|>", "<|eot|><|im_end|>")
    assert learned(decoder(two))[1] == ["great<|eot|><|im_end|>", "not so bad<|eot|><|im_end|>"]
    row = encode(Dataset.from_list([{"instruction": "x", "output": "y"}]), decoder(two))[0]
    assert words().decode(row["labels"][-2:]) == "<|eot|><|im_end|>"
    last = CHATML.replace(
        "<|im_end|>", "{{ '<|im_end|>' if loop.last and m.role == 'assistant' else '<|eot|>' }}"
    )
    assert learned(decoder(last))[1] == ["great<|eot|>", "not so bad<|im_end|>"]


def test_thoughts_that_a_template_leaves_out_of_earlier_answers():
    template = CHATML.replace("m.content", "m.content.split('</think>')[-1]")
    turns = [{**turn, "content": "<think>so</think>" + turn["content"]}
             if turn["role"] == "assistant" else turn for turn in TURNS]
    assert learned(decoder(template), turns)[1] == ["great<|im_end|>", "not so bad<|im_end|>"]


def test_a_template_that_drops_an_answer_is_refused():
    for template in (CHATML, MARKED):
        with pytest.raises(DataError, match="row 0: the chat template .* turn 3"):
            learned(decoder(template.replace("m.content", "m.content.text")))


def test_what_a_template_adds_to_the_last_answer_is_learned_too():
    _, answers = learned(decoder(THOUGHT))
    assert answers == ["great<|im_end|>", "<think>\n\n</think>\n\nnot so bad<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_is_refused():
    learned(decoder(UNSTABLE.replace("length", "first | length")))
    with pytest.raises(DataError, match="row 0: the chat template writes turn 3 otherwise"):
        learned(decoder(UNSTABLE))


def test_without_a_template_headings_stand_for_one():
    model = decoder()
    text, answers = learned(model, TURNS[1:])
    prompt, _ = ft.apply_template({"instruction": "the film"}, model.tokenizer)
    assert text.startswith(prompt + "great</s>") and answers == ["great</s>", "not so bad</s>"]


@pytest.mark.parametrize("template", [None, CHATML, LLAMA, INST])
@pytest.mark.parametrize("bos", [False, True])
def test_a_conversation_of_one_turn_is_an_instruction(template, bos):
    """The prompt that is trained on is the prompt that is asked with."""
    model = decoder(template, bos)
    rows = [{"instruction": "the film", "output": "great"}]
    one = encode(Dataset.from_list(rows), model)[0]
    chat = encode(Dataset.from_list([{"messages": TURNS[1:3]}]), model)[0]
    n = len(one["labels"])
    same = [label for label in one["labels"] if label != IGNORED]
    assert [label for label in chat["labels"] if label != IGNORED][-1] == same[-1]
    if template != INST:  # whose blank before the answer belongs to it
        assert chat["input_ids"][:n] == one["input_ids"] and chat["labels"][:n] == one["labels"]


def test_the_last_answer_is_what_is_generated_and_compared():
    model = decoder(CHATML)
    prompt, response = ft.apply_template({"messages": TURNS}, model.tokenizer)
    assert response == "not so bad" and prompt.endswith("cat<|im_end|>\n<|im_start|>assistant\n")
    found = ft.evaluate(model, Dataset.from_list([{"messages": TURNS}]), generate=True,
                        max_new_tokens=2)
    assert found.references.tolist() == ["not so bad"]


def test_a_model_learns_to_stop_where_its_template_ends_a_turn():
    model = decoder(CHATML)
    end = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_marks(model.tokenizer) == ("<|im_end|>\n<|im_start|>assistant\n", [end])
    data = Dataset.from_list([{"messages": TURNS[1:3]}] * 16)
    run = ft.fit(model, data, epochs=15, learning_rate=1e-2, batch_size=4, quiet=True)
    prompt, _ = ft.apply_template({"messages": TURNS[1:3]}, model.tokenizer)
    assert ft.generate(run.model, prompt, max_new_tokens=9) == "great"
    ids = model.tokenizer(prompt + "great", return_tensors="pt", add_special_tokens=False)
    assert run.model.net(input_ids=ids.input_ids).logits[0, -1].argmax() == end


def test_eos_is_learned_though_it_is_the_padding_too():
    model = decoder()
    model.tokenizer.pad_token = model.tokenizer.eos_token
    rows = encode(Dataset.from_list([{"prompt": "the", "response": " cat"},
                                     {"prompt": "the film was", "response": " good"}]), model).rows
    from ftkit.tasks.batching import Collator

    batch = Collator(model)(rows)
    eos = model.tokenizer.eos_token_id
    assert (batch["labels"] == eos).sum(1).tolist() == [1, 1]
    assert batch["attention_mask"].sum(1).tolist() == [len(row["input_ids"]) for row in rows]


def test_only_a_prompt_that_the_template_wrote_ends_with_its_token():
    made = words(CHATML)
    prompt, _ = ft.apply_template({"instruction": "x"}, made)
    end = made.convert_tokens_to_ids("<|im_end|>")
    assert answer_ends([prompt, "Q: x\nA:"], made) == [[end], [made.eos_token_id]]
    made.eos_token = None
    assert answer_ends([prompt], made) == [[end]]
    with pytest.raises(SettingError, match="no eos token"):
        answer_ends(["Q: x\nA:"], made)


def test_bos_stands_once_before_whatever_is_read():
    made = words(bos=True)
    assert beginning(made) == [made.bos_token_id] and beginning(words()) == []
    assert begun([[5], [1, 5], [1, 1, 5]], made) == [[1, 5]] * 3
    model = decoder(LLAMA, bos=True)
    for row in ({"text": "the film"}, {"text": "<s>the film"}, {"prompt": "x", "response": "y"},
                {"prompt": "<s>x", "response": "y"}, {"instruction": "x", "output": "y"},
                {"question": "x", "answers": ["y"]}, {"messages": TURNS}):
        ids = encode(Dataset.from_list([row]), model)[0]["input_ids"]
        assert ids[0] == 1 and ids.count(1) == 1


@pytest.mark.parametrize("kind", ["llama", "falcon_h1"])  # the second is not read in parts
def test_scores_and_answers_stand_behind_bos(kind):
    model = decoder(bos=True)
    if kind != "llama":
        model = Model(tiny.family(kind, "causal-lm").net, model.tokenizer, "causal-lm", kind)
        model.net.resize_token_embeddings(len(model.tokenizer))
    row = encode(Dataset.from_list([{"prompt": "the film was", "response": " good"}]), model)[0]
    logits = model.net(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    at = next(i for i, label in enumerate(row["labels"]) if label != IGNORED)
    wanted = sum(logits[i - 1, row["labels"][i]].item() for i in range(at, len(row["labels"]) - 1))
    found = ft.log_likelihood(model, ["the film was", ""], [" good"])
    assert found[0, 0] == pytest.approx(wanted, abs=1e-4)
    assert np.isfinite(found).all(), "an empty prompt is BOS alone"
    text = ft.generate(model, "the film was", max_new_tokens=4)
    ids = model.tokenizer("the film was", return_tensors="pt").input_ids
    out = model.net.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4,
                             do_sample=False)
    assert text == model.tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["llama", "falcon_h1"])
def test_an_empty_prompt_is_refused_where_nothing_stands_before_it(kind):
    model = tiny.family(kind, "causal-lm")
    for call in (lambda: ft.log_likelihood(model, ["x", ""], [" a", " not so bad"]),
                 lambda: ft.generate(model, ["x", ""], max_new_tokens=2)):
        with pytest.raises(SettingError, match="prompt 1 is ''.*no BOS"):
            call()


@pytest.mark.parametrize("kind", ["llama", "falcon_h1"])
def test_a_prompt_beyond_the_positions_that_were_trained_is_said(kind):
    model = tiny.family(kind, "causal-lm")
    prompts = ["the film", "film " * (model.net.config.max_position_embeddings + 1)]
    for call in (lambda: ft.generate(model, prompts, max_new_tokens=2),
                 lambda: ft.log_likelihood(model, prompts, [" good"])):
        with pytest.warns(UserWarning, match="prompt 1 has .* trained on 128 positions"):
            call()


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bart"])
def test_a_prompt_beyond_a_table_of_positions_is_refused_with_its_number(kind):
    """The table would end in an IndexError."""
    model = tiny.family(kind, "seq2seq-lm" if kind == "bart" else "causal-lm")
    room = model.net.config.max_position_embeddings
    prompts = ["the film", "film " * (room + 1)]
    calls = [lambda: ft.generate(model, prompts, max_new_tokens=2),
             lambda: ft.predict(model, prompts, max_new_tokens=2)]
    if kind != "bart":
        calls.append(lambda: ft.log_likelihood(model, prompts, [" good"]))
        with pytest.raises(SettingError, match=f"prompt 0 has .* {room:,} for the answer"):
            ft.generate(model, "the film", max_new_tokens=room)
    for call in calls:
        with pytest.raises(SettingError, match=f"prompt 1 has .* positions for {room:,}"):
            call()


# How people store conversations.

ASKED = [{"role": "user", "content": "Why {}?"}]
ANSWERED = [{"role": "assistant", "content": "So {}."}]
FORMS = {
    "messages": {"messages": [*ASKED, *ANSWERED]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "Why {}?"},
                                   {"from": "gpt", "value": "So {}."}]},
    "in parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why {}?"}]},
                              *ANSWERED]},
    "prompt and completion of turns": {"prompt": ASKED, "completion": ANSWERED},
    "as JSON in a text": {"messages": json.dumps([*ASKED, *ANSWERED]).replace("{", "{{")
                          .replace("}", "}}").replace("{{}}", "{}")},
}
TOPICS = ["red", "blue", "green", "warm", "cold", "old", "new", "big", "small", "round"] * 6


def records(form):
    """Rows in which each topic stands in the place of {}."""
    def fill(value, topic):
        if isinstance(value, str):
            return value.replace("{{", "{").replace("}}", "}") if "{" not in value.replace(
                "{{", "").replace("}}", "") else value.replace("{}", topic).replace(
                "{{", "{").replace("}}", "}")
        if isinstance(value, list):
            return [fill(part, topic) for part in value]
        return {key: fill(part, topic) for key, part in value.items()}

    return [fill(form, f"{topic} {i}") for i, topic in enumerate(TOPICS)]


def load(tmp_path, rows, **options):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_data(path, **options)


@pytest.mark.parametrize("form", FORMS)
def test_conversations_as_people_store_them(tmp_path, form):
    data = load(tmp_path, records(FORMS[form]))
    assert data.task == "chat"
    turns = data["train"][0]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"].startswith("Why ") and turns[1]["content"].startswith("So ")
    assert learned(decoder(CHATML), turns)[1] == [turns[1]["content"] + "<|im_end|>"]
    assert encode(data["train"], decoder(CHATML)).cut.lost.size == 0


def test_a_system_message_in_a_column_of_its_own_and_columns_of_other_names(tmp_path):
    rows = [{"dialog": [*ASKED, {"role": "assistant", "content": str(i)}], "system": "Be brief."}
            for i in range(60)]
    for i, row in enumerate(rows):
        row["dialog"] = [{"role": "user", "content": f"{TOPICS[i]} {i}?"}, row["dialog"][1]]
    data = load(tmp_path, rows, messages="dialog")
    assert data["train"][0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_prompt_and_completion_of_texts(tmp_path):
    data = load(tmp_path, records({"prompt": "Why {}?", "completion": " So {}."}))
    assert data.task == "response" and data["train"][0]["response"].startswith(" So ")


@pytest.mark.parametrize(("row", "says"), [
    ({"messages": [{"role": "user", "content": "x"}]}, "row 1: none of the 1 turns is the assist"),
    ({"messages": [{"role": "narrator", "content": "x"}]}, "row 1, turn 1 has the role 'narrator'"),
    ({"messages": [*ASKED, {"role": "assistant", "content": None, "tool_calls": []}]},
     "row 1, turn 2 has no content"),
    ({"messages": [{"role": "user", "content": 5}]}, "row 1, turn 1: the content is 5"),
    ({"messages": ["x"]}, "row 1, turn 1 is 'x'"),
    ({"messages": "[{oops"}, "row 1: messages is a text, and no JSON"),
    ({"messages": {"role": "user"}}, "row 1: messages is a dict; a list of turns"),
    ({"messages": []}, "1 of 1 rows have an empty 'messages'"),
])
def test_conversations_that_cannot_be_read_name_row_and_turn(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        load(tmp_path, [row])


PAIRS = {
    "texts": {"prompt": "Why {}?", "chosen": "So {}.", "rejected": "No {}."},
    "turns": {"prompt": ASKED, "chosen": ANSWERED,
              "rejected": [{"role": "assistant", "content": "No {}."}]},
    "whole conversations": {"chosen": [*ASKED, *ANSWERED], "rejected": [
        *ASKED, {"role": "assistant", "content": "No {}."}]},
    "a text and conversations": {"prompt": "Why {}?", "chosen": [*ASKED, *ANSWERED], "rejected": [
        *ASKED, {"role": "assistant", "content": "No {}."}]},
    "whole texts": {"chosen": "Q: Why {}?\nA: So {}.", "rejected": "Q: Why {}?\nA: No {}."},
}


@pytest.mark.parametrize("form", PAIRS)
def test_preferences_as_people_store_them(tmp_path, form):
    data = load(tmp_path, records(PAIRS[form]))
    assert data.task == "preference"
    row = data["train"][0]
    assert row["chosen"].strip().startswith("So ") and row["rejected"].strip().startswith("No ")
    prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][0]["content"]
    assert "Why " in prompt
    with pytest.raises(DataError, match="rename_column"):
        encode(data["train"], decoder(CHATML))
    rows = encode(data["train"].rename_column("chosen", "response"), decoder(CHATML))
    end = "<|im_end|>" if form not in ("texts", "whole texts") else "</s>"
    assert words(CHATML).decode(rows[0]["input_ids"]).endswith(row["chosen"] + end)


# What the limit takes away.


def test_answers_that_the_limit_takes_are_counted():
    model = decoder(CHATML)
    rows = [{"prompt": "the cat " * n, "response": " good"} for n in (1, 40, 30, 2)]
    rows.append({"prompt": "the", "response": " good" * 60})
    found = encode(Dataset.from_list(rows), model, max_length=50)
    cut = found.cut
    assert cut.answers.tolist() == [1, 2, 4] and cut.lost.tolist() == [1, 2]
    assert cut.supervised == sum(row["labels"].count(IGNORED) * -1 + len(row["labels"])
                                 for row in found.rows)
    assert "3 of 5 answers were cut, 2 lost whole; longest" in str(cut)
    model.tokenizer.truncation_side = "left"
    again = encode(Dataset.from_list(rows), model, max_length=50)
    assert again.cut.lost.size == 0 and len(again[1]["input_ids"]) == 50
    assert again[1]["labels"][-2:] == found[0]["labels"][-2:]
    assert "1 of 5 answers were cut, 0 lost whole" in str(again.cut)
    again = encode(Dataset.from_list(rows[:4]), model, max_length=50).cut
    assert str(again).startswith("2 of 4 prompts were cut and no answer; longest")


def test_a_text_cut_from_the_left_still_begins_with_bos():
    model = decoder(bos=True)
    model.tokenizer.truncation_side = "left"
    rows = Dataset.from_list([{"prompt": "the cat " * 40, "response": " good"}])
    ids = encode(rows, model, max_length=20)[0]["input_ids"]
    assert len(ids) == 20 and ids[0] == model.tokenizer.bos_token_id


@pytest.mark.parametrize(("make", "row"), [
    (lambda: tiny.encoder(), {"text": "the cat " * 40, "label": 1}),
    (lambda: tiny.encoder("regression"), {"text": "the cat " * 40, "label": 0.5}),
    (lambda: tiny.encoder("tagging", ("O", "B-X")),
     {"tokens": ["the", "cat"] * 40, "tags": ["O"] * 80}),
    (lambda: tiny.encoder("masked-lm"), {"text": "the cat " * 40}),
    (lambda: tiny.encoder("choice"),
     {"question": "the cat " * 40, "choices": ["a", "b"], "answer": 1}),
    (lambda: tiny.encoder("choice"),
     {"question": "the cat", "choices": ["a", "b " * 40], "answer": 1}),
    (lambda: tiny.seq2seq(), {"source": "the cat", "target": "the cat " * 40}),
    (lambda: tiny.decoder(), {"text": "the cat " * 40}),
])
def test_texts_that_the_limit_cuts_are_counted_for_every_task(make, row):
    model = make()
    cut = encode(Dataset.from_list([row]), model, max_length=20).cut
    whole = encode(Dataset.from_list([row]), model, max_length=128).cut
    assert cut.rows.tolist() == [0] and cut.whole[0] == whole.whole[0] > 20 and str(cut)
    assert not len(whole.rows) and str(whole) == ""


@pytest.mark.parametrize(("columns", "make", "says"), [
    ({"text": ["x", " "]}, tiny.decoder, "row 1 has an empty 'text'"),
    ({"text": ["x", None], "label": [0, 1]}, tiny.encoder, "row 1 has None in 'text'"),
    ({"text": ["x", "y"], "text_pair": ["z", None], "label": [0, 1]}, tiny.encoder,
     "row 1 has None in 'text_pair'"),
    ({"prompt": ["x", "y"], "response": ["z", None]}, tiny.decoder, "row 1 has the response None"),
    ({"text": [1, 2], "label": [0, 1]}, tiny.encoder, "row 0 has 1 in 'text', a int"),
])
def test_a_value_that_is_no_text_is_named(columns, make, says):
    with pytest.raises(DataError, match=says):
        encode(Dataset.from_dict(columns), make())


def test_labels_beside_texts_of_a_language_model_are_no_error():
    with pytest.warns(DataWarning, match="labels are not read"):
        encode(Dataset.from_dict({"text": ["x"], "label": [0]}), tiny.decoder())
