"""Presets of experiments.colander."""
