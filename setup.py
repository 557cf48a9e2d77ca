"""Finds the packages: the rooms of ftkit, `data/` and `notebooks/`, which stand beside them."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["ftkit", "ftkit.*"]), "ftkit._data", "ftkit._lessons"])
