"""What to tell someone who asked for a name that does not exist."""

import difflib
from collections.abc import Iterable


def nearest(wrong: str, known: Iterable[str], kind: str) -> str:
    """Returns a sentence that proposes the names nearest to ``wrong``, or lists the known ones where none is near.

    >>> nearest("trec_corse", ["bbc_news", "trec_coarse"], "data sets")
    "Did you mean 'trec_coarse'?"
    >>> nearest("x", ["bbc_news", "trec_coarse"], "data sets")
    'The data sets are: bbc_news, trec_coarse.'
    """
    known = list(known)
    close = difflib.get_close_matches(wrong, known, n=3, cutoff=0.6)
    close = close or [name for name in known if wrong and wrong.lower() in name.lower()][:3]
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"The {kind} are: {', '.join(known[:40])}{', ...' if len(known) > 40 else ''}."
