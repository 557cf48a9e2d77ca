"""Without these, a name left off by mistake would leave off nothing, and nobody would know."""

import pytest

import ftkit as ft
from ftkit.speed import optimizations


def test_whole_lessons_can_run_without(monkeypatch):
    monkeypatch.setenv("FTKIT_DISABLE", "feature_cache, padding_free")
    assert optimizations.disabled("padding_free") == {"feature_cache", "padding_free"}
    monkeypatch.setenv("FTKIT_DISABLE", "all")
    assert optimizations.disabled(()) == set(optimizations.OPTIMIZATIONS)
    monkeypatch.setenv("FTKIT_DISABLE", "magic")
    with pytest.raises(ft.SettingError, match="FTKIT_DISABLE='magic' names nothing"):
        optimizations.disabled(())
