"""One script per method: a config in, a run folder out; see :mod:`experiments.runner`."""
