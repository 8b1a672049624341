"""Presets of experiments.language_model."""
