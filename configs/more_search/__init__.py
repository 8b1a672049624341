"""Presets of experiments.more_search."""
