"""Presets of the AutoWS benchmark."""
