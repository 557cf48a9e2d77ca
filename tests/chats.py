"""Chat templates of the kinds that models have, a conversation, and a tokenizer that knows them."""

import tiny
import tokenizers

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = "<s>" + CHATML.replace("<|im_start|>", "<|head|>").replace("<|im_end|>", "<|eot|>")
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{% if not loop.first and messages[loop.index0 - 1].role == 'user' %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + (
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
# as Qwen 3: the last answer is written with an empty thought, earlier ones without
THOUGHT = CHATML.replace(
    "{{ m.content }}",
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# earlier turns are counted from the end, so that each turn rewrites all before it
UNSTABLE = "{{ messages | length }}" + CHATML
# of words and signs that the tokenizer of tiny.decoder knows
SIMPLE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
MARKS = ["<|im_start|>", "<|im_end|>", "<|head|>", "<|eot|>"]
TURNS = [
    {"role": "system", "content": "so good"}, {"role": "user", "content": "the film"},
    {"role": "assistant", "content": "great"}, {"role": "user", "content": "and the cat"},
    {"role": "assistant", "content": "not so bad"},
]


def words(template=None, bos=False):
    """The tiny tokenizer with a template's own marks; with bos, one that puts <s> before a text."""
    made = tiny.tokenizer()
    made.add_special_tokens({"extra_special_tokens": MARKS})
    made.chat_template = template
    if bos:
        made.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
        )
    return made


def chat_model():
    """A tiny decoder with the template SIMPLE."""
    model = tiny.decoder()
    model.tokenizer.chat_template = SIMPLE
    return model
