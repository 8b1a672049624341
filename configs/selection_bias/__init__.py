"""Presets of experiments.selection_bias."""
