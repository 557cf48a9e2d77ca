"""Faults that train without an error, each planted into the kit for the duration of a block."""

from ftkit.course.faults.plant import fault

__all__ = ["fault"]
