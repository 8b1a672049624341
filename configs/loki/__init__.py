"""Presets of experiments.loki."""
