"""Presets of experiments.synthetic."""
