"""Versions of Python and of the libraries that a result depends on."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "ftkit", "torch", "transformers", "tokenizers", "datasets", "peft", "accelerate", "numpy",
)


@cache
def versions():
    """Versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
