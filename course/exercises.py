"""The check of an exercise: one sentence, whatever the reader wrote."""

import dis
import inspect
from collections.abc import Callable
from typing import Any


class Mistake(Exception):
    """What the reader's own function did wrong, in one sentence."""


def check_exercise(number: str, answer: Any, is_right: Callable[[Any], bool], hint: str) -> None:
    """Print whether an exercise is not tried yet, right, or not right yet, with a hint.

    answer: a value or a function; None, or a function that is still `return None`, is not tried yet. is_right: takes
    the answer, which it may call, and returns True or False. It need not check what kind of answer it gets: if it
    raises an error, the answer is not right yet.
    An error in the reader's function, or a missing `return`, is reported before the hint, never raised.
    """
    if answer is None or _is_blank(answer):
        print(f"Exercise {number}: not tried yet.")
        return
    try:
        verdict = "right." if is_right(_watched(answer) if callable(answer) else answer) else f"not right yet. {hint}"
    except Mistake as mistake:
        verdict = f"not right yet. {mistake} {hint}"
    except Exception:  # the answer is of a kind that the check cannot handle
        verdict = f"not right yet. {hint}"
    print(f"Exercise {number}: {verdict}")


def _is_blank(answer: Any) -> bool:
    """Return whether an answer is a function that does nothing but return None, as the course leaves it."""
    if not inspect.isfunction(answer):
        return False
    steps = [step.argval for step in dis.get_instructions(answer) if step.opname not in ("RESUME", "RETURN_VALUE")]
    return steps == [None]


def _watched(function: Callable) -> Callable:
    """Return the reader's function, made to raise Mistake if it fails or returns None."""

    def watched(*arguments, **named):
        """Call the function."""
        try:
            answer = function(*arguments, **named)
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0][:150].rstrip(".")
            told = f"{type(error).__name__}{first_line and ': '}{first_line}"
            raise Mistake(f"Your function stopped with {told}.") from error
        if answer is None:
            raise Mistake("Your function returned nothing: does every path through it end with `return`?")
        return answer

    return watched
