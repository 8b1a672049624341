"""Presets of experiments.otter."""
