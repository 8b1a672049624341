"""Presets of experiments.more."""
