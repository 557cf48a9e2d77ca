"""A method as JSON can hold it, and back: by the list of the kit's methods, never by running text.

What JSON cannot hold (a teacher, a reward) is left out by name, and such a method is not made again
with something else in its place.
"""

import dataclasses
import inspect

from ftkit.errors import SettingError


def is_plain(value):
    """Whether JSON holds a value such that it comes back the same (a tuple as a list)."""
    if isinstance(value, dict):
        return all(type(k) is str and is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def as_plain(method):
    """A method as a dict: "class" (of the kit's own the bare name), "fields", "left_out".

    left_out: {field: what stands there, in words} of what JSON cannot hold.
    """
    from ftkit import methods

    kind = type(method)
    own = getattr(methods, kind.__name__, None) is kind
    found = {"class": kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}",
             "fields": {}, "left_out": {}}
    if not dataclasses.is_dataclass(method):
        found["left_out"]["settings"] = f"those of {found['class']}"
        return found
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if not field.init:
            continue
        if is_plain(value):
            found["fields"][field.name] = list(value) if isinstance(value, tuple) else value
        elif hasattr(value, "apply") and dataclasses.is_dataclass(value):
            found["fields"][field.name] = as_plain(value)
        else:
            found["left_out"][field.name] = _in_words(value)
    return found


def _in_words(value):
    if hasattr(value, "net") and hasattr(value, "fingerprint"):
        return f"Model {value.name} with weights {value.fingerprint()[:12]}"
    return getattr(value, "__qualname__", type(value).__name__)


def from_plain(found):
    """The method that a dict of as_plain describes.

    Raises SettingError for a class that is none of the kit's methods, for fields it does not have,
    and where something was left out.
    """
    from ftkit import methods

    name = found.get("class") if isinstance(found, dict) else None
    kind = getattr(methods, name) if name in methods.__all__ else None
    if not inspect.isclass(kind) or not hasattr(kind, "apply"):
        raise SettingError(f"the record names the method {name!r}, which is none of the kit's; "
                           "only these are made from a record. Train it by your own code.")
    if left := found.get("left_out"):
        field, words = next(iter(left.items()))
        raise SettingError(f"{name} was given {field} ({words}), which a record cannot hold; train "
                           "it by your own code.")
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    if unknown := sorted(set(found["fields"]) - known):
        raise SettingError(f"the record has {name}({unknown[0]}=...), and this version of the kit "
                           f"knows {', '.join(sorted(known)) or 'no settings'}; use the version "
                           "that wrote it.")
    return kind(**{field: _value(value) for field, value in found["fields"].items()})


def _value(value):
    if isinstance(value, list):
        return tuple(value)
    return from_plain(value) if isinstance(value, dict) and "class" in value else value
