"""Presets of the experiments: ``configs/<experiment>/<preset>.py``, each with a docstring and ``get_config()``."""
