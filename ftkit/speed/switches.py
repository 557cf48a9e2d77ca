"""The names of what makes fit, evaluate and score fast, and which of them to leave off."""

import os

from ftkit.errors import SettingError

TRICKS = (
    "similar_length",
    "label_logits",
    "plain_attention",
    "quick_dropout",
    "kept_pages",
    "trunk_cache",
    "packing",
    "cuda_graphs",
    "compiled_blocks",
    "shared_prompts",
)


def names(without):
    """The names to leave off, as a set: those in `without`, and those in FTKIT_WITHOUT.

    without: a name of TRICKS, or several. The environment variable FTKIT_WITHOUT, names with
    commas between or "all", is for whole lessons that shall run without.
    Raises SettingError for a name that is not in TRICKS.
    """
    given = {without} if isinstance(without, str) else set(without)
    outside = {name.strip() for name in os.environ.get("FTKIT_WITHOUT", "").split(",")} - {""}
    for source, found in (("without", given), ("FTKIT_WITHOUT", outside - {"all"})):
        if unknown := sorted(found - set(TRICKS)):
            raise SettingError(
                f"{source}={unknown[0]!r} names nothing that the kit does to be fast; choose of "
                f"{', '.join(TRICKS)}."
            )
    return set(TRICKS) if "all" in outside else given | outside
