"""Notebooks run in batch. The package can be called: `ft.batch("notebooks", workers="auto")`."""

import sys
from types import ModuleType


class _Room(ModuleType):
    """`ftkit.batch` names a room of modules and, as `ft.batch(...)`, the function in its front."""

    @property
    def __wrapped__(self):
        from ftkit.batch.front import batch

        return batch

    def __call__(self, *arguments, **options):
        return self.__wrapped__(*arguments, **options)


sys.modules[__name__].__class__ = _Room
