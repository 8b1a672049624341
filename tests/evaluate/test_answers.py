"""Answers read out of texts."""

import pytest

from zsml_jax.evaluate import answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("the correct answer is solution1", "solution1"),
        ("the correct answer is true.\nthe next line", "true"),
        ("the correct answer is false; no, the correct answer is true", "true"),
        ("the correct answer is ", None),
        ("true", None),
    ],
)
def test_the_stated_answer_is_the_whole_line_behind_the_last_such_phrase(text, answer):
    assert answers.stated_answer(text) == answer
    assert answer is None or answers.states(text, answer)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 * -4 = -12", -12.0),
        ("it costs $1,234,567.25.", 1234567.25),
        ("2 apples, 3.0 pears", 3.0),
        ("none", None),
    ],
)
def test_the_last_number_counts(text, number):
    assert answers.last_number(text) == number


def test_a_number_may_be_off_by_the_tolerance_and_no_more():
    assert answers.ends_in_number("x = 2.0005", 2.0) and not answers.ends_in_number("x = 2.002", 2.0)
    assert not answers.ends_in_number("no number", 0.0)
    with pytest.raises(ValueError, match="tolerance must not be negative, got -1.0"):
        answers.ends_in_number("1", 1.0, tolerance=-1.0)


def test_a_choice_is_the_first_letter_that_stands_alone():
    assert answers.first_letter("Among them: (C), then A") == "C"
    assert answers.first_letter("Fgh") is None
