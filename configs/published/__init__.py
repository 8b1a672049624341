"""Presets of experiments.published."""
