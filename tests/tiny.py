"""Tiny randomly initialised models of each kind, made in a moment, for tests of behaviour."""

import torch
import transformers
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ftkit.methods.lora import LoRA
from ftkit.models.model import Model

WORDS = (
    "the a film was is good bad warm dull great terrible and not so very plot music cat dog".split()
)


def tokenizer(form=None):
    """A byte-level tokenizer over a few words, with the special tokens of all kinds of model.

    form: of a text; "<s> $A" begins each as the tokenizers of Llama and Gemma do, "$A </s>" ends
    it as that of T5 does.
    """
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    from tokenizers import decoders, processors

    core.decoder = decoders.ByteLevel()
    if form:
        core.post_processor = processors.TemplateProcessing(
            single=form, pair=f"{form} {form.replace('A', 'B')}",
            special_tokens=[("<s>", 1), ("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


SIZES = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=128,
)


def decoder(kind="llama", **changes):
    """A causal language model: llama, gpt2 or gemma2 (whose logits are changed after the head)."""
    words = tokenizer()
    torch.manual_seed(0)
    common = dict(vocab_size=len(words), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            n_embd=32,
            n_layer=3,
            n_head=2,
            n_positions=128,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
            **common,
        )
        net = transformers.GPT2LMHeadModel(config)
    elif kind == "gemma2":
        config = transformers.Gemma2Config(**SIZES, num_key_value_heads=1, head_dim=16, **common)
        net = transformers.Gemma2ForCausalLM(config)
    else:
        config = transformers.LlamaConfig(
            **{**SIZES, "num_key_value_heads": 1, **common, **changes}
        )
        net = transformers.LlamaForCausalLM(config)
    return Model(net.eval(), words, "causal-lm", f"tiny-{kind}")


def encoder(task="classification", labels=("bad", "good")):
    """A BERT-type model with the head of a task, without dropout."""
    words = tokenizer()
    torch.manual_seed(0)
    kinds = {
        "classification": "BertForSequenceClassification",
        "choice": "BertModel",
        "regression": "BertForSequenceClassification",
        "masked-lm": "BertForMaskedLM",
        "tagging": "BertForTokenClassification",
        "encoder": "BertModel",
    }
    extra = {"num_labels": 1, "problem_type": "regression"} if task == "regression" else {}
    if task in ("classification", "tagging"):
        extra = {"id2label": dict(enumerate(labels))}
    config = transformers.BertConfig(
        **SIZES,
        vocab_size=len(words),
        pad_token_id=0,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
        **extra,
    )
    net = getattr(transformers, kinds[task])(config)
    named = list(labels) if task in ("classification", "tagging") else None
    return Model(net.eval(), words, task, "tiny-bert", named)


def seq2seq():
    """A T5-type encoder-decoder."""
    words = tokenizer()
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(words),
        d_model=32,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        d_kv=16,
        dropout_rate=0,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    return Model(
        transformers.T5ForConditionalGeneration(config).eval(), words, "seq2seq-lm", "tiny-t5"
    )


def reviews(n=48, shuffled=False):
    """Reviews that a model can learn in a moment; shuffled=True gives labels without a meaning."""
    import random

    rng = random.Random(7)

    def split(n):
        labels = [i % 2 for i in range(n)]
        texts = [
            f"the {rng.choice(['film', 'plot', 'music'])} was "
            f"{rng.choice(['good', 'great', 'warm'] if label else ['bad', 'dull', 'terrible'])}"
            for label in labels
        ]
        if shuffled:
            rng.shuffle(labels)
        return Dataset.from_dict({"text": texts, "label": labels})

    return DatasetDict(train=split(n), validation=split(n), test=split(n))


DECODERS = {
    "llama": dict(SIZES, num_key_value_heads=1),
    "mistral": dict(SIZES, num_key_value_heads=1, sliding_window=8),
    "mixtral": dict(SIZES, num_key_value_heads=1, num_local_experts=4, output_router_logits=True),
    "qwen2": dict(SIZES, num_key_value_heads=1),
    "qwen3": dict(SIZES, num_key_value_heads=1, head_dim=16),
    "gemma2": dict(SIZES, num_key_value_heads=1, head_dim=16, sliding_window=8),
    "gemma3_text": dict(SIZES, num_key_value_heads=1, head_dim=16, sliding_window=8),
    "smollm3": dict(SIZES, num_key_value_heads=1),
    "gpt2": dict(n_embd=32, n_layer=3, n_head=2, n_positions=128),
    "opt": dict(hidden_size=32, ffn_dim=64, num_hidden_layers=3, num_attention_heads=2,
                max_position_embeddings=128, word_embed_proj_dim=32),
    "falcon_h1": dict(SIZES, num_key_value_heads=1, mamba_d_ssm=32, mamba_n_heads=2,
                      mamba_d_head=16, mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=8,
                      lm_head_multiplier=0.5, embedding_multiplier=2.0),
    "modernbert-decoder": dict(SIZES, local_attention=8),
    "bert, decoder": dict(SIZES, is_decoder=True),
    "roberta, decoder": dict(SIZES, is_decoder=True, max_position_embeddings=130),
    "electra, decoder": dict(SIZES, is_decoder=True, embedding_size=16),
}
ENCODERS = {
    "bert": SIZES,
    "roberta": dict(SIZES, max_position_embeddings=130),
    "electra": dict(SIZES, embedding_size=16),
    "distilbert": dict(dim=32, hidden_dim=64, n_layers=3, n_heads=2, max_position_embeddings=128),
    "mpnet": dict(SIZES, max_position_embeddings=130),
    "deberta-v2": dict(SIZES, relative_attention=True, position_buckets=16, pos_att_type="p2c|c2p",
                       share_att_key=True, norm_rel_ebd="layer_norm"),
    "modernbert": dict(SIZES, local_attention=8),
}
WRITERS = {
    "t5": dict(d_model=32, d_ff=64, num_layers=3, num_decoder_layers=2, num_heads=2, d_kv=16,
               decoder_start_token_id=0),
    "bart": dict(d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
                 decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                 max_position_embeddings=128),
    "marian": dict(d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=2,
                   decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                   max_position_embeddings=128, decoder_start_token_id=0, forced_eos_token_id=None),
}
HEADS = {"classification": "SequenceClassification", "regression": "SequenceClassification",
         "tagging": "TokenClassification", "causal-lm": "CausalLM", "masked-lm": "MaskedLM",
         "seq2seq-lm": "Seq2SeqLM", "choice": "", "encoder": ""}


def family(kind, task, labels=("bad", "good"), seed=0, form=None):
    """A small random model of a family, without dropout: of DECODERS, ENCODERS or WRITERS."""
    words = tokenizer(form)
    special = dict(vocab_size=len(words), pad_token_id=0, bos_token_id=1, eos_token_id=2)
    sizes = (DECODERS | ENCODERS | WRITERS)[kind]
    extra = {"num_labels": 1, "problem_type": "regression"} if task == "regression" else {}
    if task in ("classification", "tagging"):
        extra = {"id2label": dict(enumerate(labels))}
    config = transformers.AutoConfig.for_model(kind.split(",")[0], **sizes, **special, **extra)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    head = HEADS[task]
    torch.manual_seed(seed)
    net = getattr(transformers, f"AutoModel{'For' * bool(head)}{head}").from_config(config)
    named = list(labels) if task in ("classification", "tagging") else None
    return Model(net.eval(), words, task, f"tiny-{kind}", named)


def with_lora(model):
    """A copy of the model with LoRA weights that matter: B is not zero."""
    tuned = LoRA(rank=4).apply(model.copy())
    torch.manual_seed(3)
    for name, weight in tuned.net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return tuned
