"""Presets of experiments.pathways."""
