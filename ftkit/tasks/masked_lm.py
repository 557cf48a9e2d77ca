"""Masked language modeling: the words behind masks that are drawn anew in each epoch."""

import numpy as np
import torch
from scipy.special import softmax

from ftkit.errors import DataError
from ftkit.models.structure import IGNORED
from ftkit.tasks.base import Task
from ftkit.tasks.tokens import need, strings, tokenized


class MaskedLM(Task):
    """Column text.

    15% of the tokens are chosen, of which 80% become the mask, 10% a random token, and 10% stay
    (Devlin et al. 2019), by seed, epoch and row alone, whichever process makes the batch.
    """

    name = "masked-lm"
    form = '"a text with one {mask} in it"'

    def encode(self, dataset, model, limit, loss_on):
        need(dataset, "text")
        tokens, whole = tokenized(model, strings(dataset, "text"), limit)
        return [{"input_ids": i} for i in tokens["input_ids"]], whole, None

    def collate(self, rows, collator):
        batch = collator.ids([row["input_ids"] for row in rows])
        batch["input_ids"], batch["labels"] = self._mask(batch["input_ids"], rows, collator)
        return batch

    def unlabelled(self, rows, collator):
        """The texts as they are: the masks are their own."""
        return collator.ids([row["input_ids"] for row in rows])

    def _mask(self, ids, rows, collator):
        tokenizer = collator.tokenizer
        draw, kind = (torch.ones(ids.shape, dtype=torch.double) for _ in range(2))
        noise = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            own = row["input_ids"]
            size, random = len(own), collator.random
            if "place" in row:
                random = np.random.default_rng((collator.seed, *row["place"]))
            draw[i, :size], kind[i, :size] = torch.from_numpy(random.random((2, size)))
            noise[i, :size] = torch.from_numpy(random.integers(len(tokenizer), size=size))
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        chosen = (draw < 0.15) & ~special
        labels = torch.where(chosen, ids, IGNORED)
        masked = torch.where(chosen & (kind < 0.8), tokenizer.mask_token_id, ids)
        return torch.where(chosen & (kind >= 0.9), noise, masked), labels

    def predictions(self, model, rows, encoded, logits, top):
        """The likeliest words in the place of each mask."""
        mask, found = model.tokenizer.mask_token_id, []
        for i, (row, scores) in enumerate(zip(encoded.rows, logits, strict=True)):
            places = [place for place, token in enumerate(row["input_ids"]) if token == mask]
            if not places:
                raise DataError(f"text {i} has no {model.tokenizer.mask_token} to fill.")
            likely = softmax(scores[places], axis=-1)
            best = np.argsort(-likely, axis=1)[:, :top]
            found.append({"words": [
                [(model.tokenizer.decode([int(token)]).strip(), float(own[token]))
                 for token in tokens] for own, tokens in zip(likely, best, strict=True)
            ]})
        return found
