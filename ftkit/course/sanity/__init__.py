"""Checks of a whole pipeline: what its data, batches, training, evaluation and saving must do."""

from ftkit.course.sanity.run import sanity_checks

__all__ = ["sanity_checks"]
