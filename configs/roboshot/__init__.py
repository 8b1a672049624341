"""Presets of experiments.roboshot."""
