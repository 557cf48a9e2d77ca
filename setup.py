"""Finds the packages: the rooms of ftkit, and `data/`, which pyproject.toml alone cannot add."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["ftkit", "ftkit.*"]), "ftkit._data"])
