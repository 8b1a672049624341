"""Citations of the methods."""


def citation(name: str) -> str:
    """Returns the BibTeX entry of a method."""
    raise NotImplementedError(name)
