"""Without these, a model in use could differ from the one that was measured, and nobody see it."""

import copy

import pytest
import tiny
import torch
from chats import SIMPLE, chat_model
from tokenizers import normalizers

import ftkit as ft
from ftkit.models.model import Model

PROMPTS = ["the film was good", "a cat and a dog", "not so very dull"]


def with_tokenizer(model, change):
    """The same network with a tokenizer of its own that `change` was done to."""
    tokenizer = copy.deepcopy(model.tokenizer)
    change(tokenizer)
    return Model(model.net, tokenizer, model.task, model.name)


def aspects(found):
    """What the table says is not the same."""
    return [row["aspect"] for row in found.rows if row["same"] == "NO"]


def test_a_model_is_the_same_as_its_copy():
    model = chat_model()
    found = ft.parity(model, model.copy(), PROMPTS)
    assert found.same and found.logits == 0 and found.top1 == 1 and found.kl == 0
    assert found.first_difference is None and found.precision == ("float32", "float32")
    assert len(found.answers) == 3 and all(one == two for one, two in found.answers)
    assert "parity: the same" in repr(found) and "chat template" in found._repr_html_()


def test_a_right_merge_has_parity_and_one_with_a_wrong_scale_has_not():
    tuned = tiny.with_lora(chat_model())
    right = ft.merge(tuned)
    assert ft.parity(tuned, right, PROMPTS).same
    wrong = tuned.copy()
    for module in wrong.net.modules():
        if hasattr(module, "lora_A"):
            module.scaling = {name: 2 * value for name, value in module.scaling.items()}
    found = ft.parity(tuned, ft.merge(wrong), PROMPTS)
    assert not found.same and "logits" in aspects(found)
    assert found.logits > 10 * found.tolerance and found.kl > 0
    assert not {"token ids", "chat template", "end of an answer"} & set(aspects(found))


def test_a_changed_template_is_found_and_nothing_else_is_blamed():
    model = chat_model()
    other = with_tokenizer(model, lambda t: setattr(
        t, "chat_template", SIMPLE.replace("': '", "'. '")
        .replace("{{ m['role'] }}: ", "{{ m['role'] }}, ")))
    found = ft.parity(model, other, PROMPTS, tolerance=1e-3)
    assert aspects(found)[0] == "chat template" and found.logits == 0
    assert "chat templates differ" in found.findings[0] and "system, " in found.findings[0]


def test_a_template_that_differs_only_after_an_answer_is_found():
    model = chat_model()
    line = "</s>{{ '\\n' if m['role'] == 'assistant' }}{% endfor"
    changed = SIMPLE.replace("</s>{% endfor", line)
    other = with_tokenizer(model, lambda t: setattr(t, "chat_template", changed))
    assert aspects(ft.parity(model, other, PROMPTS)) == ["chat template"]


def test_a_missing_template_is_found():
    model = chat_model()
    other = with_tokenizer(model, lambda t: setattr(t, "chat_template", None))
    assert "chat template" in aspects(ft.parity(model, other, PROMPTS))


@pytest.mark.parametrize("where", ["tokenizer", "generation_config"])
def test_a_wrong_end_token_is_found(where):
    model = chat_model()
    if where == "tokenizer":
        other = with_tokenizer(model, lambda t: setattr(t, "eos_token", "<mask>"))
    else:
        other = model.copy()
        other.net.generation_config.eos_token_id = 4
    found = ft.parity(model, other, PROMPTS)
    assert "end of an answer" in aspects(found) and "<mask>" in "; ".join(found.findings)
    assert found.logits == 0


def test_another_tokenizer_is_found_by_the_first_token_that_differs():
    model = chat_model()
    other = with_tokenizer(model, lambda t: t.add_tokens(["film"]))
    other.net = copy.deepcopy(model.net)
    found = ft.parity(model, other, PROMPTS)
    place = len(model.tokenizer("the")["input_ids"])
    assert "token ids" in aspects(found)
    assert f"prompt 0 differs from token {place} on" in found.findings[0]
    assert "gives token" in found.findings[-1] and found.logits is None


def test_another_tokenizer_of_the_same_size_is_found():
    model = chat_model()
    other = with_tokenizer(model, lambda t: setattr(
        t.backend_tokenizer, "normalizer", normalizers.Replace("film", "cat")))
    found = ft.parity(model, other, PROMPTS)
    assert "token ids" in aspects(found) and found.logits == 0


def test_the_first_differing_token_of_the_answers_is_named():
    model = chat_model()
    other = model.copy()
    with torch.no_grad():
        other.net.lm_head.weight.copy_(other.net.lm_head.weight.flip(0))
    found = ft.parity(model, other, PROMPTS)
    assert found.first_difference == (0, 0) and found.top1 < 0.5
    assert "greedy answers" in aspects(found)


def test_networks_of_other_sizes_are_said_to_be_so():
    model = chat_model()
    other = model.copy()
    other.net.resize_token_embeddings(len(model.tokenizer) + 3)
    found = ft.parity(model, other, PROMPTS)
    assert found.logits is None and "other sizes" in "; ".join(found.findings)


def test_half_precision_is_measured_by_its_own_rounding():
    model = chat_model()
    half = model.copy()
    half.net.to(torch.bfloat16)
    found = ft.parity(model, half, PROMPTS)
    assert found.precision == ("float32", "bfloat16")
    assert 0 < found.logits <= found.tolerance and found.tolerance > 1e-3
    assert not ft.parity(model, half, PROMPTS, tolerance=found.logits / 2).same


def test_logits_that_are_nan_are_no_parity():
    model = chat_model()
    broken = model.copy()
    with torch.no_grad():
        broken.net.lm_head.weight[5] = float("nan")
    found = ft.parity(model, broken, PROMPTS)
    assert not found.same and "logits" in aspects(found)


def test_classifiers_and_translators_are_compared_too(tmp_path):
    model = tiny.encoder()
    model.save(tmp_path / "kept")
    again = ft.load_model(tmp_path / "kept")
    found = ft.parity(model, again, PROMPTS)
    assert found.same and found.answers == [] and "chat template" not in repr(found)
    other = again.copy()
    with torch.no_grad():
        other.net.classifier.bias += torch.tensor([0.5, 0.0])
    assert aspects(ft.parity(model, other, PROMPTS)) == ["logits"]
    assert ft.parity(tiny.seq2seq(), tiny.seq2seq(), PROMPTS).same


def test_a_saved_model_has_parity_when_it_is_loaded_again(tmp_path):
    model = chat_model()
    model.save(tmp_path / "kept")
    assert ft.parity(model, ft.load_model(tmp_path / "kept"), PROMPTS).same


def test_a_function_is_compared_by_its_answers():
    model = chat_model()

    def ask(prompt):
        text, _ = ft.apply_template({"instruction": prompt}, model.tokenizer)
        return ft.generate(model, text, max_new_tokens=24)

    found = ft.parity(model, ask, PROMPTS)
    assert found.same and found.logits is None and found.precision[1] == "not seen from outside"
    assert not ft.parity(model, lambda prompt: "the film", PROMPTS).same


@pytest.mark.parametrize("a, b, prompts, said", [
    (tiny.decoder, tiny.decoder, [], "needs prompts"),
    (tiny.decoder, tiny.decoder, "the film", "give a list"),
    (tiny.decoder, tiny.encoder, PROMPTS, "load both for one task"),
    (tiny.encoder, lambda: str, PROMPTS, "writes no answers"),
    (lambda: tiny.encoder("encoder"), lambda: tiny.encoder("encoder"), PROMPTS, "no logits"),
])
def test_what_cannot_be_compared_is_refused(a, b, prompts, said):
    with pytest.raises(ft.SettingError, match=said):
        ft.parity(a(), b(), prompts)
