"""What a teacher says about a text: asked once, kept in memory and in files for later runs."""

import torch
import xxhash

from ftkit.assets import disk_cache
from ftkit.models import learned_prompt, structure
from ftkit.speed import optimizations
from ftkit.speed.logits_to_keep import at_labels, label_form
from ftkit.tasks import batching

PARTS = ("logits", "index", "vectors")
# Inputs that a key has by themselves, or that follow from the labels.
_KNOWN = {"input_ids", "attention_mask", "labels", "shift_labels", "decoder_input_ids",
          "decoder_attention_mask", "logits_to_keep"}


class Teacher:
    """A model that is asked about each text once; its answers are kept by its weights and the text.

    top_k: how many of its likeliest answers are kept, of a vocabulary.
    """

    def __init__(self, model, top_k):
        self.model, self.top_k = model, top_k
        computes = f"{model.task} {disk_cache.config_text(model.net.config)} {model.hash()} {top_k}"
        known = xxhash.xxh3_128_hexdigest(computes.encode())
        self.store = disk_cache.Store("teacher", known)

    def about(self, inputs):
        """Its answers about a batch of inputs, kept or asked for: for each text a list of three.

        logits: of the likeliest answers, shape (answers, top_k), where a text has one answer and a
        sequence one for each labelled token. index: which ones they are, (answers, top_k). vectors:
        the mean vector of the text after each block, (blocks, width); empty for seq2seq models.
        """
        keys = [self._key(inputs, i) for i in range(len(inputs["input_ids"]))]
        unknown = {key: i for i, key in enumerate(keys) if self.store.get(f"{key} logits") is None}
        if new := list(unknown.values()):
            asked = self._ask({name: tensor[new] for name, tensor in inputs.items()})
            for i, answer in zip(new, asked, strict=True):
                for part, tensor in zip(PARTS, answer, strict=True):
                    self.store.put(f"{keys[i]} {part}", tensor.cpu())
        return [[self.store.get(f"{key} {part}") for part in PARTS] for key in keys]

    def prepare(self, dataset, batch_size, **options):
        """Ask about all rows and write a file. Returns each row's likeliest answer, or None."""
        rows = batching.encode(dataset, self.model, **options)
        collate, said = batching.Collator(self.model), [None] * len(rows)
        sort = "group_by_length" not in optimizations.disabled(())
        for chosen in batching.by_length(rows, batch_size, sort=sort):
            batch = collate([rows[i] for i in chosen])
            for i, (_, index, _) in zip(chosen, self.about(batch), strict=True):
                said[i] = index[0, 0].item() if len(index) else None
        self.store.write()
        return said

    def _key(self, inputs, i):
        real, labels = inputs["attention_mask"][i].bool(), inputs.get("labels")
        parts = [inputs["input_ids"][i][real]]
        if labels is not None and labels.dim() == 2:
            row = labels[i]
            target = self.model.spec.target  # of another length than the input
            parts.append(row[row != structure.IGNORED] if target else row[real])
        parts += [inputs[name][i][real] for name in sorted(inputs.keys() - _KNOWN)]
        whole = b"|".join(part.cpu().numpy().tobytes() for part in parts)
        return xxhash.xxh3_128_hexdigest(whole)

    @torch.no_grad()
    def _ask(self, inputs):
        spec, net, device = self.model.spec, self.model.net.eval(), self.model.device
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        given = {k: v for k, v in inputs.items() if k != "labels" or spec.target}
        if spec.next_token:
            off = "logits_to_keep" in optimizations.disabled(())
            off = off or learned_prompt.learned_tokens(net)
            given = dict(at_labels(inputs, None if off else label_form(net)))
            given.pop("labels", None)
            given.pop("shift_labels", None)
        if spec.writes:
            given["use_cache"] = False
        with torch.autocast(device.type, enabled=False):  # whoever asks, the answer is the same
            out = net(**given, output_hidden_states=True)
        logits = labelled_logits(spec, {**inputs, **given}, out).float()
        values, index = logits.topk(min(self.top_k, logits.shape[-1]))
        counts = [1] * len(given["input_ids"])
        if spec.answer != "class":
            counts = targets(spec, inputs).ne(structure.IGNORED).sum(1).tolist()
        vectors = torch.zeros(len(counts), 0)
        if not spec.target:
            vectors = vectors_of(out.hidden_states, given["attention_mask"])
        return zip(values.split(counts), index.split(counts), vectors, strict=True)


def labelled_logits(spec, inputs, out):
    """A row of logits for each answer: of a text, or of each labelled token of a batch.

    out: of the network. inputs: what it was given, with the labels, and with the positions of its
    logits where these are some only (see logits_to_keep.at_labels).
    """
    if spec.answer == "class" or out.logits.dim() == 2:
        return out.logits
    wanted = targets(spec, inputs).ne(structure.IGNORED)
    logits, kept = out.logits, inputs.get("logits_to_keep")
    if kept is not None:  # the same numbers for all rows
        return logits[wanted[:, kept]]
    behind = logits[:, -inputs["labels"].shape[1] :]  # a learned prompt
    return behind[:, : wanted.shape[1]][wanted]


def targets(spec, inputs):
    """The token to be answered at each place; a causal model answers with the next one."""
    return inputs["labels"][:, 1:] if spec.next_token else inputs["labels"]


def vectors_of(hidden_states, attention_mask):
    """The mean token vector of each text after each block, shape (texts, blocks, width)."""
    real = attention_mask.unsqueeze(-1)
    behind = (h[:, -real.shape[1] :] for h in hidden_states[1:])  # a learned prompt
    return torch.stack([(h * real).sum(1) / real.sum(1) for h in behind], dim=1)
