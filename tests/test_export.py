"""Detectors on another device, as a network, and as an ONNX file for onnxruntime."""

import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

import adlab
from adlab import _onnx
from adlab.contract import _pictures
from adlab.detector import Detector, Localizer
from adlab.student_teacher import MultiScale, StudentTeacher
from adlab.tiling import Tiled
from adlab.vectors import (
    KNN,
    Gaussian,
    GaussianMixture,
    KernelSVDD,
    KMeans,
    Patchwise,
    PCAReduced,
    PCAResidual,
    PixelGaussian,
)
from adlab.zero_shot import ZeroShot

SIZE = 44  # the smallest that every loss can measure
SMALL = {"widths": (4, 8), "patch_size": SIZE, "epochs": 1}
QUICK = {"n_students": 2, "width": 8, "epochs": 1, "teacher_epochs": 1}
STUDENTS = QUICK | {"receptive_field": 9}


def each(make, name, choices, **options):
    return {
        f"{name}-{choice}": lambda c=choice: make(c, **options) for choice in choices
    }


def patches(detector, **options):
    return lambda: Patchwise(detector, **options)


LOCALIZERS = {
    "padim-random": lambda: adlab.PaDiM(n_features=20),
    "padim-pca": lambda: adlab.PaDiM(n_features=20, reduction="pca"),
    "spade": lambda: adlab.SPADE(n_neighbors=3),
    "spade-max": lambda: adlab.SPADE(n_neighbors=3, image_score="max"),
    "patchcore": adlab.PatchCore,
    "patchcore-all": lambda: adlab.PatchCore(coreset=1, image_score="mean"),
    **each(
        StudentTeacher, "students", ("backbone", "distilled", "triplet"), **STUDENTS
    ),
    "students-smooth": lambda: StudentTeacher(sigma=2, **STUDENTS),
    "scales": lambda: MultiScale(StudentTeacher(**QUICK), (9, 17)),
    **each(
        adlab.Autoencoder, "autoencoder", ("l2", "ssim", "ms-ssim", "cw-ssim"), **SMALL
    ),
    **each(
        adlab.VariationalAutoencoder,
        "vae",
        ("reconstruction", "reconstruction-probability", "elbo"),
        **SMALL,
    ),
    **{
        f"inpainting-{score}": lambda s=score: adlab.Inpainting(
            (2, 8), score=s, widths=(4, 8), epochs=1
        )
        for score in ("loss", "gms")
    },
    **{
        f"draem-{networks}": lambda n=networks: adlab.DRAEM(n, widths=(4, 8), epochs=1)
        for networks in ("both", "discriminative", "reconstructive")
    },
    "pyramid": lambda: adlab.PyramidalAutoencoder(width=4, epochs=1),
    **{
        f"piade-{n}": lambda n=n: adlab.PIADE(n_vectors=n, width=4, epochs=1)
        for n in (1, 2)
    },
    **each(
        adlab.Segmentation,
        "segmentation",
        ("unet", "fcn", "unet++", "segnet"),
        widths=(4, 8),
        epochs=1,
    ),
    **each(
        adlab.VTADL,
        "vt-adl",
        ("mixture", "self-conditioned"),
        **{"patch_size": 4, "dim": 8, "n_components": 3, "epochs": 1},
    ),
    **{
        f"zero-shot-{memory}": lambda m=memory: ZeroShot(memory=m)
        for memory in (False, True)
    },
    "pixels": PixelGaussian,
    "tiled": lambda: Tiled(PixelGaussian(), 32, 8),
    "pca": lambda: PCAResidual(4),
    "patch-gaussian": patches(Gaussian()),
    "patch-diagonal": patches(Gaussian("diag"), image_score="mean"),
    "patch-ledoit-wolf": patches(Gaussian("ledoit-wolf"), stride=5),
    "patch-statistics": patches(Gaussian(), features="statistics"),
    "patch-mixture": patches(GaussianMixture(2)),
    "patch-mixture-tied": patches(GaussianMixture(2, "tied")),
    "patch-mixture-diagonal": patches(GaussianMixture(2, "diag")),
    "patch-knn": patches(KNN(3)),
    "patch-k-means": patches(KMeans(4)),
    "patch-reduced": patches(PCAReduced(Gaussian(), 5)),
    "patch-pca": patches(PCAResidual(4)),
    "patch-svdd": patches(KernelSVDD()),
    "patch-dagmm": patches(adlab.DAGMM(2, epochs=2)),
}
every = pytest.mark.parametrize("name", LOCALIZERS)


def images(n=3, seed=1, shape=(1, SIZE, SIZE + 4)):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(name):
    """Never changed by a test."""
    return LOCALIZERS[name]().fit(_pictures(16, SIZE + 4)[:, :, :SIZE])


def tensors(value):
    """All that a detector holds, whatever it is in; not in its arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.state_dict().values()
    elif isinstance(value, Detector):
        arguments = value.get_params(deep=False)
        yield from tensors([v for k, v in vars(value).items() if k not in arguments])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def test_every_localizer_of_the_package_is_here():
    def subclasses(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from subclasses(sub)

    here = {type(make()) for make in LOCALIZERS.values()}
    public = {
        cls
        for cls in subclasses(Localizer)
        if cls.__module__.startswith("adlab.") and not cls.__name__.startswith("_")
    }
    assert public == here


# On another device


OTHERS = {
    "features": lambda: adlab.FeatureDetector(KNN(2)),
    "knn": lambda: KNN(2),
    "svdd": lambda: adlab.DeepSVDD(pretrain_epochs=1, epochs=1),
    "sad": lambda: adlab.DeepSAD(pretrain_epochs=1, epochs=1),
    "dagmm": lambda: adlab.DAGMM(epochs=1),
    "geotrans": lambda: adlab.GeoTrans(8, Gaussian(), widths=(2, 2, 2), epochs=1),
}


@pytest.mark.parametrize("name", [*LOCALIZERS, *OTHERS])
def test_all_that_was_learned_moves(name, monkeypatch):
    """To a device that stands for another one: it has no numbers, but every machine has
    it.
    """
    make = LOCALIZERS.get(name) or OTHERS[name]
    detector = make().fit(_pictures(12, SIZE))
    monkeypatch.setattr("adlab.detector.resolve_device", torch.device)
    assert detector.to("meta") is detector
    assert {t.device.type for t in tensors(detector)} == {"meta"}
    assert detector.device == "meta"


@every
def test_on_its_own_device_nothing_changes(name, tmp_path):
    detector = fitted(name)
    before = detector.anomaly_map(images())
    detector.save(tmp_path / "detector")
    moved = adlab.load_detector(tmp_path / "detector").to("cpu")
    assert moved.device == "cpu"
    assert torch.equal(moved.anomaly_map(images()), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every
def test_on_a_gpu_it_gives_the_same(name, tmp_path):
    fitted(name).save(tmp_path / "detector")
    moved = adlab.load_detector(tmp_path / "detector").to("cuda")
    expected = fitted(name).anomaly_map(images())
    for maps in (moved.anomaly_map(images()), moved.module()(images().cuda()).cpu()):
        assert float((maps - expected).abs().max()) < 1e-3 * float(expected.max())


def test_detectors_inside_move_and_arguments_stay():
    given = Gaussian().fit(_pictures(8, 4))
    detector = Patchwise(given, 4).fit(_pictures())
    assert detector.to("cpu").detector_.device == "cpu"
    assert given.device == "auto"


@pytest.mark.parametrize("device", ["meta", "cuda:99", "abacus", 3.5])
def test_devices_without_numbers_or_not_there_are_refused(device):
    detector = PixelGaussian().fit(_pictures(8))
    with pytest.raises(ValueError, match=r"device: expected .* got"):
        detector.to(device)
    assert detector.device == "auto"
    assert torch.isfinite(detector.anomaly_map(_pictures(2))).all()


def test_before_fit_only_the_argument_changes():
    assert repr(Gaussian().to("cpu")) == "Gaussian(device='cpu')"


# As a network


@every
def test_module_gives_the_maps_of_the_detector(name):
    maps = fitted(name).anomaly_map(images())
    got = fitted(name).module()(images())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, maps, rtol=1e-5, atol=1e-6 * float(maps.max()))


@every
def test_module_holds_what_was_learned(name):
    module = fitted(name).module()
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    held = sum(t.numel() for t in module.state_dict().values())
    assert held >= sum(t.numel() for t in tensors(fitted(name)))


@pytest.mark.parametrize("name", ["padim-random", "vae-elbo", "patch-gaussian"])
def test_module_computes_with_its_own_state(name):
    """That of a module of other images makes it that module; the detector is not
    touched.
    """
    expected = fitted(name).anomaly_map(images())
    other = LOCALIZERS[name]().fit(images(16, seed=7))
    module = fitted(name).module()
    module.load_state_dict(other.module().state_dict())
    torch.testing.assert_close(module(images()), other.anomaly_map(images()))
    assert torch.equal(fitted(name).anomaly_map(images()), expected)


def test_module_does_not_depend_on_the_callers_state():
    module, given = fitted("vae-elbo").module(), images()
    expected, random = module(given), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(module(given), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["vae-elbo", "inpainting-gms", "patch-gaussian"])
def test_module_takes_other_sizes_where_the_detector_does(name):
    larger = images(2, shape=(1, SIZE + 8, SIZE))
    maps = fitted(name).anomaly_map(larger)
    torch.testing.assert_close(fitted(name).module()(larger), maps)
    torch.testing.assert_close(fitted(name).module(larger.shape[1:])(larger), maps)


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((1, SIZE, SIZE), ValueError, r"images: expected shape \(N, 1, 44, 48\)"),
        ((3, SIZE, SIZE + 4), ValueError, r"images: expected shape \(N, 1, 44, 48\)"),
        ((SIZE, SIZE + 4), ValueError, "images: expected shape"),
        ("shape", TypeError, "shape: expected a sequence of integers, got str"),
        ((1, 0, SIZE), ValueError, "shape: expected an integer in"),
    ],
)
def test_module_refuses_shapes_that_the_detector_does_not_take(shape, error, words):
    with pytest.raises(error, match=words):
        fitted("pixels").module(shape)


def test_module_refuses_images_of_another_shape():
    with pytest.raises(ValueError, match="images: expected shape"):
        fitted("pixels").module()(images(shape=(1, SIZE, SIZE)))


def test_of_vectors_there_is_no_module():
    detector = PCAResidual(2).fit(np.random.default_rng(0).normal(size=(9, 4)))
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\) for a map"):
        detector.module()


@pytest.mark.parametrize("call", ["module", "export"])
def test_unfitted_there_is_neither(call, tmp_path):
    arguments = [tmp_path / "model.onnx"] if call == "export" else []
    with pytest.raises(NotFittedError, match="expected a fitted one"):
        getattr(PixelGaussian(), call)(*arguments)
    assert list(tmp_path.iterdir()) == []


class Own(Localizer):
    """A detector of a reader's own: tensors in a list and a dict, a network, one that
    was given, and a detector; with random numbers, as far as the class has them.
    """

    def __init__(self, network, *, seed=0, device="auto"):
        super().__init__(seed=seed, device=device)
        self.network = network

    def _fit(self, images):
        x = torch.cat(list(self._stream(images)))
        self.moments_ = [x.mean(0), (x.std(0) + 0.1,)]
        self.more_ = {"weight": torch.tensor(0.5), "power": 2}
        self._blur = nn.AvgPool2d(3, 1, 1)
        self.inner_ = PixelGaussian().fit(x)

    def _map(self, batch):
        mean, (std,) = self.moments_
        maps = ((self.network(batch) - mean) / std).abs() ** self.more_["power"]
        return self.more_["weight"] * self._blur(maps).sum(1) + self.inner_._map(batch)


def own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Conv2d(1, 1, 3, padding=1).eval()
    return Own(network).fit(images(8))


def test_a_detector_of_ones_own_is_a_module_too():
    detector = own()
    module = detector.module()
    assert torch.equal(module(images()), detector.anomaly_map(images()))
    names = {"moments__0", "moments__1_0", "more__0", "network.weight", "network.bias"}
    assert names < set(module.state_dict())
    assert detector.network.weight.requires_grad  # the reader's own stays as it was


# As torch.export traces it

traced = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < _onnx.OLDEST,
    reason="torch.export of an older torch",
)


@traced
@pytest.mark.parametrize(
    "name", ["padim-random", "vae-elbo", "patch-knn", "students-triplet"]
)
def test_torch_export_takes_the_module(name):
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(
        fitted(name).module(), (images(),), dynamic_shapes=batch, strict=False
    )
    five = images(5, seed=4)
    maps = fitted(name).anomaly_map(five)
    got = program.module()(five)
    torch.testing.assert_close(got, maps, rtol=1e-4, atol=1e-5 * float(maps.max()))


@traced
def test_what_is_drawn_for_another_size_is_no_part_of_a_trace():
    larger = images(2, shape=(1, SIZE + 8, SIZE))
    with pytest.raises(RuntimeError, match=r"make it by module\(shape\)"):
        torch.export.export(fitted("vae-elbo").module(), (larger,), strict=False)


# As a file


@pytest.fixture
def runtime():
    """What an export needs; without it the test is skipped."""
    for name in _onnx.NEEDED:
        pytest.importorskip(name)
    try:
        _onnx.check_installed()
    except ImportError as error:
        pytest.skip(str(error))


def check_file(detector, path, batch):
    """The file gives what the detector gives, for one image as for several."""
    maps, scores = detector.anomaly_map(batch), detector.anomaly_score(batch)
    assert list(path.parent.iterdir()) == [path]
    for n in (1, len(batch)):
        got = _onnx.run(path.read_bytes(), batch[:n])
        assert [a.dtype for a in got] == [np.float32, np.float32]
        units = float(maps.max() - maps.min()), float(scores.abs().max())
        for one, own, unit in zip(got, (maps, scores), units, strict=True):
            np.testing.assert_allclose(one, own[:n], rtol=0, atol=1e-4 * unit)


@every
def test_file_gives_maps_and_scores_of_the_detector(name, runtime, tmp_path):
    path = tmp_path / "model.onnx"
    fitted(name).export(path)
    check_file(fitted(name), path, images())


def test_file_of_another_size_and_in_colour(runtime, tmp_path):
    detector = adlab.Inpainting((2, 8), widths=(4, 8), epochs=1)
    detector.fit(images(4, shape=(3, 32, 32)))
    detector.export(tmp_path / "model.onnx", shape=(3, 40, 36))
    check_file(detector, tmp_path / "model.onnx", images(shape=(3, 40, 36)))


def test_file_of_a_detector_of_ones_own(runtime, tmp_path):
    detector = own()
    detector.export(str(tmp_path / "model.onnx"))
    check_file(detector, tmp_path / "model.onnx", images())


def test_file_names_what_goes_in_and_out(runtime, tmp_path):
    from onnxruntime import InferenceSession

    fitted("pixels").export(tmp_path / "model.onnx")
    session = InferenceSession(tmp_path / "model.onnx")
    (given,), (maps, scores) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:]) == ("images", [1, SIZE, SIZE + 4])
    assert (maps.name, maps.shape[1:]) == ("map", [SIZE, SIZE + 4])
    assert scores.name == "score"
    batch = {given.shape[0], maps.shape[0], *scores.shape}
    assert len(batch) == 1 and isinstance(*batch, str)  # a name, as it is free


class ByNumpy(PixelGaussian):
    """It leaves torch, where no trace can follow."""

    def _map(self, batch):
        return torch.from_numpy(super()._map(batch).numpy() + 1)


class Sorts(PixelGaussian):
    """It computes what ONNX has no form for."""

    def _map(self, batch):
        return super()._map(batch) + torch.linalg.svdvals(batch[:, 0]).sum()


class Draws(PixelGaussian):
    """It draws anew for every batch."""

    def _map(self, batch):
        return super()._map(batch) + torch.rand(batch.shape[2:])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (ByNumpy, r"ONNX has a form for, got ByNumpy\(\): "),
        (Sorts, r"ONNX has a form for, got Sorts\(\): .*linalg_svd"),
        (Draws, "expected the map of onnxruntime to be that of Draws"),
    ],
)
def test_what_cannot_be_exported_is_told_and_leaves_the_old_file(
    kind, words, runtime, tmp_path
):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    detector = kind().fit(_pictures(8))
    with pytest.raises(RuntimeError, match=words):
        detector.export(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_more_than_one_file_holds_is_refused(runtime, monkeypatch, tmp_path):
    monkeypatch.setattr(_onnx, "LIMIT", 1000)
    with pytest.raises(RuntimeError, match=r"less than 1e-06 GB.* got 3\.4e-05 GB"):
        fitted("pixels").export(tmp_path / "model.onnx")


# Before the work begins


@pytest.fixture
def no_work(monkeypatch):
    def work(*_):
        raise AssertionError("the work began")

    monkeypatch.setattr(_onnx, "as_module", work)
    monkeypatch.setattr(_onnx, "check_installed", work)


@pytest.mark.parametrize(
    ("path", "error"),
    [("missing/model.onnx", FileNotFoundError), (".", IsADirectoryError)],
)
def test_bad_paths_are_refused_first(path, error, no_work, tmp_path):
    with pytest.raises(error, match="path: expected a file"):
        fitted("pixels").export(tmp_path / path)


def test_missing_packages_are_named_with_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    monkeypatch.setattr(_onnx, "find_spec", lambda name: name == "onnx" or None)
    words = r'got no onnxscript, onnxruntime; pip install "adlab\[onnx\]"'
    with pytest.raises(ImportError, match=words):
        fitted("pixels").export(tmp_path / "model.onnx")


def test_an_old_torch_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    with pytest.raises(ImportError, match=r"torch 2\.9 or newer, got 2\.8\.0"):
        fitted("pixels").export(tmp_path / "model.onnx")


# The page that tells it


def test_page_shows_how_to_run_a_file(runtime, tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "book" / "using.md"
    section = page.read_text(encoding="utf-8").split("### Without torch")[1]
    make, use = re.findall(r"```python\n(.*?)```", section.split("\n#")[0], re.DOTALL)
    names = {}
    exec(make, names)
    part = names["splits"].test.images[0, 0].numpy()
    Image.fromarray((255 * part).astype(np.uint8)).save("part.png")
    exec(use, names)
    assert capsys.readouterr().out.split()[-1] in ("normal", "anomalous")
    assert set(os.listdir()) == {"model.onnx", "part.png"}
