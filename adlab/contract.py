"""The contract that every detector keeps, as a check that anybody can run.

    adlab.check_detector(MyDetector(seed=3))

It does for detectors what scikit-learn's `check_estimator` does for estimators. Whoever
keeps the contract gets the benchmark, thresholds, measures, saving and this book for
nothing.
"""

from __future__ import annotations

import copy
import inspect
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from adlab.detector import Detector, Localizer, load_detector

CLOSE = {"rtol": 1e-3, "atol": 1e-5}  # two orders of summing, in float32


def check_detector(detector: Detector, images: Tensor | None = None) -> None:
    """Check that a detector keeps the contract; about a dozen fits.

    Args:
        detector: not fitted; with few epochs, so that it fits fast. It stays as it is.
        images: normal ones, float32 (N, C, H, W) in [0, 1], at least 12; None for 24
            generated ones, grey, of 32 × 32 pixels.

    Raises:
        TypeError: no detector.
        AssertionError: what it does not keep, all of it: a line each, with what to do.
    """
    if not isinstance(detector, Detector):
        raise TypeError(
            f"detector: expected an adlab.Detector, got {type(detector).__name__}"
        )
    images = _pictures() if images is None else images
    broken = []
    for clause in CLAUSES:
        try:
            with _nothing_else_touched():
                clause(_again(detector), images)
        except Exception as error:
            ours = isinstance(error, AssertionError)
            what = f"{error}" if ours else f"{type(error).__name__} {error}"
            name = clause.__name__[1:].replace("_", " ")
            broken.append(f"  - {name}: {what}")
            if clause is _arguments_are_stored:
                break  # all others use them
    if broken:
        name = type(detector).__name__
        raise AssertionError(
            "\n".join([f"{name} does not keep the contract:", *broken])
        )


def _pictures(n: int = 24, size: int = 32) -> Tensor:
    """Noise on a slope of light, no two alike."""
    generator = torch.Generator().manual_seed(20)
    slope = torch.linspace(0.2, 0.6, size).expand(n, 1, size, size)
    noise = 0.3 * torch.rand(n, 1, size, size, generator=generator)
    return slope + noise


def _again(detector: Detector) -> Detector:
    """A fresh one with the same arguments."""
    return copy.deepcopy(detector)


# -- the clauses: each gets a fresh detector and images, and asserts one promise


def _arguments_are_stored(detector: Detector, images: Tensor) -> None:
    for name in inspect.signature(type(detector)).parameters:
        assert hasattr(detector, name), (
            f"the constructor takes {name!r}, but there is no attribute of that name; "
            f"write self.{name} = {name}, as saving, repr and set_params read it"
        )
    for name in ("seed", "device"):
        assert name in detector.get_params(deep=False), (
            f"the constructor takes no {name!r}; let it, and call super().__init__"
        )
    twin = type(detector)(**detector.get_params(deep=False))
    for name, value in twin.get_params(deep=False).items():
        own = getattr(detector, name)
        assert value is own or repr(value) == repr(own), (
            f"argument {name!r} comes back as {value!r} from {own!r}; store arguments "
            "as they are, and compute from them in _fit"
        )


def _unfitted_it_refuses(detector: Detector, images: Tensor) -> None:
    from sklearn.exceptions import NotFittedError

    try:
        detector.anomaly_score(images[:2])
    except NotFittedError:
        return
    raise AssertionError("it scores before fit; nothing may be learned before")


def _fit_returns_itself(detector: Detector, images: Tensor) -> None:
    arguments = repr(detector)
    before = images.clone()
    assert detector.fit(images) is detector, "fit must return self"
    assert torch.equal(images, before), "fit changed the images that it was given"
    assert repr(detector) == arguments, (
        "fit changed an argument; what is learned goes into attributes that end in _"
    )


def _scores_are_finite_and_one_an_image(detector: Detector, images: Tensor) -> None:
    scores = detector.fit(images).anomaly_score(images)
    assert scores.dtype == torch.float32 and scores.shape == (len(images),), (
        f"expected float32 ({len(images)},), got {scores.dtype} {tuple(scores.shape)}"
    )
    if isinstance(detector, Localizer) and images.ndim == 4:
        maps = detector.anomaly_map(images)
        shape = (len(images), *images.shape[2:])
        assert maps.dtype == torch.float32 and maps.shape == shape, (
            f"expected maps float32 {shape}, got {maps.dtype} {tuple(maps.shape)}"
        )
        both = detector.score_and_map(images)
        for found, expected in zip(both, (scores, maps), strict=True):
            _assert_close(
                found, expected, "score_and_map does not give both as they are"
            )


def _a_score_depends_on_its_image_alone(detector: Detector, images: Tensor) -> None:
    scores = detector.fit(images).anomaly_score(images)
    order = torch.arange(len(images)).flip(0)
    ways = {
        "in another order": detector.anomaly_score(images[order])[order],
        "one by one": torch.cat([detector.anomaly_score(x[None]) for x in images[:4]]),
        "in other company": detector.anomaly_score(
            torch.cat([images[:2], 1 - images[:5]])
        )[:2],
    }
    detector.batch_size = 5
    ways["in batches of 5"] = detector.anomaly_score(images)
    for way, found in ways.items():
        _assert_close(
            found,
            scores[: len(found)],
            f"scored {way} the scores are others; a statistic of the batch belongs "
            "into _fit, and batch norms into eval mode",
        )


def _the_seed_decides(detector: Detector, images: Tensor) -> None:
    first = detector.fit(images).anomaly_score(images)
    with torch.random.fork_rng():
        torch.rand(7)  # the caller draws in between
        second = _again(detector).fit(images).anomaly_score(images)
    _assert_close(
        second, first, "the same seed gives other scores; draw from torch in _fit only"
    )
    _assert_close(
        detector.anomaly_score(images), first, "scored again the scores are others"
    )


def _fit_starts_from_scratch(detector: Detector, images: Tensor) -> None:
    fresh = _again(detector).fit(images).anomaly_score(images)
    used = detector.fit(1 - images).fit(images).anomaly_score(images)
    _assert_close(
        used,
        fresh,
        "what was learned from earlier images shows; make networks and moments in _fit",
    )


def _a_loaded_one_scores_the_same(detector: Detector, images: Tensor) -> None:
    scores = detector.fit(images).anomaly_score(images)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "detector.safetensors"
        try:
            detector.save(path)
        except TypeError:
            assert any(
                isinstance(value, nn.Module) or callable(value)
                for value in detector.get_params(deep=False).values()
            ), "save refuses, but no argument is a network or a function of one's own"
            return
        loaded = load_detector(path)
    assert repr(loaded) == repr(detector), f"saved {detector!r}, loaded {loaded!r}"
    _assert_close(
        loaded.anomaly_score(images),
        scores,
        "loaded it gives other scores; what _fit learns must be tensors, networks "
        "(made by _build), detectors or numbers in attributes that end in _",
    )


def _bad_images_are_refused_and_do_no_harm(detector: Detector, images: Tensor) -> None:
    scores = detector.fit(images).anomaly_score(images)
    hole = images.clone()
    hole.view(-1)[0] = float("nan")
    bad = {"NaN": hole, "no image": images[:0], "text": "images"}
    if images.ndim == 4:
        bad |= {
            "values above 1": images * 300,
            "whole numbers": (images * 255).to(torch.int16),
            "five dimensions": images[None],
            "another number of channels": torch.cat([images, images], 1),
        }
    for what, given in bad.items():
        for call in (detector.anomaly_score, detector.fit):
            try:
                call(given)
            except (TypeError, ValueError, FileNotFoundError):
                continue
            except FloatingPointError:
                pass  # too late
            raise AssertionError(
                f"{call.__name__} takes {what}; read images through self._stream, "
                "which checks them"
            )
    _assert_close(
        detector.anomaly_score(images), scores, "after a failed fit it scores otherwise"
    )


def _other_sizes_where_promised(detector: Detector, images: Tensor) -> None:
    if images.ndim != 4:
        return
    detector.fit(images)
    larger = torch.cat([images, images.flip(3)], 3)[..., :-3]
    if detector.any_size:
        scores = detector.anomaly_score(larger)
        assert bool(torch.isfinite(scores).all()), "larger images: NaN or infinite"
        return
    try:
        detector.anomaly_score(larger)
    except ValueError:
        return
    raise AssertionError("any_size is False, but it scores images of another size")


def _grey_and_colour(detector: Detector, images: Tensor) -> None:
    if images.ndim != 4:
        return
    channels = 3 if images.shape[1] == 1 else 1
    other = images[:, :1].repeat(1, channels, 1, 1)
    scores = detector.fit(other).anomaly_score(other)
    assert scores.shape == (len(images),), f"images of {channels} channels fail"


def _another_default_dtype(detector: Detector, images: Tensor) -> None:
    expected = _again(detector).fit(images).anomaly_score(images)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        scores = detector.fit(images).anomaly_score(images)
    finally:
        torch.set_default_dtype(before)
    assert scores.dtype == torch.float32, (
        f"where the default dtype is float64, scores are {scores.dtype}"
    )
    _assert_close(
        scores, expected, "where the default dtype is float64, the scores are others"
    )


CLAUSES: tuple[Callable[[Detector, Tensor], None], ...] = (
    _arguments_are_stored,
    _unfitted_it_refuses,
    _fit_returns_itself,
    _scores_are_finite_and_one_an_image,
    _a_score_depends_on_its_image_alone,
    _the_seed_decides,
    _fit_starts_from_scratch,
    _a_loaded_one_scores_the_same,
    _bad_images_are_refused_and_do_no_harm,
    _other_sizes_where_promised,
    _grey_and_colour,
    _another_default_dtype,
)


def _assert_close(found: Tensor, expected: Tensor, advice: str) -> None:
    spread = float(expected.abs().max())
    if not torch.allclose(found, expected, **CLOSE | {"atol": 1e-5 * max(spread, 1)}):
        gap = float((found - expected).abs().max())
        raise AssertionError(f"{advice} (they differ by up to {gap:.3g})")


@contextmanager
def _nothing_else_touched() -> Iterator[None]:
    """Fail where the block leaves traces: in the random state of the caller, the number
    of threads, or the working folder.
    """
    states = _state()
    yield
    for what, before, after in zip(TRACES, states, _state(), strict=True):
        assert before == after, f"{what} is not as it was"


TRACES = (
    "torch's random state",
    "NumPy's random state",
    "Python's random state",
    "the number of threads",
    "the list of files in the working folder",
)


def _state() -> tuple[object, ...]:
    return (
        torch.get_rng_state().numpy().tobytes(),
        str(np.random.get_state()),
        random.getstate(),
        torch.get_num_threads(),
        sorted(os.listdir()),
    )
