"""Answers read out of generated texts, as the commonsense and math benchmarks of LLM-Adapters are scored.

Hu et al., "LLM-Adapters: An Adapter Family for Parameter-Efficient Fine-Tuning of Large Language Models", 2023.
"""

import re

_STATED = "the correct answer is "
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_LETTER = re.compile(r"\b[A-E]\b")


def stated_answer(text: str) -> str | None:
    """Returns what follows the last "the correct answer is " on its line, without a full stop; None if nothing does.

    >>> stated_answer("Well, the correct answer is true.")
    'true'
    """
    _, found, answer = text.rpartition(_STATED)
    line = answer.partition("\n")[0].strip().rstrip(".").strip()
    return line or None if found else None


def states(text: str, answer: str) -> bool:
    """Returns whether a text states exactly this answer.

    >>> states("the correct answer is answer2", "answer2"), states("the correct answer is answer21", "answer2")
    (True, False)
    """
    return stated_answer(text) == answer


def last_number(text: str) -> float | None:
    """Returns the last number of a text, commas between digits left out; None if there is none.

    >>> last_number("3 + 4 = 7, so it is $1,007.50.")
    1007.5
    """
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def ends_in_number(text: str, answer: float, *, tolerance: float = 1e-3) -> bool:
    """Returns whether the last number of a text is within ``tolerance`` of the answer.

    >>> ends_in_number("about 0.3333", 1 / 3), ends_in_number("no idea", 1.0)
    (True, False)

    Raises:
      ValueError: if the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    number = last_number(text)
    return number is not None and abs(number - answer) <= tolerance


def first_letter(text: str) -> str | None:
    """Returns the first of the letters A to E that stands alone, the answer to a question with choices.

    >>> first_letter("Because (B) is larger than A.")
    'B'
    """
    found = _LETTER.search(text)
    return found[0] if found else None
