"""How an answer is tried: on many small random instances, the smallest first; and how
what is wrong with it is told in words.

A check is made of an oracle, a function of how to draw instances, and a table of known
mistakes: words, and a function that makes that mistake.
"""

from __future__ import annotations

import copy
import inspect
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adlab._checks import as_array
from adlab.training import seeded

N_INSTANCES = 100
LARGEST = 8  # size of the last ones
RTOL, ATOL = 5e-4, 1e-6  # an answer may be computed in float32, or by iteration
SHOWN = 24  # numbers of an array that are written out
FORMAT: Any = {"float_kind": lambda x: f"{x + 0:.6g}", "bool": str, "int": str}

Answer = Callable[..., Any]
Check = Callable[..., None]
Draw = Callable[[np.random.Generator, int], tuple[Any, ...]]
Instance = dict[str, Any]


class CheckError(AssertionError):
    """An answer is wrong; the message says how, and shows where."""


class _AnswerError(Exception):
    """What is wrong with one answer: in words that go after "your auroc", and in
    numbers.
    """

    def __init__(self, words: str, detail: str = ""):
        super().__init__(words, detail)
        self.words, self.detail = words, detail


# -- checks


def compared(
    draw: Draw, mistakes: Mapping[str, Answer], samples: Sequence[str] = ()
) -> Callable[[Answer], Check]:
    """Make a check of an oracle, a function that gives the right answer.

    Args:
        draw: gives the arguments of one instance, from a generator and a size ≥ 1.
        mistakes: words that go after "your …", and what makes that mistake.
        samples: names of the arguments with one entry a sample; a counter-example is
            made smaller by leaving out samples, and by rounding the first of these.
    """
    return lambda oracle: _as_check(_Comparison(oracle, draw, mistakes, samples))


def judged(draw: Draw) -> Callable[[Answer], Check]:
    """Make a check of a judge, where more than one answer is right: it gets an answer, an
    array, and the arguments of the instance. What it returns, unless None, goes after
    "your …".
    """
    return lambda judge: _as_check(_Judgement(judge, draw))


@dataclass(frozen=True)
class _Judgement:
    """What is asked, and how an answer is found to be wrong."""

    by: Answer
    draw: Draw
    mistakes: Mapping[str, Answer] = field(default_factory=dict)
    samples: Sequence[str] = ()

    def instances(self, seed: int) -> list[Instance]:
        """Small ones first."""
        rng = np.random.default_rng(seed)
        sizes = [1 + LARGEST * i // N_INSTANCES for i in range(N_INSTANCES)]
        return [self._named(self.draw(rng, size)) for size in sizes]

    def _named(self, arguments: tuple[Any, ...]) -> Instance:
        names = list(inspect.signature(self.by).parameters)[-len(arguments) :]
        return dict(zip(names, arguments, strict=True))

    def fault(self, answer: Answer, instance: Instance) -> _AnswerError | None:
        """What is wrong with an answer, if anything."""
        try:
            words = self.by(_array(_call(answer, instance)), **instance)
        except _AnswerError as found:
            return found
        return _AnswerError(words) if words else None

    def diagnose(self, answer: Answer, instances: list[Instance]) -> str | None:
        """The words for a known mistake, if it makes one on all instances."""
        return None

    def smaller(self, instance: Instance) -> Iterator[Instance]:
        """The same with a sample less, or rounded, if that has an answer."""
        yield from ()


class _Comparison(_Judgement):
    """With what an oracle gives."""

    def fault(self, answer: Answer, instance: Instance) -> _AnswerError | None:
        return _difference(answer, instance, self.by(**instance))

    def diagnose(self, answer: Answer, instances: list[Instance]) -> str | None:
        for words, mistake in chain(self.mistakes.items(), _relations(self.by)):
            if _agree(answer, mistake, instances):
                return words
        return None

    def smaller(self, instance: Instance) -> Iterator[Instance]:
        for candidate in _smaller(instance, self.samples):
            if _has_an_answer(self.by, candidate):
                yield candidate


def _as_check(judgement: _Judgement) -> Check:
    """The function that is called, with the name and the docstring of the oracle."""

    def check(answer: Answer, seed: int = 0) -> None:
        __tracebackhide__ = True  # pytest shows the line of the caller
        _check_function(answer)
        with _drawn_from(seed):
            error = _first_error(judgement, answer, judgement.instances(seed))
        if error:
            raise error
        print(f"{check.__name__}: {N_INSTANCES} instances, all right")

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(check, name, getattr(judgement.by, name))
    check.mistakes = dict(judgement.mistakes)  # type: ignore[attr-defined]
    return check


def _check_function(answer: object) -> None:
    if not callable(answer):
        raise TypeError(
            f"answer: expected a function, got {type(answer).__name__} {answer!r}"
        )


def _first_error(
    judgement: _Judgement, answer: Answer, instances: list[Instance]
) -> CheckError | None:
    """The error that explains the first fault, if there is one."""
    for instance in instances:
        fault = judgement.fault(answer, instance)
        if fault:
            with warnings.catch_warnings():  # they came with the first call
                warnings.simplefilter("ignore")
                words = judgement.diagnose(answer, instances)
                fault, instance = _least(judgement, answer, fault, instance)
            error = CheckError(_message(judgement, words, fault, instance))
            error.__cause__ = fault.__cause__
            return error
    return None


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Whatever an answer draws at random comes from the seed; the caller's states
    stay as they are.
    """
    states = np.random.get_state(), random.getstate()
    try:
        with seeded(seed):
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


# -- one answer


def _call(answer: Answer, instance: Instance) -> Any:
    """What it returns, if that is something, and its arguments are as they were."""
    given = copy.deepcopy(instance)
    try:
        returned = answer(*given.values())
    except Exception as error:
        raise _AnswerError(f"raises {type(error).__name__}", f"“{error}”") from error
    for name in instance:
        if not _same(given[name], instance[name]):
            raise _AnswerError(f"changes its argument {name}", "work on a copy")
    if returned is None:
        raise _AnswerError("returns None", "is there a `return`?")
    return returned


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else a == b


def _array(returned: Any) -> np.ndarray:
    try:
        return as_array("answer", returned)
    except (TypeError, ValueError) as error:
        raise _AnswerError(
            f"returns {type(returned).__name__}", "no numbers"
        ) from error


def _difference(
    answer: Answer, instance: Instance, expected: Any
) -> _AnswerError | None:
    """What is wrong with an answer, if anything."""
    try:
        returned = _call(answer, instance)
        for where, found, right in _pairs(returned, expected):
            _compare(where, _array(found), _array(right))
    except _AnswerError as fault:
        return fault
    return None


def _pairs(returned: Any, expected: Any) -> list[tuple[str, Any, Any]]:
    """What is to be compared, one by one where several things are to be returned."""
    if not isinstance(expected, tuple):
        return [("", returned, expected)]
    n = len(expected)
    if not isinstance(returned, tuple | list) or len(returned) != n:
        got = f"{type(returned).__name__} {_told(returned)}"
        raise _AnswerError("returns something else", f"expected {n} values, got {got}")
    return [
        (f"value {i + 1} of {n}: ", *pair)
        for i, pair in enumerate(zip(returned, expected, strict=True))
    ]


def _compare(where: str, found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        shapes = f"expected {_shape(expected)}, got {_shape(found)}"
        raise _AnswerError("returns another shape", where + shapes)
    if np.allclose(found, expected, RTOL, ATOL, equal_nan=True):
        return
    finite = np.isfinite(found).all()
    words = "is wrong" if finite else "returns NaN or infinite values"
    raise _AnswerError(words, where + _both(found, expected))


# -- what it is


def _agree(answer: Answer, mistake: Answer, instances: list[Instance]) -> bool:
    """Whether it makes this very mistake on all instances."""
    return not any(
        _difference(answer, instance, mistake(*instance.values()))
        for instance in instances
    )


def _relations(oracle: Answer) -> Iterator[tuple[str, Answer]]:
    """Mistakes that are known of every oracle with a single value."""
    for words, relation in RELATIONS.items():

        def mistake(*given: Any, relation: Answer = relation) -> Any:
            right = oracle(*given)
            return relation(_array(right) if not isinstance(right, tuple) else np.nan)

        yield words, mistake


RELATIONS: dict[str, Answer] = {
    "has the wrong sign": lambda right: -right,
    "is one minus what it should be": lambda right: 1 - right,
    "is the square of what it should be: take the root": np.square,
    "is the root of what it should be": lambda right: np.sqrt(np.abs(right)),
    "is twice what it should be": lambda right: 2 * right,
    "is half of what it should be": lambda right: right / 2,
    "is the sum over what should be kept apart": np.sum,
    "is the mean over what should be kept apart": np.mean,
}


# -- smaller counter-examples


def _least(
    judgement: _Judgement, answer: Answer, found: _AnswerError, instance: Instance
) -> tuple[_AnswerError, Instance]:
    """The same fault on an instance that cannot be made smaller."""
    for candidate in judgement.smaller(instance):
        again = judgement.fault(answer, candidate)
        if again and again.words == found.words:
            return _least(judgement, answer, again, candidate)
    return found, instance


def _smaller(instance: Instance, samples: Sequence[str]) -> Iterator[Instance]:
    """The same with a sample less, or rounded."""
    if not samples:
        return
    first = instance[samples[0]]
    for i in range(len(first)) if len(first) > 1 else ():
        kept = [j for j in range(len(first)) if j != i]
        yield instance | {name: instance[name][kept] for name in samples}
    rounded = first.round()
    if not _same(rounded, first):
        yield instance | {samples[0]: rounded}


def _has_an_answer(oracle: Answer, instance: Instance) -> bool:
    """Whether the oracle knows one: not where a class is missing, say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            right = oracle(**instance)
        parts = right if isinstance(right, tuple) else (right,)
        return all(np.isfinite(_array(part)).all() for part in parts)
    except Exception:
        return False


# -- words


def _message(
    judgement: _Judgement, words: str | None, fault: _AnswerError, instance: Instance
) -> str:
    arguments = ", ".join(f"{key} {_told(value)}" for key, value in instance.items())
    parts = [f"{words or fault.words}: {arguments}", fault.detail]
    return f"your {judgement.by.__name__} {'; '.join(filter(None, parts))}"


def _told(value: Any) -> str:
    """A value as it is written in a sentence."""
    if value is None or isinstance(value, str | bool | int):
        return repr(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__).lstrip("_")
    try:
        array = as_array("value", value)
    except (TypeError, ValueError):
        return f"[{', '.join(map(_told, value))}]" if isinstance(value, list) else "…"
    if array.size > SHOWN:
        return f"of {_shape(array)}"
    text = np.array2string(array, separator=", ", formatter=FORMAT)
    return re.sub(r"\s+", " ", text)


def _shape(array: np.ndarray) -> str:
    return f"shape {array.shape}" if array.ndim else "a number"


def _both(found: np.ndarray, expected: np.ndarray) -> str:
    """Both values; of many, those at the place where they differ most."""
    if found.size <= SHOWN:
        return f"expected {_told(expected)}, got {_told(found)}"
    gap = np.nan_to_num(np.abs(found - expected), nan=np.inf)
    place = tuple(map(int, np.unravel_index(np.argmax(gap), gap.shape)))
    return f"at {place} expected {expected[place]:.6g}, got {found[place]:.6g}"
