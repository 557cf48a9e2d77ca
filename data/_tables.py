"""Reads tables: CSV files of an archive, and those of this folder."""

from __future__ import annotations

import bz2
import io

from ftkit.assets.fetch import read_member
from ftkit.data.recipe import package_file


def archive_table(archive: str, member: str):
    """Return a CSV file of an archive, compressed or not, as a pandas DataFrame."""
    import pandas as pd

    content = read_member(archive, member)
    return pd.read_csv(io.BytesIO(bz2.decompress(content) if member.endswith(".bz2") else content))


def own_table(file: str):
    """Return a CSV file of the folder `data/` as a pandas DataFrame."""
    import pandas as pd

    return pd.read_csv(package_file(file))
