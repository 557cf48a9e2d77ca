"""Learned prompts: vectors before the words, or keys and values in every layer; no weight changes.

Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning".
Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation".
"""

from dataclasses import dataclass

import torch

from ftkit.errors import SettingError
from ftkit.models.model import quiet_peft
from ftkit.models.specs import SPECS
from ftkit.models.structure import blocks

TOKENS = 20  # where neither a number nor a text is given
# The kinds of peft whose networks read a learned prompt.
KINDS = ("SEQ_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM")


@dataclass(frozen=True)
class PromptTuning:
    """Train a few vectors that are read before every text, as a prompt's words would be.

    tokens: number of vectors; by default as many as `text` has, or 20. text: the prompt whose word
    vectors are the start (repeated or cut to `tokens`); without one, words drawn from the
    vocabulary. A new head (classification, regression) is trained too.
    Source: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning".
    """

    tokens: int | None = None
    text: str | None = None
    # High, for word vectors have to cross the distance between words; fit's default.
    learning_rate = 0.02

    lesson = "10_prompt_and_prefix"
    when = "one served model for a thousand tasks, weights not yours to change"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Put learned vectors before `model.net`. Returns the same model.

        Raises SettingError for a task or kind of model in which they have no place.
        """
        import peft

        kind = _kind(self, model)
        # Such a head reads the last token, and finds it by the ids that vectors do not have.
        if kind == "SEQ_CLS" and getattr(model.net, "score", None) is not None:
            raise SettingError(f"{model.name} is a decoder with a head for {model.task}, which "
                               "cannot tell padding from vectors; use PrefixTuning, or "
                               'task="causal-lm" and labels as words.')
        ids = _words(self, model)
        config = peft.PromptTuningConfig(
            task_type=kind,
            num_virtual_tokens=len(ids),
            num_transformer_submodules=1,
            # Said, for not every family calls these what peft looks for; ELECTRA's words are
            # shorter vectors than its hidden states.
            token_dim=model.net.get_input_embeddings().embedding_dim,
            num_layers=len(blocks(model.net)),
            num_attention_heads=model.net.config.num_attention_heads,
        )
        with quiet_peft():
            model.net = peft.get_peft_model(model.net, config)
        with torch.no_grad():
            start = model.net.word_embeddings(ids.to(model.device))
            _learned(model.net).copy_(start)
        return model


@dataclass(frozen=True)
class PrefixTuning:
    """Train keys and values that every layer attends to as if they came from words before the text.

    tokens, text: as in PromptTuning; the start is what the frozen model computes for those words,
    which Li and Liang found to beat random numbers. Not for encoder-decoders.
    Source: Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation".
    """

    tokens: int | None = None
    text: str | None = None
    learning_rate = 0.01  # fit's default

    lesson = "10_prompt_and_prefix"
    when = "as prompt tuning, where a task is further from what the model does"
    example = {}  # settings in the table of methods

    def apply(self, model):
        """Put learned keys and values into every layer of `model.net`. Returns the same model.

        Raises SettingError for a task or kind of model in which they have no place.
        """
        import peft

        kind = _kind(self, model)
        if model.net.config.is_encoder_decoder:
            raise SettingError(f"{model.name} is an encoder-decoder, in which peft gives layers "
                               "one another's prefix; use PromptTuning, whose vectors stand before "
                               "its encoder's words.")
        if getattr(model.net.config, "output_router_logits", False):
            raise SettingError(f"{model.name} adds a loss of its router, in which its library has "
                               "no place for a prefix; set model.net.config.output_router_logits = "
                               "False (the router is frozen here), or use PromptTuning.")
        start = _keys_and_values(model, _words(self, model))
        stacked, heads, count, size = start.shape
        config = peft.PrefixTuningConfig(task_type=kind, num_virtual_tokens=count,
                                         num_layers=stacked // 2, num_attention_heads=heads,
                                         token_dim=heads * size, num_transformer_submodules=1)
        with quiet_peft():
            model.net = peft.get_peft_model(model.net, config)
        with torch.no_grad():
            _learned(model.net).copy_(start.permute(2, 0, 1, 3).reshape(count, -1))
        return model


def nearest_words(model, n=5):
    """The vocabulary's words that lie nearest to each vector of a learned prompt, by cosine.

    model: trained with PromptTuning. Returns a list for each vector: n pairs (word, cosine), the
    nearest first. Raises SettingError for a model without such vectors.
    Source: Lester et al. 2021, section 7.
    """
    config = getattr(model.net, "active_peft_config", None)
    if getattr(config, "peft_type", None) != "PROMPT_TUNING":
        raise SettingError(f"{model.name} has no learned vectors among its word vectors; "
                           "nearest_words reads what fit(..., method=PromptTuning(...)) returns in "
                           "run.model.")
    with torch.no_grad():
        table = torch.nn.functional.normalize(model.net.word_embeddings.weight.float(), dim=-1)
        vectors = torch.nn.functional.normalize(_learned(model.net).float(), dim=-1)
        cosines, ids = (vectors @ table.T).topk(n)
    return [[(model.tokenizer.decode([i]), c) for i, c in zip(row, values, strict=True)]
            for row, values in zip(ids.tolist(), cosines.tolist(), strict=True)]


def _learned(net):
    return net.prompt_encoder[net.active_adapter].embedding.weight


def _kind(method, model):
    name = type(method).__name__
    if method.tokens is not None and method.tokens < 1:
        raise SettingError(f"{name}(tokens={method.tokens}) trains nothing; choose 1 or more.")
    if model.spec.peft not in KINDS:
        known = [task for task, spec in SPECS.items() if spec.peft in KINDS]
        raise SettingError(f"{name} is for {', '.join(known)}; {model.name} was loaded for "
                           f"{model.task!r}. Use LoRA or Freeze, or load it for another task.")
    if model.net.config.is_encoder_decoder and not model.spec.target:
        raise SettingError(f"{name} on an encoder-decoder is for seq2seq-lm; {model.name} was "
                           f'loaded for {model.task!r}. Load it with task="seq2seq-lm" and let it '
                           "write the label.")
    if hasattr(model.net, "peft_config"):
        raise SettingError(f"{model.name} has an adapter already; start from its base model.")
    return model.spec.peft


def _words(method, model):
    """Ids of the words where the learned prompt starts, shape (tokens,)."""
    if method.text is None:
        known = min(len(model.tokenizer), model.net.get_input_embeddings().num_embeddings)
        return torch.randint(known, (method.tokens or TOKENS,))
    ids = model.tokenizer(method.text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise SettingError(f"text={method.text!r} has no tokens; give a prompt, or leave it out.")
    return torch.tensor([ids[i % len(ids)] for i in range(method.tokens or len(ids))])


def _keys_and_values(model, ids):
    """What each layer computes for these words, shape (2 * layers, heads, tokens, head size)."""
    import transformers

    cache = transformers.DynamicCache(config=model.net.config)
    with torch.no_grad():
        model.net.base_model(input_ids=ids[None].to(model.device), past_key_values=cache)
    # A state of another kind, as Mamba's, is not what a prefix gives.
    plain = [layer.is_initialized and not hasattr(layer, "conv_states") for layer in cache.layers]
    if not plain or not all(plain):
        raise SettingError(f"{type(model.net).__name__} takes no keys and values from outside, so "
                           "it can have no prefix; use PromptTuning.")
    return torch.stack([t[0] for layer in cache.layers for t in (layer.keys, layer.values)])
