"""Without these, a cache that grows in place could lose or mix the keys of what was read."""

import tiny
import torch
from transformers import DynamicCache

import ftkit as ft
from ftkit.speed import kv_cache


def test_a_growing_cache_holds_what_the_librarys_holds(monkeypatch):
    monkeypatch.setattr(kv_cache, "ROOM", 2)  # so that it has to grow several times
    plain, roomy = DynamicCache(), DynamicCache()
    random = torch.Generator().manual_seed(0)
    for step, tokens in enumerate((5, 1, 1, 1, 2, 1)):
        for layer in range(2):
            new = torch.randn(2, 3 if step < 3 else 2, 4, tokens, 8, generator=random)
            expected = plain.update(*new, layer)
            found = kv_cache.preallocate(roomy).update(*new, layer)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
        if step == 2:  # a row has ended
            for cache in (plain, roomy):
                cache.batch_select_indices(torch.tensor([2, 0]))
    assert all(type(layer) is kv_cache.PreallocatedLayer for layer in roomy.layers)
    assert roomy.get_seq_length() == plain.get_seq_length() == 11


def test_keys_are_not_copied_while_there_is_room(monkeypatch):
    copies = []
    made = kv_cache._with_room
    monkeypatch.setattr(kv_cache, "_with_room", lambda *a: copies.append(1) or made(*a))
    model = tiny.decoder()
    model.net.generation_config.eos_token_id = None
    ft.generate(model, ["cat", "dog and the cat"], max_new_tokens=20)
    layers = model.net.config.num_hidden_layers
    assert len(copies) <= 2 * layers * 3
