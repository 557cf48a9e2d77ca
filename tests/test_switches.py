"""Without these, a name left off by mistake would leave off nothing, and nobody would know."""

import pytest

import ftkit as ft
from ftkit.speed import switches


def test_whole_lessons_can_run_without(monkeypatch):
    monkeypatch.setenv("FTKIT_WITHOUT", "trunk_cache, packing")
    assert switches.names("packing") == {"trunk_cache", "packing"}
    monkeypatch.setenv("FTKIT_WITHOUT", "all")
    assert switches.names(()) == set(switches.TRICKS)
    monkeypatch.setenv("FTKIT_WITHOUT", "magic")
    with pytest.raises(ft.SettingError, match="FTKIT_WITHOUT='magic' names nothing"):
        switches.names(())
