"""The protocol of detectors: fit, score, save and load; networks and detectors inside;
failures.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.backends import cudnn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import adlab
from adlab.data import ImageFolder, ImageSet, Reading
from adlab.detector import Detector, Localizer, _digest
from adlab.training import train
from adlab.vectors import KNN, Gaussian, Patchwise, PCAResidual, PixelGaussian


def pictures(n=16, channels=1, height=8, width=6, seed=0):
    return torch.rand(
        n, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )


class TinyAutoencoder(Localizer):
    """A detector of one's own, with a network, a number, a tensor and sequences."""

    any_size = True

    def __init__(
        self,
        width: int = 4,
        kernel: tuple = (3, 3),
        *,
        seed: int = 0,
        device: str = "auto",
    ):
        super().__init__(seed=seed, device=device)
        self.width, self.kernel = width, kernel

    def _fit(self, images):
        next(self._stream(images))  # the shape, for `_build`
        self._build()
        self.history_ = train(
            self.network_,
            self._loss,
            images,
            epochs=2,
            seed=self.seed,
            device=self.device,
        )
        self.floor_ = torch.stack(
            [self._map(batch).detach().amin() for batch in self._stream(images)]
        ).amin()

    def _build(self):
        channels, options = self.input_shape_[0], {"padding": "same"}
        self.network_ = nn.Sequential(
            nn.Conv2d(channels, self.width, self.kernel, **options),
            nn.BatchNorm2d(self.width),
            nn.ReLU(),
            nn.Conv2d(self.width, channels, self.kernel, **options),
        )

    def _loss(self, batch):
        return (self.network_(batch) - batch).square().mean()

    def _map(self, batch):
        return (self.network_(batch) - batch).square().mean(1)


class Random(Detector):
    """A detector that draws random numbers, both to fit and to score; it has no
    constructor of its own.
    """

    def _fit(self, images):
        for batch in self._stream(images):
            self.direction_ = torch.randn(batch[0].numel())

    def _score(self, batch):
        return batch.flatten(1) @ self.direction_ + torch.randn(len(batch))


class Nested(Detector):
    """A detector with one detector as an argument and two learned ones, one of them two
    levels deep.
    """

    def __init__(self, detector, *, seed: int = 0, device: str = "auto"):
        super().__init__(seed=seed, device=device)
        self.detector = detector

    def _fit(self, images):
        batches = list(self._stream(images))
        self.inner_ = Patchwise(TinyVectors(), 3, 2).fit(batches)
        self.other_ = copy.copy(self.detector).fit(batches)

    def _score(self, batch):
        return self.inner_._score(batch) + self.other_._score(batch.flatten(1))


class Fixed(Detector):
    """A detector that reads a network which is made by its name, not learned."""

    def _fit(self, images):
        self.centre_ = torch.cat(list(self._stream(images))).mean(0)
        self._build()

    def _build(self):
        self._network = nn.Flatten().train()

    def _score(self, batch):
        return self._network(batch - self.centre_).norm(dim=1)


class TinyVectors(Gaussian):
    """A subclass of a detector of adlab."""


DETECTORS = {
    "gaussian": Gaussian(reg_covar=1e-3),
    "diag": Gaussian("diag"),
    "pixel": PixelGaussian(image_score="mean"),
    "knn": KNN(n_neighbors=2),
    "pca": PCAResidual(n_components=3),
    "patch-gaussian": Patchwise(Gaussian(reg_covar=0.1), patch_size=3, stride=2),
    "patch-knn": Patchwise(KNN(n_neighbors=3), 4, stride=4, image_score="mean", seed=3),
    "patch-statistics": Patchwise(Gaussian(), 4, features="statistics"),
    "network": TinyAutoencoder(width=3, seed=5),
    "fixed-network": Fixed(),
    "random": Random(),
    "nested": Nested(KNN(n_neighbors=2)),
    "on-the-cpu": Gaussian(device="cpu"),
}
each = pytest.mark.parametrize("name", DETECTORS)


def make(name):
    """A detector of that name, not fitted."""
    return eval(repr(DETECTORS[name]))


def results(detector, images):
    """All that a detector says of images."""
    maps = [detector.anomaly_map(images)] if isinstance(detector, Localizer) else []
    return [detector.anomaly_score(images), *maps]


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert torch.equal(one, other)


# The arguments


def test_repr_shows_what_is_not_at_its_default():
    assert repr(Gaussian()) == "Gaussian()"
    assert repr(Gaussian("full", 1e-6, seed=0, device="auto")) == "Gaussian()"
    assert repr(Gaussian("diag", seed=3)) == "Gaussian(covariance_type='diag', seed=3)"
    assert (
        repr(Patchwise(KNN(n_neighbors=2), stride=3))
        == "Patchwise(detector=KNN(n_neighbors=2), stride=3)"
    )
    assert repr(Random(seed=1)) == "Random(seed=1)"
    own = adlab.PaDiM(nn.Sequential(nn.Conv2d(3, 8, 3)), ["0"])
    assert repr(own) == "PaDiM(backbone=Sequential, layers=('0',))"


@each
def test_repr_evaluates_to_the_same_detector(name):
    detector = eval(repr(DETECTORS[name]))
    assert type(detector) is type(DETECTORS[name])
    assert repr(detector) == repr(DETECTORS[name])


@each
def test_fitting_does_not_change_the_arguments(name):
    detector = make(name)
    before = repr(detector)
    assert detector.fit(pictures()) is detector
    assert repr(detector) == before


@each
def test_a_detector_stands_for_itself_only(name):
    one, other = make(name), make(name)
    one.fit(pictures())
    with pytest.raises(NotFittedError):
        other.anomaly_score(pictures())


# Fitting and scoring


@each
def test_unfitted_detector_refuses(name, tmp_path):
    detector = make(name)
    calls = [
        detector.anomaly_score,
        getattr(detector, "anomaly_map", detector.anomaly_score),
    ]
    for call in calls:
        with pytest.raises(NotFittedError, match=r"expected a fitted .* got"):
            call(pictures())
    with pytest.raises(NotFittedError):
        detector.save(tmp_path / "detector.safetensors")
    assert list(tmp_path.iterdir()) == []


@each
def test_scores_are_float32_on_the_cpu_and_finite(name):
    for result in results(make(name).fit(pictures()), pictures(5, seed=1)):
        assert result.dtype == torch.float32
        assert result.device.type == "cpu"
        assert not result.requires_grad
        assert len(result) == 5
        assert torch.isfinite(result).all()


@each
def test_fitting_twice_is_fitting_once(name):
    once, twice = (
        make(name).fit(pictures()),
        make(name).fit(pictures(20, seed=7)).fit(pictures()),
    )
    assert_same(results(once, pictures(5, seed=1)), results(twice, pictures(5, seed=1)))
    assert vars(once).keys() == vars(twice).keys()


def test_a_fitted_detector_can_be_fitted_to_images_of_another_shape():
    detector = Gaussian().fit(pictures()).fit(pictures(channels=3, height=5))
    assert detector.anomaly_score(pictures(4, channels=3, height=5)).shape == (4,)


@pytest.mark.parametrize("name", ["network", "random"])
def test_same_seed_same_result_another_seed_another(name):
    kind = type(DETECTORS[name])
    first, again, other = (
        kind(seed=seed).fit(pictures()).anomaly_score(pictures(5, seed=1))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each
def test_the_result_does_not_depend_on_the_callers_random_state(name):
    torch.manual_seed(1)
    before = results(make(name).fit(pictures()), pictures(5, seed=1))
    torch.manual_seed(2)
    assert_same(before, results(make(name).fit(pictures()), pictures(5, seed=1)))


@pytest.mark.parametrize(
    "form", [lambda x: x, TensorDataset, lambda x: DataLoader(x, 4, shuffle=True)]
)
@each
def test_the_callers_random_state_stays_untouched(name, form):
    torch.manual_seed(0)
    np.random.seed(0)
    ours, theirs = torch.random.get_rng_state(), np.random.get_state()[1]
    results(make(name).fit(form(pictures())), form(pictures(5, seed=1)))
    assert torch.equal(ours, torch.random.get_rng_state())
    np.testing.assert_array_equal(theirs, np.random.get_state()[1])


@each
def test_the_images_stay_untouched(name):
    train_images, test_images = pictures(), pictures(5, seed=1)
    results(make(name).fit(train_images), test_images)
    assert torch.equal(train_images, pictures())
    assert torch.equal(test_images, pictures(5, seed=1))


class AsksForBits(Detector):
    """A detector whose scores say whether convolutions may be rounded."""

    def _fit(self, images):
        list(self._stream(images))
        self.rounded_ = torch.tensor(cudnn.allow_tf32)

    def _score(self, batch):
        return torch.full((len(batch),), float(self.rounded_ or cudnn.allow_tf32))


def test_a_gpu_computes_convolutions_in_full_and_then_as_the_caller_wishes():
    scores = AsksForBits().fit(pictures(4)).anomaly_score(pictures(4))
    assert scores.tolist() == [0] * 4
    assert cudnn.allow_tf32


@each
def test_gradients_may_be_off_or_wanted(name):
    with torch.inference_mode(False), torch.enable_grad():
        images = pictures().requires_grad_()
        assert not results(make(name).fit(images), images)[0].requires_grad


@each
def test_other_shapes_are_refused_and_the_detector_stays_usable(name):
    detector = make(name).fit(pictures())
    before = results(detector, pictures(5, seed=1))
    bad = [
        pictures(channels=3),
        pictures()[0],
        pictures() + 1,
        pictures().flatten(1)[:, :5],
    ]
    bad += [] if detector.any_size else [pictures(height=9), pictures(width=7)]
    for images in bad:
        with pytest.raises(ValueError, match=r"images: expected .* got"):
            detector.anomaly_score(images)
    assert_same(before, results(detector, pictures(5, seed=1)))


@pytest.mark.parametrize("name", ["patch-gaussian", "patch-knn", "network"])
def test_other_sizes_are_scored_where_the_method_can(name):
    detector = make(name).fit(pictures())
    assert detector.anomaly_map(pictures(2, height=11, width=5)).shape == (2, 11, 5)


def test_training_images_of_different_shapes_are_refused():
    with pytest.raises(
        ValueError, match=r"images: expected shape \(N, 1, 8, 6\), got \(2, 1, 8, 7\)"
    ):
        Gaussian().fit([pictures(2), pictures(2, width=7)])


class BreaksOff(Dataset):
    """As if the reader lost patience after the first batch."""

    def __len__(self):
        return 200

    def __getitem__(self, i):
        if i > 100:
            raise KeyboardInterrupt
        return pictures(1)[0]


@each
def test_a_failed_fit_leaves_the_fitted_detector_as_it_was(name):
    detector = make(name).fit(pictures())
    before = results(detector, pictures(5, seed=1))
    bad = pictures(30, seed=9)
    bad[-1, 0, 0, 0] = torch.nan

    for images, error in [
        (bad, ValueError),
        (bad.split(10), ValueError),
        (BreaksOff(), KeyboardInterrupt),
    ]:
        with pytest.raises(error):
            detector.fit(images)
        assert_same(before, results(detector, pictures(5, seed=1)))


@each
def test_a_failed_first_fit_leaves_the_detector_unfitted(name):
    detector = make(name)
    with pytest.raises(ValueError, match="images"):
        detector.fit([pictures(9), pictures() * 2])
    with pytest.raises(NotFittedError):
        detector.anomaly_score(pictures())


class Watched(Detector):
    """A detector that only trains, and remembers what it was shown."""

    epochs, lr, weight_decay = 2, 0.25, 0.125

    def _fit(self, images):
        self._seen, network = [], nn.Linear(1, 1)

        def loss(batch):
            self._seen.append(batch.flatten(1)[:, 0].tolist())
            return network(torch.ones(1)).sum()

        self.history_ = self._optimise(network, loss, images)

    def _score(self, batch):
        return batch.flatten(1).sum(1)


def test_a_training_has_the_numbers_and_the_seed_of_its_detector():
    steps = []
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: steps.append(optimizer.param_groups[0])
    )
    try:
        one, same, other = (
            Watched(seed=seed, batch_size=6).fit(pictures()) for seed in (1, 1, 2)
        )
    finally:
        hook.remove()
    assert [len(batch) for batch in one._seen] == [6, 6, 4] * 2
    assert one._seen == same._seen != other._seen
    assert len(one.history_) == 2
    assert {(group["lr"], group["weight_decay"]) for group in steps} == {(0.25, 0.125)}


def test_the_score_of_a_localizer_comes_from_its_map():
    images = pictures(5, seed=1)
    detector = TinyAutoencoder().fit(pictures())
    maps = detector.anomaly_map(images)
    torch.testing.assert_close(detector.anomaly_score(images), maps.amax((1, 2)))
    detector.image_score = "mean"
    torch.testing.assert_close(detector.anomaly_score(images), maps.mean((1, 2)))


def test_anomalous_images_of_an_image_set_are_images_like_others():
    images = ImageSet(pictures(), labels=[0, 1] * 8)
    assert torch.equal(KNN().fit(images).vectors_, pictures().flatten(1))


# Saving and loading


@each
def test_a_loaded_detector_gives_identical_results(name, tmp_path):
    path = tmp_path / "detector.safetensors"
    detector = make(name).fit(pictures())
    detector.save(path)
    loaded = adlab.load_detector(path)
    assert type(loaded) is type(detector)
    assert repr(loaded) == repr(detector)
    assert vars(loaded).keys() == vars(detector).keys()
    assert_same(
        results(detector, pictures(5, seed=1)), results(loaded, pictures(5, seed=1))
    )
    assert list(tmp_path.iterdir()) == [path]


class Transposed(Detector):
    """A detector that keeps matrices as they come out of a decomposition, by columns."""

    def _fit(self, images):
        vectors = torch.cat(list(self._stream(images))).flatten(1)
        _, directions = torch.linalg.eigh(vectors.T.cov())
        self.axes_ = directions.mT.contiguous().mT[:, -4:]

    def _score(self, batch):
        return (batch.flatten(1) @ self.axes_).square().sum(1)


@pytest.mark.parametrize("name", [*DETECTORS, "transposed"])
def test_what_was_fitted_lies_in_memory_as_what_is_loaded(name, tmp_path):
    """Sums go the same way round then, on every processor, and are the same to the
    last bit.
    """
    detector = make(name) if name in DETECTORS else Transposed()
    detector.fit(pictures()).save(tmp_path / "detector.safetensors")
    loaded = adlab.load_detector(tmp_path / "detector.safetensors")
    for name, value in vars(detector).items():
        if isinstance(value, torch.Tensor):
            assert value.stride() == vars(loaded)[name].stride()


@each
def test_saving_twice_writes_the_same_file_and_changes_nothing(name, tmp_path):
    detector = make(name).fit(pictures())
    before = results(detector, pictures(5, seed=1))
    detector.save(tmp_path / "one")
    detector.save(str(tmp_path / "two"))
    adlab.load_detector(str(tmp_path / "two")).save(tmp_path / "three")
    contents = {(tmp_path / name).read_bytes() for name in ("one", "two", "three")}
    assert len(contents) == 1
    assert_same(before, results(detector, pictures(5, seed=1)))


@each
def test_a_loaded_detector_can_be_fitted_anew(name, tmp_path):
    make(name).fit(pictures(20, seed=3)).save(tmp_path / "file")
    loaded, fresh = (
        adlab.load_detector(tmp_path / "file").fit(pictures()),
        make(name).fit(pictures()),
    )
    assert_same(
        results(loaded, pictures(5, seed=1)), results(fresh, pictures(5, seed=1))
    )


@each
def test_the_file_is_safetensors_without_pickle(name, tmp_path):
    make(name).fit(pictures()).save(tmp_path / "file")
    assert load_file(tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    assert content[8:9] == b"{"  # the header, JSON, behind its length
    assert content[:2] not in (b"PK", b"\x80\x04")


def test_a_loaded_network_is_in_eval_mode(tmp_path):
    TinyAutoencoder().fit(pictures()).save(tmp_path / "file")
    assert not any(
        module.training
        for module in adlab.load_detector(tmp_path / "file").network_.modules()
    )


def test_a_network_that_is_not_learned_is_made_anew_and_not_written(tmp_path):
    Fixed().fit(pictures()).save(tmp_path / "detector")
    assert list(load_file(tmp_path / "detector")) == ["centre_"]
    assert not adlab.load_detector(tmp_path / "detector")._network.training


def test_numbers_of_numpy_and_devices_of_torch_can_be_saved(tmp_path):
    KNN(n_neighbors=np.int64(2), device=torch.device("cpu")).fit(pictures()).save(
        tmp_path / "file"
    )
    assert (
        repr(adlab.load_detector(tmp_path / "file"))
        == "KNN(n_neighbors=2, device='cpu')"
    )


def test_a_detector_of_another_device_is_loaded_where_there_is_none(tmp_path):
    path = altered(
        tmp_path / "file",
        params={"device": "cuda:99"},
        values={"input_shape_": [1, 8, 6]},
    )
    assert repr(adlab.load_detector(path)) == "Gaussian()"
    assert torch.isfinite(adlab.load_detector(path).anomaly_score(pictures())).all()


def test_an_overwritten_file_holds_the_new_detector(tmp_path):
    KNN().fit(pictures()).save(tmp_path / "file")
    Gaussian().fit(pictures()).save(tmp_path / "file")
    assert isinstance(adlab.load_detector(tmp_path / "file"), Gaussian)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_file_may_be_read_by_whoever_may_read_other_files(tmp_path):
    (tmp_path / "other").touch()
    KNN().fit(pictures()).save(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_saving_into_a_folder_that_is_missing_leaves_nothing(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"path: expected a file in an existing folder, got .*missing",
    ):
        KNN().fit(pictures()).save(tmp_path / "missing" / "file")
    assert list(tmp_path.iterdir()) == []


def test_saving_over_a_folder_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        IsADirectoryError, match="path: expected a file, got the folder"
    ):
        KNN().fit(pictures()).save(tmp_path / "folder")
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


@pytest.mark.parametrize(
    "broken", [(Path, "write_bytes"), (Path, "replace")], ids=["write", "replace"]
)
def test_a_save_that_fails_leaves_the_old_file_and_no_other(
    broken, tmp_path, monkeypatch
):
    path = tmp_path / "file"
    KNN().fit(pictures()).save(path)
    old = path.read_bytes()

    def full(self, *arguments):
        self.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(*broken, full)
    with pytest.raises(OSError, match="No space"):
        Gaussian().fit(pictures()).save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_arguments_that_no_file_can_hold_are_named(tmp_path):
    detector = Nested(KNN()).fit(pictures())
    detector.detector = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"detector: expected .* got Linear"):
        detector.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


# Files that are no detector


def written(path, content):
    path.write_bytes(content)
    return path


def forge(path, config, tensors):
    """A file whose digest is right, whatever it holds."""
    digest = _digest(config, tensors)
    header = {"format": 1, "sha256": digest, "detector": config}
    save_file(tensors, path, {"adlab": json.dumps(header)})
    return path


def altered(path, **changes):
    """A saved detector whose configuration was changed by hand."""
    Gaussian().fit(pictures()).save(path)
    config = {
        "class": "adlab.vectors.gaussian.Gaussian",
        "params": {},
        "values": {},
        "detectors": {},
    } | changes
    return forge(path, json.dumps(config), load_file(path))


def truncated(path):
    Gaussian().fit(pictures()).save(path)
    return written(path, path.read_bytes()[:-40])


FOREIGN = {
    "text": lambda path: written(
        path, b"I am not a detector, but long enough to look like one."
    ),
    "empty": lambda path: written(path, b""),
    "short": lambda path: written(path, b"\x01"),
    "truncated": truncated,
    "other-safetensors": lambda path: (
        save_file({"mean_": torch.zeros(3)}, path) or path
    ),
    "other-metadata": lambda path: forge(path, "{", {"a": torch.zeros(3)}),
    "number-for-metadata": lambda path: forge(path, "3", {"a": torch.zeros(3)}),
    "pickle": lambda path: torch.save({"mean_": torch.zeros(3)}, path) or path,
    "unknown-argument": lambda path: altered(path, params={"colour": "red"}),
    "bad-argument": lambda path: altered(path, params={"reg_covar": -1}),
    "wrong-network": lambda path: altered(
        path,
        **{
            "class": f"{__name__}.TinyAutoencoder",
            "values": {"input_shape_": [1, 8, 6]},
        },
    ),
    "unknown-class": lambda path: altered(path, **{"class": "adlab.vectors.Nonsense"}),
    "unknown-room": lambda path: altered(path, **{"class": "adlab.nonsense.Gaussian"}),
    "no-class": lambda path: altered(path, **{"class": None}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused(name, tmp_path):
    path = FOREIGN[name](tmp_path / "file")
    with pytest.raises(ValueError, match=r"expected .* got"):
        adlab.load_detector(path)


def flipped(path, place):
    """One bit of the file turned."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << place % 8
    return written(path, bytes(content))


def test_a_file_with_any_bit_turned_is_refused(tmp_path):
    PCAResidual(2).fit(pictures()).save(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    for place in range(0, len(whole), 7):
        written(tmp_path / "file", whole)
        with pytest.raises(ValueError, match="path: expected"):
            adlab.load_detector(flipped(tmp_path / "file", place))


@pytest.mark.parametrize(
    "change",
    {
        "half": lambda x: x.half(),
        "integer": lambda x: x.int(),
        "another shape": lambda x: x[None],
        "zero": lambda x: 0 * x,
        "nan": lambda x: x / 0,
    }.items(),
    ids=lambda item: item[0],
)
def test_a_file_with_other_tensors_is_refused(change, tmp_path):
    path = tmp_path / "file"
    PixelGaussian().fit(pictures()).save(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    tensors["gaussian_.mean_"] = change[1](tensors["gaussian_.mean_"])
    save_file(tensors, path, header)
    with pytest.raises(ValueError, match="damaged or something else"):
        adlab.load_detector(path)


def test_a_file_of_a_later_format_is_named(tmp_path):
    header = {"adlab": json.dumps({"format": 2})}
    save_file({"a": torch.zeros(1)}, tmp_path / "file", header)
    with pytest.raises(ValueError, match=r"format 1, got .* of format 2, of another"):
        adlab.load_detector(tmp_path / "file")


def test_what_is_not_finite_is_not_saved(tmp_path):
    detector = PixelGaussian().fit(pictures())
    detector.gaussian_.mean_ /= 0
    with pytest.raises(
        FloatingPointError, match=r"got gaussian_\.mean_ with NaN or infinite"
    ):
        detector.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["anomaly_score", "anomaly_map", "score_and_map"])
def test_scores_that_are_no_numbers_are_an_error_with_the_arguments(call):
    detector = PixelGaussian(reg_covar=1e-3).fit(pictures())
    detector.gaussian_.mean_ /= 0
    words = r"finite numbers, got .* 3 of 3 images by PixelGaussian\(reg_covar=0.001\)"
    with pytest.raises(FloatingPointError, match=words):
        getattr(detector, call)(pictures(3))


# Files of images


def written_pictures(folder, n=6, height=10, width=8, seed=0):
    """Grey PNG files, and their values."""
    folder.mkdir()
    images = (pictures(n, 1, height, width, seed) * 255).byte()
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    return images / 255


@pytest.mark.parametrize("form", [str, Path, lambda f: sorted(f.iterdir())])
def test_files_are_scored_as_their_images(form, tmp_path):
    images = written_pictures(tmp_path / "new", seed=1)
    detector = PixelGaussian().fit(written_pictures(tmp_path / "good"))
    twin = PixelGaussian().fit(tmp_path / "good")
    found = twin.anomaly_score(form(tmp_path / "new"))
    torch.testing.assert_close(found, detector.anomaly_score(images))
    alone = twin.anomaly_map(tmp_path / "new" / "3.png")
    torch.testing.assert_close(alone, detector.anomaly_map(images[3:4]))


@pytest.mark.parametrize(
    "part", [lambda d: d, lambda d: Subset(d, range(5)), lambda d: DataLoader(d, 2)]
)
def test_files_are_read_as_those_of_the_training_also_after_saving(part, tmp_path):
    written_pictures(tmp_path / "good")
    written_pictures(tmp_path / "new", height=32, width=24, seed=1)
    data = ImageFolder(tmp_path / "good", size=(9, 8), crop=6)
    PixelGaussian().fit(part(data)).save(tmp_path / "model")
    loaded = adlab.load_detector(tmp_path / "model")
    alike = ImageFolder(tmp_path / "new", size=(9, 8), crop=6)
    expected = loaded.anomaly_map(torch.stack(list(alike)))
    assert torch.equal(loaded.anomaly_map(tmp_path / "new"), expected)


def test_an_image_set_says_how_its_files_were_read(tmp_path):
    images = written_pictures(tmp_path / "good")
    reading = Reading((5, 4), None, 1)
    small = ImageSet(
        torch.stack([reading.read(f) for f in ImageFolder(tmp_path / "good").files]),
        reading=reading,
    )
    detector = PixelGaussian().fit(small)
    assert len(detector.anomaly_score(tmp_path / "good")) == len(images)


def test_files_of_another_size_are_refused_where_nothing_says_how_to_read_them(
    tmp_path,
):
    written_pictures(tmp_path / "new")
    detector = PixelGaussian().fit(pictures())
    with pytest.raises(ValueError, match=r"expected shape \(N, 1, 8, 6\)"):
        detector.anomaly_score(tmp_path / "new")


@pytest.mark.parametrize("call", ["fit", "anomaly_score", "anomaly_map"])
def test_files_that_are_not_there_are_named(call, tmp_path):
    detector = PixelGaussian().fit(pictures())
    with pytest.raises(FileNotFoundError, match=r"expected an image, got .*missing"):
        getattr(detector, call)(tmp_path / "missing.png")
    assert torch.isfinite(detector.anomaly_score(pictures(2))).all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"path: expected .* got .*missing\.safetensors"
    ):
        adlab.load_detector(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("module", ["foreign", "adlab_foreign", "os", "antigravity"])
def test_loading_never_imports_a_module_from_outside(module, tmp_path, monkeypatch):
    (tmp_path / f"{module}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    with pytest.raises(
        ValueError, match=f"known class, got {module}.Evil; import its module first"
    ):
        adlab.load_detector(altered(tmp_path / "file", **{"class": f"{module}.Evil"}))
    assert set(sys.modules) == known


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "subprocess.Popen", "torch.nn.Linear"]
)
def test_loading_never_calls_what_is_no_detector(name, tmp_path):
    with pytest.raises(ValueError, match="known class"):
        adlab.load_detector(
            altered(tmp_path / "file", **{"class": name, "params": {"command": "true"}})
        )


def test_a_class_of_ones_own_does_not_take_the_place_of_one_of_adlab(tmp_path):
    Gaussian().fit(pictures()).save(tmp_path / "file")

    class Impostor(Detector):
        pass

    mine = type("Gaussian", (Impostor,), {})
    assert type(adlab.load_detector(tmp_path / "file")) is Gaussian is not mine


def test_a_fresh_process_loads_the_file_by_itself(tmp_path):
    detector = Patchwise(Gaussian("diag"), 3, 2).fit(pictures())
    detector.save(tmp_path / "file")
    script = (
        "import sys, torch, adlab; "
        "images = torch.rand(5, 1, 8, 6, generator=torch.Generator().manual_seed(1)); "
        "torch.save(adlab.load_detector(sys.argv[1]).anomaly_map(images), sys.argv[2])"
    )
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "file", tmp_path / "maps"], check=True
    )
    torch.testing.assert_close(
        torch.load(tmp_path / "maps"), detector.anomaly_map(pictures(5, seed=1))
    )


def test_maps_of_different_sizes_are_no_tensor():
    sizes = [pictures(2), pictures(2, width=9)]
    localizer = Patchwise(Gaussian(), 4).fit(pictures())
    assert localizer.anomaly_score(sizes).shape == (4,)
    with pytest.raises(ValueError, match="images: expected all of one size"):
        localizer.anomaly_map(sizes)


# Bad input


FILE, PATCHES = Path("file"), Patchwise(Gaussian())


def fitted():
    return Gaussian(reg_covar=0.1).fit(IMAGES)


test_bad_input = refuses(
    (lambda: Gaussian().anomaly_score(IMAGES), NotFittedError, "detector…fit(images)"),
    (lambda: PATCHES.anomaly_map(IMAGES), NotFittedError, "detector…Patchwise("),
    (lambda: KNN().save("file"), NotFittedError, "detector…KNN()"),
    (lambda: adlab.load_detector("no"), FileNotFoundError, "path…no"),
    (lambda: adlab.load_detector("."), FileNotFoundError, "path"),
    (lambda: adlab.load_detector(written(FILE, b"")), ValueError, "path…damaged"),
    (lambda: adlab.load_detector(written(FILE, b"text " * 9)), ValueError, "path"),
    (lambda: fitted().save("no/file"), FileNotFoundError, "path…no"),
    (lambda: fitted().save("."), IsADirectoryError, "path"),
)
