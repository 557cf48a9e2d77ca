"""The loss of texts in one row, and gradients of float32 weights multiplied in 16 bits."""

import torch
import torch.nn.functional as F

from ftkit import compat
from ftkit.models.structure import IGNORED, at_rest, backbone, head, inner
from ftkit.speed import chunked_loss


class PackedLoss:
    """The loss of packed batches: a decoder's backbone, and its head where there are labels.

    half: a 16-bit format to compute in; weights in float32 stay what is trained, and their copies
    in that format are what a step multiplies with. None computes in the weights' own format.
    """

    def __init__(self, net, half=None):
        self.body, self.net, self.half = backbone(net), net, half
        top = head(net)
        self.top = top if _plain_head(net, top) else None
        self.portion = chunked_loss.portion  # may be compiled
        wide = [p for p in self.body.named_parameters() if half and p[1].dtype == torch.float32]
        self.frozen = {name: p.detach().to(half) for name, p in wide if not p.requires_grad}
        self.trained = {name: p for name, p in wide if p.requires_grad}
        self.copies = {}  # of trained weights, in 16 bits: what `add_gradients` multiplies with

    def __call__(self, batch, count):
        """The summed loss of a batch over `count`: its labelled tokens, for their mean."""
        return self._loss(batch, {n: p.to(self.half) for n, p in self.trained.items()}) / count

    def add_gradients(self, batch, weight, fresh=False):
        """Add the gradients of a batch's summed loss times `weight` to those that parameters hold.

        The same as calling it and a backward pass, in fewer kernels: all weights are copied to
        16 bits by one, and so are their gradients back. fresh: gradients are written, not added;
        every trained parameter must hold one. Returns the loss, detached.
        """
        if self.top is None or not self.trained:
            loss = self(batch, 1) * weight
            others = [p for p in self.net.parameters() if p.requires_grad]
            _put([p.grad for p in others], _gradients(loss, others), fresh)
            return loss.detach()
        wide = list(self.trained.values())
        if not self.copies:
            self.copies = {n: p.detach().to(self.half).requires_grad_()
                           for n, p in self.trained.items()}
        copies = list(self.copies.values())
        with torch.no_grad():
            compat.copy_all(copies, wide)
        loss = self._loss(batch, self.copies) * weight
        # The head's gradient is taken in float32, also where the head is the embedding.
        held = {id(p) for p in wide}
        others = [p for p in self.net.parameters() if p.requires_grad and id(p) not in held]
        tied = [p for p in self.top.parameters() if id(p) in held]
        found = _gradients(loss, [*copies, *others, *tied])
        ends = len(copies), len(copies) + len(others)
        _put([p.grad for p in wide], found[: ends[0]], fresh)
        _put([p.grad for p in others], found[ends[0] : ends[1]], fresh)
        _put([p.grad for p in tied], found[ends[1] :], False)
        return loss.detach()

    def _loss(self, batch, weights):
        given = read(batch, batch["input_ids"].device)
        labels = batch["shift_labels"][0]
        if self.top is None:
            logits = self.net(
                **given, logits_to_keep=batch["logits_to_keep"], use_cache=False
            ).logits
            return F.cross_entropy(logits[0].float(), labels, ignore_index=IGNORED, reduction="sum")
        given["use_cache"] = False
        hidden = torch.func.functional_call(self.body, self.frozen | weights, kwargs=given)[0][0]
        hidden = hidden[batch["logits_to_keep"]]
        weight, bias = self.top.weight, self.top.bias  # multiplied in the format of `hidden`
        return chunked_loss.summed_cross_entropy(hidden, weight, bias, labels, self.portion)


def read(batch, device):
    """What of a packed batch a network reads, its tensors on a device."""
    names = ("input_ids", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k")
    lengths = {name: batch[name] for name in ("max_length_q", "max_length_k")}
    return {name: batch[name].to(device) for name in names} | lengths


def _gradients(loss, tensors):
    """Gradients of a loss; zeros for what it does not depend on."""
    return torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)


@torch.no_grad()
def _put(places, gradients, fresh):
    """Write gradients where they are held, or add them; formats may differ."""
    if not places:
        return
    if not fresh:
        gradients = [g.to(p.dtype) for p, g in zip(places, gradients, strict=True)]
        compat.add_all(places, gradients)
    else:
        compat.copy_all(places, list(gradients))


@torch.no_grad()
def _plain_head(net, top):
    """Whether the logits are hidden states times a matrix and nothing else, tried on three."""
    if type(top) is not torch.nn.Linear:
        return False
    device, places = top.weight.device, torch.arange(3)[None]
    starts = torch.tensor([0, 3], dtype=torch.int32)
    given = {"input_ids": places + 1, "position_ids": places, "cu_seq_lens_q": starts,
             "cu_seq_lens_k": starts, "max_length_q": 3, "max_length_k": 3}
    given = read(given, device) | {"use_cache": False}
    with at_rest(net):
        hidden, logits = backbone(net)(**given)[0], inner(net)(**given).logits
    scores = F.linear(hidden, top.weight, top.bias)
    return bool(torch.allclose(scores.float(), logits.float(), rtol=1e-3, atol=1e-4))
