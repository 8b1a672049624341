"""Data sets and pretrained weights: named, pinned, cached and split the same way everywhere.

Start with :func:`load` for a labelled set in memory, with :mod:`.pipeline` for batches of a large one, and with
:mod:`.assets` for the weights and texts that ride inside Python packages. Importing this package is cheap: its modules
are imported on first use.
"""
