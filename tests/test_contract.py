"""`check_detector` holds every detector to the contract, and names what breaks it."""

import dataclasses
import inspect
import random
from functools import cache, partial

import numpy as np
import pytest
import torch
from bad_input import NAN, assert_refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import adlab
from adlab._methods import methods
from adlab._parameters import _hints
from adlab.capsules import CapsuleAnomaly
from adlab.continual import ContinualAutoencoder
from adlab.contract import CLAUSES
from adlab.dagmm import DAGMM
from adlab.data import ImageSet
from adlab.deep_svdd import DeepSVDD
from adlab.detector import Detector, Localizer
from adlab.draem import DRAEM
from adlab.geotrans import GeoTrans
from adlab.inpainting import Inpainting
from adlab.padim import PaDiM
from adlab.patchcore import PatchCore
from adlab.pyramids import PIADE, PyramidalAutoencoder
from adlab.reconstruction import Autoencoder, VariationalAutoencoder
from adlab.segmentation import Segmentation
from adlab.spade import SPADE
from adlab.student_teacher import MultiScale, StudentTeacher
from adlab.tiling import Tiled
from adlab.transfer import FeatureDetector
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
from adlab.vt_adl import VTADL

# what makes a method fast enough to be fitted a dozen times; any other is run as it is
FAST = {
    "epochs": 1,
    "pretrain_epochs": 1,
    "teacher_epochs": 1,
    "n_students": 2,
    "receptive_field": 9,
    "patch_size": 24,
    "n_directions": 5,
    "transformations": 8,
}
CAPSULES = {"n_filters": 4, "n_primary": 2, "kernel_size": 7, "widths": (8,)}
SMALL = {
    "autoencoder": {"widths": (4, 8), "patch_size": 16},
    "vae": {"widths": (4, 8), "patch_size": 16},
    "pca": {"n_components": 4},
    "patch-gaussian": {"patch_size": 8},
    "patch-gmm": {"patch_size": 8},
    "patch-dagmm": {"patch_size": 8},
    "geotrans": {"widths": (2, 2, 2)},
    "student-teacher": {"width": 8},
    "inpainting": {"widths": (4, 8)},
    "pyramids": {"width": 4},
    "piade": {"width": 4},
    "vt-adl": {"patch_size": 8, "dim": 8, "n_components": 2},
    "segmentation": {"widths": (3, 4)},
}
GENERATOR = torch.Generator().manual_seed(8)
IMAGES = torch.rand(16, 1, 24, 24, generator=GENERATOR) * torch.linspace(0.2, 1, 24)


def small(name):
    make = methods()[name].make
    known = inspect.signature(make).parameters
    return make(**{k: FAST[k] for k in FAST if k in known} | SMALL.get(name, {}))


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))


SCALES = (9, 17)
TEACHER = {"receptive_field": 9, "width": 4, "epochs": 1, "teacher_epochs": 1}
TURNS = {"widths": (2, 2, 2), "epochs": 1}
HOLES = {"widths": (3, 4), "epochs": 1, "patch_size": 24}
PASTED = {"widths": (3, 4), "epochs": 1, "image_score": "mean"}
PYRAMID = {"width": 4, "epochs": 1}
MARKED = {"widths": (3, 4), "epochs": 1, "image_score": "mean"}
PATCHES = {"widths": (4, 6), "epochs": 1, "patch_size": 16}
TOKENS = {"dim": 8, "n_heads": 2, "n_components": 2, "epochs": 1}
RANDOM = {"backbone": "texnet-random", "layers": ["layer1", "layer3"], "seed": 3}
OTHERS = {
    "ledoit-wolf": lambda: Gaussian("ledoit-wolf"),
    "full": lambda: Gaussian(reg_covar=1e-3),
    "diag": lambda: Gaussian("diag"),
    "mixture": lambda: GaussianMixture(2, "diag"),
    "tied-mixture": lambda: GaussianMixture(2, "tied", seed=4),
    "pixels": lambda: PixelGaussian(image_score="mean"),
    "k-means": lambda: KMeans(3),
    "reduced": lambda: PCAReduced(KNN(), 3, "smallest"),
    "whitened": lambda: PCAReduced(KMeans(2), 3, whiten=True),
    "patches": lambda: Patchwise(KNN(3), 4, 4, image_score="mean", seed=3),
    "patch-pca": lambda: Patchwise(PCAResidual(2), 3, 1),
    "statistics": lambda: Patchwise(Gaussian(), 4, features="statistics"),
    "few-features": lambda: FeatureDetector(PCAReduced(Gaussian(), 5, "smallest")),
    "random-features": lambda: FeatureDetector(KMeans(3), "texnet-random", seed=3),
    "padim-pca": lambda: PaDiM(n_features=20, reduction="pca", sigma=2, **RANDOM),
    "padim-random": lambda: PaDiM(n_features=20, image_score="mean", **RANDOM),
    "spade-random": lambda: SPADE(n_neighbors=2, **RANDOM),
    "patchcore-random": lambda: PatchCore(coreset=0.5, image_score="mean", **RANDOM),
    "scales": lambda: MultiScale(StudentTeacher(n_students=1, **TEACHER), SCALES),
    "distilled": lambda: StudentTeacher("distilled", n_students=2, **TEACHER),
    "triplet": lambda: StudentTeacher("triplet", 1, term="error", **TEACHER),
    "ssim": lambda: Autoencoder("ssim", **PATCHES),
    "ms-ssim": lambda: Autoencoder("ms-ssim", image_score="mean", **LARGE_PATCHES),
    "cw-ssim": lambda: Autoencoder("cw-ssim", seed=3, **LARGE_PATCHES),
    "sum": lambda: Autoencoder({"l2": 1, "ssim": 0.5}, **PATCHES),
    "elbo": lambda: VariationalAutoencoder("elbo", image_score="mean", **PATCHES),
    "probability": lambda: VariationalAutoencoder(PROBABILITY, n_samples=3, **PATCHES),
    "softmax": lambda: GeoTrans("non-geometric", "softmax", 16, seed=3, **TURNS),
    "two-steps": lambda: GeoTrans(8, Gaussian(), **TURNS),
    "two-transformations": lambda: GeoTrans(("identity", "up"), KNN(2), **TURNS),
    "gms": lambda: Inpainting((2, 5), score="gms", **HOLES),
    "l2": lambda: Inpainting((4,), 2, 0, 0, smoothing=1, image_score="mean", **HOLES),
    "tiled": lambda: Tiled(PCAResidual(2), 12, 4, image_score="mean"),
    "draem": lambda: DRAEM(**PASTED | {"image_score": "max"}),
    "discriminative": lambda: DRAEM("discriminative", "grass", **PASTED),
    "reconstructive": lambda: DRAEM("reconstructive", mask="rectangle", **PASTED),
    "capsules": lambda: CapsuleAnomaly(epochs=1, **CAPSULES),
    **{
        network: lambda n=network: Segmentation(n, **MARKED)
        for network in ("fcn", "unet++", "segnet")
    },
    "lengths": lambda: CapsuleAnomaly("difference", epochs=1, **CAPSULES),
    "codes": lambda: PyramidalAutoencoder((3,), decoder_input="codes", **PYRAMID),
    "routed": lambda: PIADE(n_primary=1, image_score="max", **PYRAMID),
    "one-vector": lambda: PIADE(n_vectors=1, squeeze=False, seed=3, **PYRAMID),
    "placeless": lambda: VTADL(positions=False, score="reconstruction", **TOKENS),
    "self-conditioned": lambda: VTADL("self-conditioned", "density", **TOKENS),
    "soft": lambda: DeepSVDD("soft-boundary", pretrain_epochs=0, epochs=1),
    "fine-tuned": lambda: ContinualAutoencoder(width=8, epochs=1),
    "consolidated": lambda: ContinualAutoencoder("ewc", width=8, epochs=1),
    "zero-shot": lambda: adlab.zero_shot.ZeroShot(sides=(3,)),
    "few-shot": lambda: adlab.zero_shot.ZeroShot("wood", memory=True),
    "replayed": lambda: ContinualAutoencoder("replay", capacity=4, epochs=1),
}
PROBABILITY = "reconstruction-probability"
LARGE_PATCHES = PATCHES | {"patch_size": 44}  # as these losses need
COLOUR = torch.rand(16, 3, 24, 24, generator=GENERATOR)
LARGE = torch.rand(12, 1, 44, 44, generator=GENERATOR)
VECTORS = IMAGES[:, 0, :, 0]
OF_VECTORS = {
    "ledoit-wolf": lambda: Gaussian("ledoit-wolf"),
    "mixture": lambda: GaussianMixture(2, reg_covar=1e-3),
    "neighbours": lambda: KNN(2),
    "k-means": lambda: KMeans(4),
    "residual": lambda: PCAResidual(3),
    "largest": lambda: PCAReduced(Gaussian(), 3),
    "smallest": lambda: PCAReduced(KNN(2), 2, keep="smallest"),
    "whitened": lambda: PCAReduced(KMeans(2), 3, whiten=True),
    "kernel": lambda: KernelSVDD(0.3),
    "dagmm": lambda: DAGMM(3, epochs=1, width=4, seed=5),
    "consolidated": lambda: ContinualAutoencoder("ewc", n_latent=2, epochs=1),
}
METHODS = [name for name, each in methods().items() if each.task == "detection"]


def images_for(name):
    if name in ("ms-ssim", "cw-ssim"):
        return LARGE
    coloured = name in ("statistics", "distilled", "two-steps", "spade-random")
    return COLOUR if coloured else IMAGES


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name):
    adlab.check_detector(small(name), IMAGES)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_detector_keeps_the_contract(name):
    adlab.check_detector(OTHERS[name](), images_for(name))


@pytest.mark.parametrize("name", OF_VECTORS)
def test_vectors_keep_the_contract(name):
    adlab.check_detector(OF_VECTORS[name](), VECTORS)


def public():
    """The classes of detectors that the package offers."""
    methods()  # imports all rooms

    def every(cls):
        for sub in cls.__subclasses__():
            yield sub
            yield from every(sub)

    classes = {
        cls
        for cls in every(Detector)
        if cls.__module__.startswith("adlab.") and not cls.__name__.startswith("_")
    }
    return sorted(classes, key=lambda cls: cls.__name__)


def test_all_public_detectors_are_checked():
    """Of each class of the package one is above."""
    checked = {type(small(n)) for n, m in methods().items() if m.task == "detection"}
    checked |= {type(make()) for make in OTHERS.values()}
    inside = {Localizer, adlab.LabelledDetector}
    inside |= {adlab.vectors.VectorDetector, adlab.vectors.Gaussian}
    colour_blind = {adlab.OpenSetClassifier}  # as its classifier is; see below
    assert set(public()) - checked <= inside | colour_blind | {adlab.FeatureDetector}


def test_an_open_set_classifier_is_what_its_classifier_is():
    opened = adlab.OpenSetClassifier(classifier(), fpr=0.2)
    with pytest.raises(AssertionError) as caught:
        adlab.check_detector(opened, IMAGES)
    lines = str(caught.value).splitlines()[1:]
    clauses = {line.split(":")[0].strip(" -") for line in lines}
    assert clauses == {"grey and colour"}  # its network takes grey ones only
    assert set(opened.fit(IMAGES).predict(IMAGES).tolist()) <= {-1, 0, 1, 2}


# -- more than the contract asks: forms of images, maps, and the last bit

EVERY = {name: partial(small, name) for name in METHODS} | OTHERS
LOCALIZERS = [name for name, make in EVERY.items() if isinstance(make(), Localizer)]
in_a_fixed_order = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a GPU adds in the order of the day"
)
every = pytest.mark.parametrize("name", EVERY)


@cache
def fitted(name):
    return EVERY[name]().fit(images_for(name))


def results(detector, images):
    maps = [detector.anomaly_map(images)] if isinstance(detector, Localizer) else []
    return [detector.anomaly_score(images), *maps]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        spread = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * max(spread, 1))


@pytest.mark.parametrize("name", LOCALIZERS)
def test_a_map_depends_on_its_image_alone(name):
    detector, images = fitted(name), images_for(name).flip(2)
    maps = detector.anomaly_map(images)
    alone = torch.cat([detector.anomaly_map(image[None]) for image in images[:4]])
    turned = detector.anomaly_map(images.flip(0)).flip(0)
    assert_close([alone, turned], [maps[:4], maps])


SUMMARIES = {"max": torch.amax, "mean": torch.mean}


def summary(name):
    return SUMMARIES.get(EVERY[name]().get_params().get("image_score"))


@pytest.mark.parametrize("name", [name for name in LOCALIZERS if summary(name)])
def test_a_score_is_the_max_or_the_mean_of_its_map(name):
    scores, maps = results(fitted(name), images_for(name))
    torch.testing.assert_close(scores, summary(name)(maps, (1, 2)))


@in_a_fixed_order
@every
def test_a_seed_decides_to_the_last_bit(name):
    torch.manual_seed(99)
    again, images = EVERY[name]().fit(images_for(name)), images_for(name)
    assert_same(results(again, images), results(fitted(name), images))


DRAWN = """
    autoencoder vae ssim ms-ssim cw-ssim sum elbo probability dagmm inpainting gms l2
    student-teacher distilled triplet geotrans softmax two-steps two-transformations
    deep-svdd deep-sad soft pyramids piade codes routed one-vector padim-random padim-pca
    spade-random patchcore-random random-features mixture k-means vt-adl placeless
    self-conditioned
"""


@pytest.mark.parametrize("name", DRAWN.split())
def test_another_seed_gives_another_detector(name):
    other, images = EVERY[name](), images_for(name)
    other.seed += 1
    scores = other.fit(images).anomaly_score(images)
    assert not torch.equal(scores, fitted(name).anomaly_score(images))


def learned(detector):
    return {name for name in vars(detector) if name.endswith("_")}


@in_a_fixed_order
@every
def test_a_loaded_one_is_the_same_to_the_last_bit(name, tmp_path):
    detector, images = fitted(name), images_for(name)
    detector.save(tmp_path / "detector.safetensors")
    loaded = adlab.load_detector(tmp_path / "detector.safetensors")
    assert_same(results(loaded, images), results(detector, images))
    assert learned(loaded) == learned(detector)
    assert getattr(loaded, "history_", None) == getattr(detector, "history_", None)


FORMS = {
    "array": lambda x: x.numpy(),
    "ImageSet": ImageSet,
    "Dataset": TensorDataset,
    "list": list,
    "batches": lambda x: list(x.split(5)),
    "DataLoader": lambda x: DataLoader(TensorDataset(x), 5),
}


# these learn from a loader as it comes, and take no list of batches
SHUFFLED = """
    autoencoder vae ssim ms-ssim cw-ssim sum elbo probability inpainting gms l2
    deep-svdd deep-sad soft draem discriminative reconstructive
    pyramids piade codes routed one-vector
    vt-adl placeless self-conditioned
"""
NO_FORM = {(name, "batches") for name in SHUFFLED.split()}
# a loader draws from the random state, and so other centres to start from
MIXTURES = ("gmm", "mixture", "tied-mixture")
OTHERWISE = {(name, form) for name in MIXTURES for form in ("Dataset", "DataLoader")}
OTHERWISE |= {(name, "DataLoader") for name in SHUFFLED.split()}


@pytest.mark.parametrize(
    ("name", "form"), sorted({(n, form) for n in EVERY for form in FORMS} - NO_FORM)
)
def test_images_may_come_in_any_form(name, form):
    images, test = images_for(name), images_for(name).flip(2)
    expected = results(fitted(name), test)
    assert_close(results(fitted(name), FORMS[form](test)), expected)
    found = results(EVERY[name]().fit(FORMS[form](images)), test)
    if (name, form) in OTHERWISE:
        assert all(bool(torch.isfinite(result).all()) for result in found)
    else:
        assert_close(found, expected)


# -- arguments

COUNT = [
    (0, ValueError, "an integer in […got 0"),
    (1.5, TypeError, "an integer…float 1.5"),
    (True, TypeError, "an integer…bool"),
    ("2", TypeError, "an integer…str '2'"),
]
WHOLE = [(-1, ValueError, "an integer in […-1"), *COUNT[1:]]
COUNTS = [
    (8, TypeError, "int"),
    ((8, 8, 0), ValueError, "an integer in [1…0"),
    ((8, 8, 8.5), TypeError, "an integer…8.5"),
    ("888", TypeError, "str"),
]
AMOUNT = [
    (-1e-6, ValueError, "a number in …-1e-06"),
    (NAN, ValueError, "a number in …nan"),
    ("1e-6", TypeError, "a number…str '1e-6'"),
]
POSITIVE = [(0, ValueError, "a number in (0…0"), *AMOUNT]
FRACTION = [(1, ValueError, "a number in …1)…1"), *AMOUNT]
SHARE = [(0, ValueError, "a number in (0, 1)…0"), *FRACTION]
INNER = [("knn", TypeError, "got str"), (KNN, TypeError, "got type")]
SUMMARY = [("sum", ValueError, "'max', 'mean'…'sum'"), (None, ValueError, "None")]
KINDS = [
    ("n_neighbors n_clusters n_components n_features n_latent n_samples", COUNT),
    ("n_students n_sets n_init max_iter teacher_epochs warm_up capacity", COUNT),
    ("batch_size patch_size stride smoothing width tile", COUNT),
    ("n_filters n_primary primary_dim dim n_iterations kernel_size n_vectors", COUNT),
    ("depth n_heads", COUNT),
    ("epochs pretrain_epochs", WHOLE),
    ("seed", [*WHOLE, (None, TypeError, "an integer…NoneType")]),
    ("widths cell_sizes sizes sides", COUNTS),
    ("reg_covar weight_decay tol eta sigma strength", AMOUNT),
    ("energy_weight penalty_weight ssim_weight gms_weight", AMOUNT),
    ("focusing reconstruction_weight perceptual_weight error_weight", AMOUNT),
    ("lr noise", POSITIVE),
    ("gamma", [*POSITIVE[:-1], ("auto", ValueError, "scale")]),
    ("val_fraction", FRACTION),
    ("clean", FRACTION),
    ("coreset", [(1.1, ValueError, "a number in (0, 1]…1.1"), *POSITIVE]),
    ("least_opacity", [(1.1, ValueError, "a number in [0, 1]…1.1"), *AMOUNT]),
    ("nu fpr", SHARE),
    ("receptive_field", [*COUNT[1:], (16, ValueError, "a power of two + 1…16")]),
    ("device", [("gpu", ValueError, "auto…'gpu'"), ("cuda:99", ValueError, "cuda:99")]),
    ("detector", INNER),
    ("backbone", [("vgg", ValueError, "'vgg'"), (18, TypeError, "int")]),
    ("layers", [("layer1", TypeError, "'layer1'")]),
    ("image_score", SUMMARY),
]
# what no detector takes, by the name of its argument
REFUSED = {name: rows for names, rows in KINDS for name in names.split()}
NEEDED = {"detector": PCAResidual(2), "n_components": 2, "classifier": None}


def arguments():
    """Each argument of each class."""
    return [(cls, field) for cls in public() for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, field.name) for cls, field in arguments() if field.name in REFUSED],
)
def test_bad_arguments_are_refused(cls, name):
    fields = dataclasses.fields(cls)
    needed = [each.name for each in fields if each.default is dataclasses.MISSING]
    others = {each: NEEDED[each] for each in needed if each != name}
    for value, error, words in REFUSED[name]:
        assert_refused(
            lambda value=value: cls(**others, **{name: value}),
            error,
            f"{name}: …{words}",
        )


@pytest.mark.parametrize(
    "make", [Patchwise, FeatureDetector, partial(PCAReduced, n_components=2)]
)
def test_what_takes_no_vectors_is_refused_inside(make):
    words = "detector: …got PixelGaussian"
    assert_refused(lambda: make(detector=PixelGaussian()), TypeError, words)


def test_every_number_is_among_them():
    checked = {
        field.name
        for cls, field in arguments()
        if hasattr(_hints(cls)[field.name], "__metadata__")
    }
    assert checked <= set(REFUSED)


# -- detectors of a reader's own


class Mean(Detector):
    """Keeps the contract: distance to the mean image."""

    def _fit(self, images):
        self.mean_ = torch.cat(list(self._stream(images))).mean(0)

    def _score(self, batch):
        return (batch - self.mean_).flatten(1).norm(dim=1)


class OwnConstructor(Mean):
    def __init__(self, power=2.0, *, seed=0, device="auto"):
        super().__init__(seed=seed, device=device)
        self.power = power


def test_a_detector_of_ones_own_needs_two_methods():
    adlab.check_detector(Mean())
    adlab.check_detector(OwnConstructor(3.0))


class BatchStatistic(Mean):
    def _score(self, batch):
        return (batch - batch.mean(0)).flatten(1).norm(dim=1)


class Renamed(Mean):
    def __init__(self, power=2.0, *, seed=0, device="auto"):
        super().__init__(seed=seed, device=device)
        self.exponent = power


class Doubled(OwnConstructor):
    def __init__(self, power=2.5, *, seed=0, device="auto"):
        super().__init__(2 * power, seed=seed, device=device)


class Unseeded(Mean):
    def _fit(self, images):
        super()._fit(images)
        self.mean_ = self.mean_ + 10 ** (6 * np.random.rand())  # hardly twice alike


class NoisyScore(Mean):
    def _score(self, batch):
        return super()._score(batch) + torch.from_numpy(np.random.rand(len(batch)))


class Remembers(Mean):
    seen = torch.zeros(())

    def _fit(self, images):
        super()._fit(images)
        Remembers.seen = Remembers.seen + self.mean_.sum()
        self.mean_ = self.mean_ + Remembers.seen


class Unsaved(Mean):
    def _fit(self, images):
        super()._fit(images)
        self.mean = self.mean_ + 1

    def _score(self, batch):
        return (batch - getattr(self, "mean", self.mean_)).flatten(1).norm(dim=1)


class Unchecked(Mean):
    def _stream(self, images):
        self.input_shape_ = [1, 24, 24]
        yield torch.as_tensor(images).float()


class Clips(Mean):
    def _fit(self, images):
        images.clamp_(0.3, 0.4)
        super()._fit(images)


class Double(Mean):
    def anomaly_score(self, images):
        return super().anomaly_score(images).double()


class Writes(Mean):
    def _fit(self, images):
        super()._fit(images)
        open("log.txt", "w").close()


class Threads(Mean):
    def _fit(self, images):
        super()._fit(images)
        torch.set_num_threads(torch.get_num_threads() + 1)


class Shuffles(Mean):
    def _fit(self, images):
        super()._fit(images)
        random.random()


class Promises(Mean):
    any_size = True


class GreyOnly(Mean):
    def _fit(self, images):
        super()._fit(images)
        if self.input_shape_[0] != 1:
            raise ValueError("images: expected grey ones")


class Silent(Mean):
    def fit(self, images, y=None):
        super().fit(images)


class Early(Mean):
    mean_ = torch.zeros(())

    def anomaly_score(self, images):
        return self._score(images)


class Odd(Localizer):
    def _fit(self, images):
        self.mean_ = torch.cat(list(self._stream(images))).mean(0)

    def _map(self, batch):
        return (batch - self.mean_).square()  # forgets to sum over the channels


class NotANumber(Mean):
    def _score(self, batch):
        return super()._score(batch) * float("nan")


BROKEN = {
    BatchStatistic: ("a score depends on its image alone", "one by one"),
    Renamed: ("arguments are stored", "self.power = power"),
    Doubled: ("arguments are stored", "store arguments as they are"),
    Unseeded: ("the seed decides", "draw from torch in _fit only"),
    NoisyScore: ("a score depends on its image alone", "differ by up to"),
    Remembers: ("fit starts from scratch", "earlier images"),
    Unsaved: ("a loaded one scores the same", "attributes that end in _"),
    Unchecked: ("bad images are refused and do no harm", "self._stream"),
    Clips: ("fit returns itself", "changed the images"),
    Double: ("scores are finite and one an image", "float64"),
    Writes: ("fit returns itself", "working folder"),
    Threads: ("fit returns itself", "number of threads"),
    Shuffles: ("fit returns itself", "Python's random state"),
    Promises: ("other sizes where promised", "RuntimeError"),
    GreyOnly: ("grey and colour", "ValueError images: expected grey"),
    Silent: ("fit returns itself", "return self"),
    Early: ("unfitted it refuses", "before fit"),
    Odd: ("scores are finite and one an image", "expected maps"),
    NotANumber: ("scores are finite and one an image", "NaN"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_breaks_the_contract_is_named(broken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clause, advice = BROKEN[broken]
    threads = torch.get_num_threads()
    with pytest.raises(AssertionError) as caught:
        adlab.check_detector(broken(), IMAGES.clone())
    torch.set_num_threads(threads)
    lines = str(caught.value).splitlines()
    assert broken.__name__ in lines[0]
    assert any(line.startswith(f"  - {clause}: ") and advice in line for line in lines)


def test_every_clause_is_broken_by_something():
    clauses = {clause.__name__[1:].replace("_", " ") for clause in CLAUSES}
    assert clauses - {clause for clause, _ in BROKEN.values()} <= {
        "another default dtype"  # the base class sees to it
    }


def test_what_is_no_detector_is_refused():
    with pytest.raises(TypeError, match=r"expected an adlab\.Detector, got int"):
        adlab.check_detector(3)


# -- scikit-learn


def test_a_pipeline_and_a_grid_search_of_scikit_learn():
    from sklearn.base import clone
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)) * [1, 1, 1, 1, 1, 50]
    odd = x[:20] + np.array([3, -3, 3, -3, 3, 0])
    pipeline = make_pipeline(StandardScaler(), KNN())
    scores = pipeline.fit(x).score_samples(np.concatenate([x[:20], odd]))
    assert roc_auc_score(np.repeat([1, 0], 20), scores) > 0.9

    def likelihood(estimator, x, y=None):
        return float(estimator.score_samples(x).mean())

    mixture = adlab.vectors.GaussianMixture(reg_covar=1e-3)
    search = GridSearchCV(mixture, {"n_components": [1, 2]}, scoring=likelihood, cv=3)
    search.fit(x)
    assert search.best_estimator_.n_components in (1, 2)
    assert repr(clone(mixture)) == repr(mixture) and clone(mixture) is not mixture


def test_arguments_can_be_read_and_set_by_name():
    detector = adlab.vectors.Patchwise(KNN(), 4, stride=2)
    assert detector.get_params()["detector__seed"] == 0
    assert "detector__seed" not in detector.get_params(deep=False)
    inner = detector.detector
    assert detector.set_params(stride=3, detector__seed=5) is detector
    assert (detector.stride, detector.detector.seed, inner.seed) == (3, 5, 0)
    with pytest.raises(ValueError, match="stride: expected an integer in"):
        detector.set_params(seed=9, stride=99)
    assert detector.seed == 0
    with pytest.raises(ValueError, match="params: expected one of 'detector'"):
        detector.set_params(strides=2)


def test_samples_score_by_scikit_learns_sign():
    detector = adlab.vectors.Gaussian("diag").fit(IMAGES)
    scores = detector.score_samples(IMAGES)
    assert np.array_equal(scores, -detector.anomaly_score(IMAGES).numpy())
