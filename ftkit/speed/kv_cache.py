"""A key-value cache with room: a new token is written behind the others, not copied with them.

The library's cache joins old and new keys anew at every step of a generation, in every layer. With
many texts side by side that moves hundreds of megabytes for each token.
"""

from transformers.cache_utils import DynamicLayer

ROOM = 32  # tokens that are added at a time


class PreallocatedLayer(DynamicLayer):
    """A layer's keys and values, each of shape (rows, heads, tokens, width), in a larger tensor."""

    _held = None  # the larger tensors, of keys and of values

    def update(self, key_states, value_states, *args, **kwargs):
        """Write new keys and values behind those that are there. Returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        seen = self.get_seq_length()
        if not seen:
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        whole = seen + key_states.shape[-2]
        fits = self._held and self._held[0].data_ptr() == self.keys.data_ptr()
        if not fits or self._held[0].shape[-2] < whole:
            self._held = tuple(_with_room(old, whole) for old in (self.keys, self.values))
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[..., seen:whole, :] = new
        self.keys, self.values = (held[..., :whole, :] for held in self._held)
        return self.keys, self.values

    def batch_select_indices(self, indices):
        """Keep these rows alone; the larger tensors go at once, not at the next token."""
        self._held = None
        super().batch_select_indices(indices)


def _with_room(old, whole):
    rows, heads, seen, width = old.shape
    held = old.new_empty(rows, heads, whole + ROOM, width)
    held[..., :seen, :] = old
    return held


def preallocate(cache):
    """Let the plain layers of a key-value cache grow in place; others stay. Returns the cache."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            roomy = PreallocatedLayer()
            roomy.lazy_initialization(layer.keys, layer.values)
            roomy.keys, roomy.values = layer.keys, layer.values
            cache.layers[number] = roomy
    return cache
