"""Presets of experiments.image_classifier."""
