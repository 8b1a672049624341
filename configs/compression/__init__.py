"""Presets of experiments.compression."""
