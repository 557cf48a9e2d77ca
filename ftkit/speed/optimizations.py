"""The names of what makes fit, evaluate and score fast, and which of them to leave off."""

import os

from ftkit.errors import SettingError

OPTIMIZATIONS = ("group_by_length", "logits_to_keep", "eager_attention", "fast_dropout",
                 "keep_freed_memory", "feature_cache", "padding_free", "cuda_graphs",
                 "compile_blocks", "prefix_caching")


def disabled(disable):
    """The names to leave off, as a set: those in `disable`, and those in FTKIT_DISABLE.

    disable: a name of OPTIMIZATIONS, or several. The environment variable FTKIT_DISABLE, names with
    commas between or "all", is for whole lessons that shall run without.
    Raises SettingError for a name that is not in OPTIMIZATIONS.
    """
    given = {disable} if isinstance(disable, str) else set(disable)
    outside = {name.strip() for name in os.environ.get("FTKIT_DISABLE", "").split(",")} - {""}
    for source, found in (("disable", given), ("FTKIT_DISABLE", outside - {"all"})):
        if unknown := sorted(found - set(OPTIMIZATIONS)):
            raise SettingError(f"{source}={unknown[0]!r} names nothing that the kit does to be "
                               f"fast; choose of {', '.join(OPTIMIZATIONS)}.")
    return set(OPTIMIZATIONS) if "all" in outside else given | outside
