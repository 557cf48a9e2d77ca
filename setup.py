"""Finds the packages: the rooms of ftkit, and `data/`, `docs/` and `notebooks/` beside them."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["ftkit", "ftkit.*"]), "ftkit._data", "ftkit._docs",
                "ftkit._lessons"])
