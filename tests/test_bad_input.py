"""Bad input is refused at the call that received it, by a message that says what is
wrong.

Each line of the tables is a case: its name, the call (of a fresh folder), the error,
and what the message must say: first of all the argument. "expected" and "got" are asked
for everywhere but in `FILES`, where the file or folder at fault must be named instead.
"""

import tarfile
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import TensorDataset

import adlab
from adlab import (
    data,
    decision,
    geotrans,
    metrics,
    open_set,
    plots,
    regions,
    training,
)
from adlab.backbones import Backbone
from adlab.data import ImageSet, Splits
from adlab.data.archives import unpack
from adlab.data.gaussian_field import gaussian_field, optimal_auroc
from adlab.data.textures import photograph
from adlab.data.wafers import wafer_patterns
from adlab.deep_svdd import DeepSAD, DeepSVDD
from adlab.inpainting import Inpainting, UNet, cell_masks
from adlab.padim import PaDiM
from adlab.spade import SPADE
from adlab.student_teacher import MultiScale, PatchNetwork, StudentTeacher
from adlab.transfer import FeatureDetector
from adlab.vectors import (
    KNN,
    Gaussian,
    KernelSVDD,
    KMeans,
    Moments,
    Patchwise,
    PCAReduced,
    PCAResidual,
    PixelGaussian,
)

IMAGES = torch.rand(8, 1, 6, 5, generator=torch.Generator().manual_seed(0))
COLOUR = IMAGES.repeat(1, 3, 1, 1)
VECTORS = IMAGES.flatten(1)
MASKS = IMAGES[:, 0] > 0.8
MAPS = IMAGES[:, 0]
SCORES = np.linspace(-2, 5, 8)
LABELS = np.array([0, 0, 0, 0, 1, 1, 0, 1])
Value, Type, Missing = (
    ValueError,
    TypeError,
    FileNotFoundError,
)  # for lines that are read at once
NAN, INF = float("nan"), float("inf")
NORMAL = ImageSet(IMAGES)
MIXED = ImageSet(IMAGES, LABELS)
MASK = "ground_truth/hole/1_mask.png"


def spoiled(values, bad):
    """A copy with one bad value."""
    values = torch.as_tensor(values).clone().double()
    values.view(-1)[3] = bad
    return values


@cache
def fitted():
    return Gaussian(reg_covar=0.1).fit(IMAGES)


def fit(images):
    return Gaussian().fit(images)


def score(images):
    return fitted().anomaly_score(images)


def patches(**options):
    return Patchwise(Gaussian(), **options)


def train(images=IMAGES, loss=None, **options):
    network = nn.Linear(5, 5)
    loss = loss or (lambda batch: network(batch).square().mean())
    return training.train(
        network, loss, images, **{"epochs": 1, "device": "cpu"} | options
    )


def exploding(batch):
    return (batch.mean() * NAN).requires_grad_()


def stream(images, *options):
    return list(training.stream(images, *options))


class Ragged(TensorDataset):
    def __getitem__(self, i):
        return self.tensors[0][i, :, :, : 2 + i % 3]


def openmax(labels=(0, 1, 2) * 3, **options):
    logits = torch.cat([VECTORS[:, :3], VECTORS[:1, 3:6]])
    logits += 5 * torch.eye(3).repeat(3, 1)
    return open_set.OpenMax(**{"tail_size": 2} | options).fit(logits, labels)


def linear(n=3, last=None):
    layers = [nn.Flatten(), nn.Linear(30, n), last or nn.Identity()]
    return nn.Sequential(*layers)


def opened(score="energy", fpr=0.5, **options):
    return open_set.OpenSetClassifier(linear(**options), score, fpr).fit(IMAGES)


def classifier(labels=LABELS, images=IMAGES, **options):
    return open_set.train_classifier(linear(), images, labels, **options)


CASES = [
    ("backbone-name", lambda _: Backbone("vgg"), Value, "backbone", "'vgg'"),
    ("backbone-type", lambda _: Backbone(18), Type, "backbone", "int"),
    ("backbone-no-layers", lambda _: Backbone(nn.ReLU()), Type, "layers", "None"),
    (
        "backbone-a-string",
        lambda _: Backbone(layers="layer1"),
        Type,
        "layers",
        "'layer1'",
    ),
    ("backbone-layers-none", lambda _: Backbone(layers=[]), Value, "layers", "[]"),
    ("backbone-layer", lambda _: Backbone(layers=["fc"]), Value, "layers", "'fc'"),
    ("backbone-seed", lambda _: Backbone(seed=-1), Value, "seed", "-1"),
    # images, wherever they are taken
    (
        "images-nan",
        lambda _: fit(spoiled(IMAGES, NAN)),
        Value,
        "images",
        "1 that are NaN",
    ),
    (
        "images-infinite",
        lambda _: fit(spoiled(IMAGES, INF)),
        Value,
        "images",
        "infinite",
    ),
    ("images-above-one", lambda _: fit(IMAGES * 255), Value, "images", "[0, 1]", "25"),
    (
        "images-below-zero",
        lambda _: fit(IMAGES - 0.5),
        Value,
        "images",
        "[0, 1]",
        "-0.",
    ),
    (
        "images-bytes",
        lambda _: fit((IMAGES * 255).to(torch.uint8)),
        Type,
        "images",
        "uint8",
    ),
    (
        "images-bytes-array",
        lambda _: fit((IMAGES * 255).numpy().astype("uint8")),
        Type,
        "images",
        "uint8",
    ),
    ("images-bool", lambda _: fit(IMAGES > 0.5), Type, "images", "bool"),
    (
        "images-one",
        lambda _: PixelGaussian().fit(IMAGES[0]),
        Value,
        "images",
        "(N, C, H, W)",
        "(1, 6, 5)",
    ),
    (
        "images-no-channel",
        lambda _: PixelGaussian().fit(MAPS),
        Value,
        "images",
        "(8, 6, 5)",
    ),
    (
        "images-rank-5",
        lambda _: PixelGaussian().fit(IMAGES[None]),
        Value,
        "images",
        "(1, 8, 1, 6, 5)",
    ),
    (
        "images-channels-last",
        lambda _: fit(COLOUR.permute(0, 2, 3, 1)),
        Value,
        "images",
        "(8, 6, 5, 3)",
    ),
    (
        "images-two-channels",
        lambda _: fit(COLOUR[:, :2]),
        Value,
        "images",
        "1 or 3 channels",
    ),
    (
        "images-no-image",
        lambda _: fit(IMAGES[:0]),
        Value,
        "images",
        "at least one",
        "(0, 1, 6, 5)",
    ),
    (
        "images-no-pixel",
        lambda _: fit(IMAGES[..., :0]),
        Value,
        "images",
        "at least one",
        "(8, 1, 6, 0)",
    ),
    (
        "images-ragged",
        lambda _: fit([IMAGES[0], IMAGES[0, :, :3]]),
        Value,
        "images",
        "unequal length",
    ),
    (
        "images-ragged-lists",
        lambda _: fit([[0.1, 0.2], [0.3]]),
        Value,
        "images",
        "unequal length",
    ),
    (
        "images-ragged-dataset",
        lambda _: fit(Ragged(IMAGES)),
        Value,
        "images",
        "unequal length",
    ),
    (
        "images-text",
        lambda _: fit("images.png"),
        FileNotFoundError,
        "file",
        "images.png",
    ),
    ("images-none", lambda _: fit(None), Type, "images", "NoneType"),
    ("images-number", lambda _: fit(3), Type, "images", "int"),
    ("images-dict", lambda _: fit({"images": IMAGES}), Type, "images", "dict"),
    (
        "images-names",
        lambda _: fit(["a.png", "b.png"]),
        FileNotFoundError,
        "file",
        "a.png",
    ),
    ("images-objects", lambda _: fit(np.array([object()])), Type, "images", "ndarray"),
    ("images-complex", lambda _: fit(IMAGES.numpy() * 1j), Type, "images"),
    ("images-empty-list", lambda _: fit([]), Value, "images"),
    ("images-empty-stream", lambda _: fit(iter([])), Value, "images", "empty"),
    (
        "images-empty-dataset",
        lambda _: fit(TensorDataset(IMAGES[:0])),
        Value,
        "images",
        "empty",
    ),
    (
        "images-bad-batch",
        lambda _: fit([IMAGES, IMAGES + 1]),
        Value,
        "images",
        "[0, 1]",
    ),
    (
        "images-changing",
        lambda _: fit([IMAGES, COLOUR]),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 3, 6, 5)",
    ),
    # images to be scored
    ("score-nan", lambda _: score(spoiled(IMAGES, NAN)), Value, "images", "NaN"),
    (
        "score-bytes",
        lambda _: score((IMAGES * 255).to(torch.uint8)),
        Type,
        "images",
        "uint8",
    ),
    (
        "score-size",
        lambda _: score(IMAGES[..., :4]),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 1, 6, 4)",
    ),
    (
        "score-channels",
        lambda _: score(COLOUR),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 3, 6, 5)",
    ),
    (
        "score-vectors",
        lambda _: score(VECTORS),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 30)",
    ),
    ("score-none", lambda _: score(None), Type, "images", "NoneType"),
    (
        "map-nan",
        lambda _: PixelGaussian().fit(IMAGES).anomaly_map(spoiled(IMAGES, NAN)),
        Value,
        "images",
    ),
    (
        "map-channels",
        lambda _: patches(patch_size=4).fit(IMAGES).anomaly_map(COLOUR),
        Value,
        "images",
    ),
    (
        "map-small",
        lambda _: patches(patch_size=4).fit(IMAGES).anomaly_map(IMAGES[..., :3]),
        Value,
        "images",
    ),
    (
        "map-vectors",
        lambda _: PCAResidual(2).fit(VECTORS).anomaly_map(VECTORS),
        Value,
        "images",
        "vectors",
    ),
    # one-class classification
    ("svdd-nu-zero", lambda _: KernelSVDD(0), Value, "nu", "(0, 1)"),
    ("svdd-nu-one", lambda _: KernelSVDD(1.0), Value, "nu", "(0, 1)"),
    ("svdd-gamma", lambda _: KernelSVDD(gamma=0), Value, "gamma", "(0, inf"),
    ("svdd-gamma-name", lambda _: KernelSVDD(gamma="auto"), Value, "gamma", "scale"),
    (
        "deep-svdd-objective",
        lambda _: DeepSVDD("soft"),
        Value,
        "objective",
        "soft-boundary",
    ),
    ("deep-svdd-nu", lambda _: DeepSVDD(nu=1), Value, "nu", "(0, 1)"),
    ("deep-svdd-warm-up", lambda _: DeepSVDD(warm_up=0), Value, "warm_up"),
    ("deep-svdd-widths", lambda _: DeepSVDD(widths=8), Type, "widths", "int"),
    ("deep-svdd-width", lambda _: DeepSVDD(widths=(8, 0)), Value, "widths"),
    ("deep-svdd-features", lambda _: DeepSVDD(n_features=0), Value, "n_features"),
    ("deep-svdd-epochs", lambda _: DeepSVDD(epochs=-1), Value, "epochs"),
    ("deep-svdd-lr", lambda _: DeepSVDD(lr=0), Value, "lr"),
    ("deep-svdd-decay", lambda _: DeepSVDD(weight_decay=-1), Value, "weight_decay"),
    ("deep-svdd-network", lambda _: DeepSVDD(network="net"), Type, "network", "str"),
    (
        "deep-svdd-bias",
        lambda _: DeepSVDD(network=nn.Linear(30, 2)),
        Value,
        "network",
        "bias",
        "Linear",
    ),
    (
        "deep-svdd-bounded",
        lambda _: DeepSVDD(network=nn.Tanh()),
        Value,
        "network",
        "Tanh",
    ),
    (
        "deep-svdd-images",
        lambda _: DeepSVDD(widths=(1, 1, 1)).fit(IMAGES),
        Value,
        "images",
        "at least 8",
    ),
    ("deep-sad-eta", lambda _: DeepSAD(eta=-1), Value, "eta"),
    (
        "deep-sad-labelled",
        lambda _: DeepSAD().fit(IMAGES, IMAGES),
        Type,
        "labelled",
        "ImageSet",
    ),
    (
        "deep-sad-labelled-size",
        lambda _: DeepSAD().fit(IMAGES, ImageSet(IMAGES[..., :4])),
        Value,
        "images",
        "(N, 1, 6, 5)",
    ),
    # detectors that were not fitted
    (
        "unfitted-score",
        lambda _: Gaussian().anomaly_score(IMAGES),
        NotFittedError,
        "detector",
        "fit(images)",
    ),
    (
        "unfitted-map",
        lambda _: patches().anomaly_map(IMAGES),
        NotFittedError,
        "detector",
        "Patchwise(",
    ),
    (
        "unfitted-save",
        lambda tmp: KNN().save(tmp / "file"),
        NotFittedError,
        "detector",
        "KNN()",
    ),
    # files of detectors
    (
        "load-missing",
        lambda tmp: adlab.load_detector(tmp / "no"),
        Missing,
        "path",
        "no",
    ),
    ("load-folder", lambda tmp: adlab.load_detector(tmp), Missing, "path"),
    (
        "load-empty",
        lambda tmp: adlab.load_detector(write(tmp / "file", "")),
        Value,
        "path",
        "damaged",
    ),
    (
        "load-text",
        lambda tmp: adlab.load_detector(write(tmp / "file", "text " * 9)),
        Value,
        "path",
    ),
    (
        "save-nowhere",
        lambda tmp: fitted().save(tmp / "no" / "file"),
        Missing,
        "path",
        "no",
    ),
    ("save-folder", lambda tmp: fitted().save(tmp), IsADirectoryError, "path"),
    # constructors
    (
        "gaussian-type",
        lambda _: Gaussian("diagonal"),
        Value,
        "covariance_type",
        "'full', 'diag'",
        "'diag'",
    ),
    ("gaussian-reg", lambda _: Gaussian(reg_covar=-1e-6), Value, "reg_covar", "-1e-06"),
    ("gaussian-reg-nan", lambda _: Gaussian(reg_covar=NAN), Value, "reg_covar", "nan"),
    (
        "gaussian-reg-text",
        lambda _: Gaussian(reg_covar="1e-6"),
        Type,
        "reg_covar",
        "str",
    ),
    ("detector-seed", lambda _: Gaussian(seed=-1), Value, "seed", "-1"),
    ("detector-seed-float", lambda _: KNN(seed=0.5), Type, "seed", "float 0.5"),
    (
        "detector-seed-none",
        lambda _: PixelGaussian(seed=None),
        Type,
        "seed",
        "NoneType",
    ),
    (
        "detector-device",
        lambda _: PCAResidual(device="gpu"),
        Value,
        "device",
        '"auto"',
        "'gpu'",
    ),
    (
        "detector-far-device",
        lambda _: patches(device="cuda:99"),
        Value,
        "device",
        "cuda:99",
    ),
    ("pixel-reg", lambda _: PixelGaussian(reg_covar=-1), Value, "reg_covar", "-1"),
    (
        "pixel-score",
        lambda _: PixelGaussian(image_score="sum"),
        Value,
        "image_score",
        "'max', 'mean'",
    ),
    ("knn-zero", lambda _: KNN(n_neighbors=0), Value, "n_neighbors", "integer", "0"),
    ("knn-float", lambda _: KNN(n_neighbors=1.5), Type, "n_neighbors", "float 1.5"),
    ("knn-bool", lambda _: KNN(n_neighbors=True), Type, "n_neighbors", "bool"),
    ("pca-zero", lambda _: PCAResidual(0), Value, "n_components", "0"),
    ("pca-share", lambda _: PCAResidual(0.95), Type, "n_components", "0.95"),
    (
        "patch-detector",
        lambda _: Patchwise(PixelGaussian()),
        Type,
        "detector",
        "PixelGaussian",
    ),
    ("patch-class", lambda _: Patchwise(Gaussian), Type, "detector", "type"),
    ("kmeans-zero", lambda _: KMeans(0), Value, "n_clusters", "0"),
    ("kmeans-few", lambda _: KMeans(9).fit(VECTORS), Value, "images", "got 8"),
    ("reduced-class", lambda _: PCAReduced(KNN, 2), Type, "detector", "type"),
    ("reduced-zero", lambda _: PCAReduced(KNN(), 0), Value, "n_components", "0"),
    (
        "reduced-few",
        lambda _: PCAReduced(KNN(), 8).fit(VECTORS),
        Value,
        "images",
        "n_components = 8",
        "7",
    ),
    (
        "reduced-keep",
        lambda _: PCAReduced(KNN(), 2, "first"),
        Value,
        "keep",
        "'first'",
    ),
    (
        "reduced-whiten",
        lambda _: PCAReduced(KNN(), 2, whiten="yes"),
        Value,
        "whiten",
        "'yes'",
    ),
    (
        "transfer-class",
        lambda _: FeatureDetector(PixelGaussian()),
        Type,
        "detector",
        "PixelGaussian",
    ),
    (
        "transfer-backbone",
        lambda _: FeatureDetector(KNN(), "texnet2"),
        Value,
        "backbone",
        "'texnet2'",
    ),
    (
        "transfer-layers",
        lambda _: FeatureDetector(KNN(), layers="layer1"),
        Type,
        "layers",
        "'layer1'",
    ),
    (
        "transfer-vectors",
        lambda _: FeatureDetector(KNN()).fit(VECTORS),
        Value,
        "images",
        "(N, C, H, W)",
    ),
    ("patch-size", lambda _: patches(patch_size=0), Value, "patch_size", "0"),
    (
        "patch-stride",
        lambda _: patches(patch_size=4, stride=5),
        Value,
        "stride",
        "[1, 4]",
        "5",
    ),
    (
        "patch-features",
        lambda _: patches(features="gabor"),
        Value,
        "features",
        "'pixels'",
        "'gabor'",
    ),
    ("patch-score", lambda _: patches(image_score=None), Value, "image_score", "None"),
    # training images that do not do for the method
    ("gaussian-one", lambda _: fit(IMAGES[:1]), Value, "images", "at least 2", "got 1"),
    (
        "gaussian-singular",
        lambda _: Gaussian(reg_covar=0).fit(VECTORS),
        Value,
        "images",
        "reg_covar",
    ),
    (
        "gaussian-huge",
        lambda _: fit(torch.zeros(2, 1, 99, 99)),
        Value,
        "images",
        "8192",
        "9801",
    ),
    (
        "moments-none",
        lambda _: Moments().covariance(),
        Value,
        "images",
        "at least 2",
        "got 0",
    ),
    (
        "knn-few",
        lambda _: KNN(n_neighbors=9).fit(IMAGES),
        Value,
        "images",
        "n_neighbors = 9",
        "8",
    ),
    (
        "pca-few",
        lambda _: PCAResidual(9).fit(IMAGES),
        Value,
        "images",
        "n_components = 9",
        "8, 30",
    ),
    (
        "pca-narrow",
        lambda _: PCAResidual(5).fit(VECTORS[:, :4]),
        Value,
        "images",
        "n_components = 5",
        "8, 4",
    ),
    (
        "patch-small",
        lambda _: patches(patch_size=8).fit(IMAGES),
        Value,
        "images",
        "patch_size = 8",
        "(6, 5)",
    ),
    # training
    ("device", lambda _: training.resolve_device("tpu0"), Value, "device", "'tpu0'"),
    ("seed", lambda _: training.seeded(-3).__enter__(), Value, "seed", "-3"),
    ("stream-batch", lambda _: stream(IMAGES, 0), Value, "batch_size", "0"),
    ("stream-text", lambda _: stream("images"), Type, "images", "DataLoader", "str"),
    ("train-epochs", lambda _: train(epochs=0), Value, "epochs", "0"),
    ("train-batch", lambda _: train(batch_size=2.0), Type, "batch_size", "2.0"),
    ("train-rate", lambda _: train(lr=0), Value, "lr", "0"),
    ("train-decay", lambda _: train(weight_decay=-1), Value, "weight_decay", "-1"),
    ("train-seed", lambda _: train(seed="0"), Type, "seed", "str"),
    ("train-device", lambda _: train(device="abacus"), Value, "device", "'abacus'"),
    ("train-images", lambda _: train(spoiled(IMAGES, NAN)), Value, "images", "NaN"),
    ("train-none", lambda _: train(None), Type, "images", "NoneType"),
    (
        "train-dataset",
        lambda _: train(TensorDataset(IMAGES * 2)),
        Value,
        "images",
        "[0, 1]",
    ),
    (
        "train-loss",
        lambda _: train(loss=exploding),
        FloatingPointError,
        "loss",
        "epoch 1",
    ),
    # data sets
    ("set-images", lambda _: ImageSet(IMAGES * 2), Value, "images", "[0, 1]"),
    (
        "set-labels",
        lambda _: ImageSet(IMAGES, LABELS[:5]),
        Value,
        "labels",
        "(8,)",
        "(5,)",
    ),
    (
        "set-labels-names",
        lambda _: ImageSet(IMAGES, ["good"] * 8),
        Type,
        "labels",
        "list",
    ),
    (
        "set-labels-values",
        lambda _: ImageSet(IMAGES, np.arange(8)),
        Value,
        "labels",
        "0",
        "1",
        "2",
    ),
    (
        "set-masks",
        lambda _: ImageSet(IMAGES, LABELS, MASKS[:, 1:]),
        Value,
        "masks",
        "(8, 6, 5)",
        "(8, 5, 5)",
    ),
    (
        "set-masks-grey",
        lambda _: ImageSet(IMAGES, LABELS, MAPS),
        Value,
        "masks",
        "0 and 1",
    ),
    (
        "set-masks-normal",
        lambda _: ImageSet(IMAGES, None, MASKS),
        Value,
        "masks",
        "normal image",
    ),
    ("set-kinds", lambda _: ImageSet(IMAGES, kinds=["good"]), Value, "kinds", "8", "1"),
    ("set-kind", lambda _: NORMAL.of_kind("hole"), Value, "kinds", "'good'", "'hole'"),
    ("set-nothing", lambda _: NORMAL[[]], Value, "images", "at least one"),
    (
        "splits-train",
        lambda _: Splits(MIXED, NORMAL, MIXED),
        Value,
        "train",
        "normal",
        "3 anomalous",
    ),
    (
        "splits-val",
        lambda _: Splits(NORMAL, MIXED, MIXED),
        Value,
        "val",
        "normal",
        "3 anomalous",
    ),
    (
        "splits-tensor",
        lambda _: Splits(NORMAL, NORMAL, IMAGES),
        Type,
        "test",
        "ImageSet",
        "Tensor",
    ),
    (
        "load-name",
        lambda _: data.load("mnst"),
        Value,
        "name",
        "'mnist'",
        "'nanofibres'",
        "'mnst'",
    ),
    ("load-no-name", lambda _: data.load(None), Value, "name", "'digits'", "None"),
    (
        "load-option",
        lambda _: data.load("digits", sede=1),
        Type,
        "options of 'digits'",
        "seed",
        "'sede'",
    ),
    (
        "nanofibres-size",
        lambda _: data.load("nanofibres", size=8),
        Value,
        "size",
        "32",
        "8",
    ),
    (
        "nanofibres-train",
        lambda _: data.load("nanofibres", n_train=0),
        Value,
        "n_train",
        "0",
    ),
    (
        "nanofibres-contrast",
        lambda _: data.load("nanofibres", contrast=0),
        Value,
        "contrast",
        "0",
    ),
    ("wafers-size", lambda _: data.load("wafers", size=31), Value, "size", "32", "31"),
    (
        "wafers-noise",
        lambda _: data.load("wafers", noise=0.6),
        Value,
        "noise",
        "0.5",
        "0.6",
    ),
    (
        "wafers-test",
        lambda _: data.load("wafers", n_test=1.0),
        Type,
        "n_test",
        "float 1.0",
    ),
    (
        "wafers-kind",
        lambda _: wafer_patterns(kinds=["ring"]),
        Value,
        "kinds",
        "'good'",
        "'ring'",
    ),
    (
        "wafers-kinds",
        lambda _: wafer_patterns(kinds="good"),
        Type,
        "kinds",
        "str 'good'",
    ),
    (
        "wafers-no-kind",
        lambda _: wafer_patterns(kinds=[]),
        Value,
        "kinds",
        "at least one",
    ),
    ("wafers-number", lambda _: wafer_patterns(n_per_kind=0), Value, "n_per_kind", "0"),
    (
        "textures-name",
        lambda _: data.load("textures", texture="sand"),
        Value,
        "texture",
        "'brick'",
        "'sand'",
    ),
    (
        "textures-size",
        lambda _: data.load("textures", size=500),
        Value,
        "size",
        "112",
        "500",
    ),
    ("textures-many", lambda _: data.load("textures", n_train=10**9), Value, "n_train"),
    ("textures-seed", lambda _: data.load("textures", seed=-1), Value, "seed", "-1"),
    (
        "photograph",
        lambda _: photograph("sand"),
        Value,
        "texture",
        "'gravel'",
        "'sand'",
    ),
    (
        "digits-class",
        lambda _: data.load("digits", normal_class=10),
        Value,
        "normal_class",
        "9",
        "10",
    ),
    (
        "digits-class-text",
        lambda _: data.load("digits", normal_class="3"),
        Type,
        "normal_class",
        "str",
    ),
    (
        "digits-balanced",
        lambda _: data.load("digits", balanced="yes"),
        Value,
        "balanced",
        "'yes'",
    ),
    ("field-strength", lambda _: gaussian_field(strength=-2), Value, "strength", "-2"),
    (
        "field-strong",
        lambda _: gaussian_field(strength=1e6),
        Value,
        "strength",
        "at most",
    ),
    (
        "field-length",
        lambda _: gaussian_field(correlation_length=99),
        Value,
        "correlation_length",
        "99",
    ),
    ("field-test", lambda _: gaussian_field(n_test=1), Value, "n_test", "1"),
    ("field-optimum", lambda _: optimal_auroc(NAN), Value, "strength", "nan"),
    (
        "mnist-class",
        lambda tmp: data.load("mnist", root=tmp, normal_class="x"),
        Value,
        "normal_class",
        "'9'",
    ),
    (
        "mnist-val",
        lambda tmp: data.load("mnist", root=tmp, n_val=0),
        Value,
        "n_val",
        "0",
    ),
    (
        "mnist-download",
        lambda tmp: data.load("mnist", root=tmp, download=3),
        Value,
        "download",
        "3",
    ),
    (
        "cifar-class",
        lambda tmp: data.load("cifar10", root=tmp, normal_class=10),
        Value,
        "normal_class",
        "10",
    ),
    (
        "mvtec-name",
        lambda tmp: data.load("mvtec-ad", category="x", root=tmp),
        Value,
        "category",
        "'bottle'",
    ),
    (
        "btad-name",
        lambda tmp: data.load("btad", category="04", root=tmp),
        Value,
        "category",
        "'01'",
        "'04'",
    ),
    (
        "root-number",
        lambda _: data.load("btad", category="01", root=3),
        Type,
        "root",
        "int 3",
    ),
    ("folder-number", lambda _: data.from_folder(3), Type, "path", "int 3"),
    (
        "folder-size",
        lambda tmp: data.from_folder(layout(tmp), size=0),
        Value,
        "size",
        "0",
    ),
    (
        "folder-sizes",
        lambda tmp: data.from_folder(layout(tmp), size=(8, 8, 8)),
        Value,
        "size",
        "(8, 8, 8)",
    ),
    (
        "folder-crop",
        lambda tmp: data.from_folder(layout(tmp), crop=9),
        Value,
        "crop",
        "8×8",
        "9",
    ),
    (
        "folder-val",
        lambda tmp: data.from_folder(layout(tmp), val_fraction=1),
        Value,
        "val_fraction",
        "1",
    ),
    (
        "folder-one-image",
        lambda tmp: data.from_folder(layout(tmp, n=1)),
        Value,
        "train",
        "at least two",
    ),
    # measures of performance
    (
        "auroc-nan",
        lambda _: metrics.auroc(spoiled(SCORES, NAN), LABELS),
        Value,
        "scores",
        "1 that are NaN",
    ),
    (
        "auroc-infinite",
        lambda _: metrics.auroc(spoiled(SCORES, INF), LABELS),
        Value,
        "scores",
        "infinite",
    ),
    (
        "auroc-empty",
        lambda _: metrics.auroc([], []),
        Value,
        "scores",
        "non-empty",
        "(0,)",
    ),
    (
        "auroc-rank",
        lambda _: metrics.auroc(SCORES[:, None], LABELS),
        Value,
        "scores",
        "(N,)",
        "(8, 1)",
    ),
    ("auroc-text", lambda _: metrics.auroc("scores", LABELS), Type, "scores", "str"),
    (
        "auroc-one-class",
        lambda _: metrics.auroc(SCORES, LABELS * 0),
        Value,
        "labels",
        "both classes",
        "[0]",
    ),
    (
        "roc-curve-length",
        lambda _: metrics.roc_curve(SCORES, LABELS[:7]),
        Value,
        "labels",
        "(8,)",
        "(7,)",
    ),
    (
        "pr-curve-labels",
        lambda _: metrics.precision_recall_curve(SCORES, LABELS * 2),
        Value,
        "labels",
        "2",
    ),
    (
        "ap-labels",
        lambda _: metrics.average_precision(SCORES, LABELS - 1),
        Value,
        "labels",
        "-1",
    ),
    (
        "f1-one-class",
        lambda _: metrics.best_f1(SCORES, LABELS * 0 + 1),
        Value,
        "labels",
        "[1]",
    ),
    (
        "youden-fractions",
        lambda _: metrics.best_tpr_tnr(SCORES, LABELS * 0.5),
        Value,
        "labels",
        "0.5",
    ),
    (
        "fpr-tpr",
        lambda _: metrics.fpr_at_tpr(SCORES, LABELS, tpr=95),
        Value,
        "tpr",
        "(0, 1]",
        "95",
    ),
    (
        "fpr-zero",
        lambda _: metrics.fpr_at_tpr(SCORES, LABELS, tpr=0),
        Value,
        "tpr",
        "(0, 1]",
        "0",
    ),
    (
        "accuracy-scores",
        lambda _: metrics.accuracy(SCORES, LABELS),
        Value,
        "verdicts",
        "True and False",
    ),
    (
        "accuracy-length",
        lambda _: metrics.accuracy(LABELS, LABELS[:3]),
        Value,
        "labels",
        "(8,)",
        "(3,)",
    ),
    ("rates-empty", lambda _: metrics.rates([], []), Value, "verdicts", "empty"),
    (
        "rates-one-class",
        lambda _: metrics.rates(LABELS, LABELS * 0),
        Value,
        "labels",
        "both classes",
    ),
    (
        "pixel-rank",
        lambda _: metrics.pixel_auroc(IMAGES, MASKS),
        Value,
        "maps",
        "(N, H, W)",
        "(8, 1, 6, 5)",
    ),
    (
        "pixel-size",
        lambda _: metrics.pixel_auroc(MAPS, MASKS[:, 1:]),
        Value,
        "masks",
        "(8, 6, 5)",
    ),
    (
        "pixel-nan",
        lambda _: metrics.pixel_auroc(spoiled(MAPS, NAN), MASKS),
        Value,
        "maps",
        "NaN",
    ),
    ("pro-grey-masks", lambda _: metrics.pro(MAPS, MAPS), Value, "masks", "0 and 1"),
    ("pro-no-masks", lambda _: metrics.pro(MAPS, None), Type, "masks", "NoneType"),
    (
        "pro-no-anomaly",
        lambda _: metrics.pro(MAPS, MASKS & False),
        Value,
        "masks",
        "no anomalous pixel",
    ),
    (
        "pro-no-normal",
        lambda _: metrics.pro(MAPS, MASKS | True),
        Value,
        "masks",
        "no normal pixel",
    ),
    (
        "pro-fpr",
        lambda _: metrics.pro(MAPS, MASKS, max_fpr=0),
        Value,
        "max_fpr",
        "(0, 1]",
        "0",
    ),
    (
        "pro-curve-fpr",
        lambda _: metrics.pro_curve(MAPS, MASKS, max_fpr=30),
        Value,
        "max_fpr",
        "30",
    ),
    (
        "oscr-known",
        lambda _: metrics.oscr([], [], SCORES),
        Value,
        "known_scores",
        "(0,)",
    ),
    (
        "oscr-correct",
        lambda _: metrics.oscr(SCORES, LABELS[:2], SCORES),
        Value,
        "known_correct",
        "(8,)",
    ),
    (
        "oscr-classes",
        lambda _: metrics.oscr(SCORES, np.arange(8), SCORES),
        Value,
        "known_correct",
        "True",
    ),
    (
        "oscr-unknown",
        lambda _: metrics.oscr(SCORES, LABELS, [NAN]),
        Value,
        "unknown_scores",
        "NaN",
    ),
    # decision rules
    (
        "align-grey-levels",
        lambda _: data.align(255 * IMAGES, IMAGES[0]),
        Value,
        "images",
        "[0, 1]",
    ),
    (
        "align-one-image",
        lambda _: data.align(IMAGES[0], IMAGES[0]),
        Value,
        "images",
        "(N, C, H, W)",
    ),
    (
        "align-images-for-one",
        lambda _: data.align(IMAGES, IMAGES),
        Value,
        "reference",
        "(1, 6, 5)",
    ),
    (
        "align-other-channels",
        lambda _: data.align(COLOUR, IMAGES[0]),
        Value,
        "reference",
        "(3, 6, 5)",
    ),
    (
        "align-nan",
        lambda _: data.align(IMAGES, spoiled(IMAGES[0], NAN)),
        Value,
        "reference",
        "finite",
    ),
    ("align-text", lambda _: data.align(IMAGES, "first"), Type, "reference", "str"),
    (
        "regions-maps-for-a-map",
        lambda _: regions.find_regions(MAPS, 1),
        Value,
        "anomaly_map",
        "(H, W)",
        "(8, 6, 5)",
    ),
    (
        "regions-nan",
        lambda _: regions.find_regions(spoiled(MAPS[0], NAN), 1),
        Value,
        "anomaly_map",
        "finite",
    ),
    (
        "regions-text",
        lambda _: regions.find_regions("map", 1),
        Type,
        "anomaly_map",
        "str",
    ),
    ("regions-high", lambda _: regions.find_regions(MAPS[0], "1"), Type, "high", "str"),
    (
        "regions-high-nan",
        lambda _: regions.find_regions(MAPS[0], NAN),
        Value,
        "high",
        "nan",
    ),
    (
        "regions-low-above-high",
        lambda _: regions.find_regions(MAPS[0], 1, 2),
        Value,
        "low",
        "1]",
        "2",
    ),
    (
        "regions-no-area",
        lambda _: regions.find_regions(MAPS[0], 1, min_area=0),
        Value,
        "min_area",
        "0",
    ),
    (
        "regions-half-a-pixel",
        lambda _: regions.region_masks(MAPS, 1, min_area=1.5),
        Type,
        "min_area",
        "1.5",
    ),
    (
        "regions-map-for-maps",
        lambda _: regions.region_masks(MAPS[0], 1),
        Value,
        "maps",
        "(N, H, W)",
    ),
    (
        "regions-more-than-a-map",
        lambda _: regions.region_scores(MAPS, min_area=31),
        Value,
        "min_area",
        "30]",
        "31",
    ),
    (
        "regions-score-low",
        lambda _: regions.region_scores(MAPS, low=INF),
        Value,
        "low",
        "inf",
    ),
    ("regions-sigma", lambda _: regions.smooth(MAPS, -1), Value, "sigma", "-1"),
    (
        "regions-smooth-map",
        lambda _: regions.smooth(MAPS[0], 1),
        Value,
        "maps",
        "(N, H, W)",
    ),
    (
        "quantile-percent",
        lambda _: decision.quantile_threshold(SCORES, 5),
        Value,
        "fpr",
        "(0, 1)",
        "5",
    ),
    (
        "quantile-zero",
        lambda _: decision.quantile_threshold(SCORES, 0),
        Value,
        "fpr",
        "(0, 1)",
        "0",
    ),
    (
        "quantile-few",
        lambda _: decision.quantile_threshold(SCORES, 0.01),
        Value,
        "scores",
        "99",
        "8",
    ),
    (
        "quantile-nan",
        lambda _: decision.quantile_threshold(spoiled(SCORES, NAN), 0.5),
        Value,
        "scores",
    ),
    (
        "sigma-one",
        lambda _: decision.sigma_threshold([1.0]),
        Value,
        "scores",
        "at least 2",
        "1",
    ),
    ("sigma-k", lambda _: decision.sigma_threshold(SCORES, k=-3), Value, "k", "-3"),
    (
        "sigma-maps",
        lambda _: decision.sigma_threshold(MAPS),
        Value,
        "scores",
        "(N,)",
        "(8, 6, 5)",
    ),
    (
        "bootstrap-fpr",
        lambda _: decision.bootstrap_threshold(SCORES, 1),
        Value,
        "fpr",
        "1",
    ),
    (
        "bootstrap-none",
        lambda _: decision.bootstrap_threshold(SCORES, 0.1, 0),
        Value,
        "n_resamples",
        "0",
    ),
    (
        "bootstrap-seed",
        lambda _: decision.bootstrap_threshold(SCORES, 0.1, seed=-1),
        Value,
        "seed",
        "-1",
    ),
    (
        "bootstrap-sure",
        lambda _: decision.bootstrap_threshold(SCORES, 0.1, confidence=5),
        Value,
        "confidence",
    ),
    (
        "bootstrap-text",
        lambda _: decision.bootstrap_threshold("abc", 0.1),
        Type,
        "scores",
        "str",
    ),
    # figures
    ("grid-images", lambda _: plots.image_grid(IMAGES * 2), Value, "images", "[0, 1]"),
    (
        "grid-titles",
        lambda _: plots.image_grid(IMAGES, ["one"]),
        Value,
        "titles",
        "8",
        "1",
    ),
    (
        "grid-masks",
        lambda _: plots.image_grid(IMAGES, masks=MASKS[:3]),
        Value,
        "masks",
        "(8, 6, 5)",
    ),
    (
        "grid-columns",
        lambda _: plots.image_grid(IMAGES, columns=0),
        Value,
        "columns",
        "0",
    ),
    (
        "maps-size",
        lambda _: plots.map_grid(IMAGES, MAPS[:, 1:]),
        Value,
        "maps",
        "(8, 6, 5)",
        "(8, 5, 5)",
    ),
    (
        "maps-nan",
        lambda _: plots.map_grid(IMAGES, spoiled(MAPS, NAN)),
        Value,
        "maps",
        "NaN",
    ),
    (
        "maps-titles",
        lambda _: plots.map_grid(IMAGES, MAPS, titles="ab"),
        Value,
        "titles",
        "8",
        "2",
    ),
    (
        "histogram-labels",
        lambda _: plots.score_histogram(SCORES, LABELS * 3),
        Value,
        "labels",
        "3",
    ),
    (
        "histogram-bins",
        lambda _: plots.score_histogram(SCORES, LABELS, bins=0),
        Value,
        "bins",
        "0",
    ),
    (
        "histogram-threshold",
        lambda _: plots.score_histogram(SCORES, LABELS, {"a": NAN}),
        Value,
        "thresholds",
    ),
    ("roc-nothing", lambda _: plots.roc({}), Value, "curves", "at least one"),
    ("roc-pair", lambda _: plots.roc((SCORES, LABELS)), Type, "curves", "tuple"),
    (
        "roc-one-class",
        lambda _: plots.roc({"a": (SCORES, LABELS * 0)}),
        Value,
        "labels",
        "both classes",
    ),
    ("show-builtin", lambda _: adlab.show(len), Type, "obj", "function", "len"),
    ("show-number", lambda _: adlab.show(3), Type, "obj", "3"),
    # open-set recognition
    (
        "msp-flat",
        lambda _: open_set.msp_score(SCORES),
        Value,
        "logits",
        "(N, D)",
        "(8,)",
    ),
    (
        "msp-nan",
        lambda _: open_set.msp_score(spoiled(VECTORS, NAN)),
        Value,
        "logits",
        "1 that",
    ),
    ("msp-text", lambda _: open_set.msp_score("logits"), Type, "logits", "str"),
    (
        "max-logit-one",
        lambda _: open_set.max_logit_score(VECTORS[:, :1]),
        Value,
        "logits",
        "L >= 2",
    ),
    (
        "energy-cold",
        lambda _: open_set.energy_score(VECTORS, 0),
        Value,
        "temperature",
        "(0",
        "0",
    ),
    (
        "energy-text",
        lambda _: open_set.energy_score(VECTORS, "1"),
        Type,
        "temperature",
        "str",
    ),
    ("openmax-tail", lambda _: open_set.OpenMax(1), Value, "tail_size", "[2", "1"),
    ("openmax-alpha", lambda _: open_set.OpenMax(alpha=0), Value, "alpha", "0"),
    ("openmax-alpha-above", lambda _: openmax(alpha=4), Value, "alpha", "[1, 3]", "4"),
    (
        "openmax-few",
        lambda _: openmax(tail_size=4),
        Value,
        "labels",
        "tail_size=4",
        "3 of class 0",
    ),
    (
        "openmax-unfitted",
        lambda _: open_set.OpenMax()(VECTORS),
        NotFittedError,
        "openmax",
        "fit(",
    ),
    (
        "openmax-width",
        lambda _: openmax()(VECTORS),
        Value,
        "logits",
        "(N, 3)",
        "(8, 30)",
    ),
    ("openmax-labels", lambda _: openmax(LABELS), Value, "labels", "(9,)", "(8,)"),
    ("openmax-labels-float", lambda _: openmax(np.ones(9)), Type, "labels", "float64"),
    (
        "openmax-labels-high",
        lambda _: openmax([0, 1, 3] * 3),
        Value,
        "labels",
        "0 to 2",
        "to 3",
    ),
    (
        "openmax-labels-low",
        lambda _: openmax([-1, 0, 1] * 3),
        Value,
        "labels",
        "0 to 2",
        "from -1",
    ),
    (
        "openmax-equal",
        lambda _: open_set.OpenMax(2).fit([[1, 0]] * 2 + [[0, 1]] * 2, [0, 0, 1, 1]),
        Value,
        "logits",
        "class 0",
        "all 0",
    ),
    (
        "weibull-equal",
        lambda _: open_set.fit_weibull([2.0, 2, 2]),
        Value,
        "distances",
        "different",
    ),
    (
        "weibull-zero",
        lambda _: open_set.fit_weibull([0.0, 1, 2]),
        Value,
        "distances",
        "positive",
    ),
    (
        "open-measures",
        lambda _: open_set.open_set_measures(SCORES, LABELS[:5], SCORES),
        Value,
        "known_correct",
        "(8,)",
    ),
    (
        "open-classifier",
        lambda _: open_set.OpenSetClassifier(len),
        Type,
        "classifier",
        "network",
        "builtin",
    ),
    ("open-score", lambda _: opened("logit"), Value, "score", "'max-logit'", "'logit'"),
    ("open-fpr", lambda _: opened(fpr=1), Value, "fpr", "(0, 1)"),
    ("open-few", lambda _: opened(fpr=0.1), Value, "images", "at least 9", "8"),
    ("open-one-logit", lambda _: opened(n=1), Value, "classifier", "L >= 2", "(8, 1)"),
    (
        "open-maps",
        lambda _: open_set.logits_of(nn.Identity(), IMAGES),
        Value,
        "classifier",
        "(8, 1, 6, 5)",
    ),
    (
        "open-softmax",
        lambda _: opened(last=nn.Softmax(1)),
        Value,
        "classifier",
        "got probabilities",
    ),
    (
        "cnn-classes",
        lambda _: open_set.convolutional_classifier(1),
        Value,
        "n_classes",
        "1",
    ),
    (
        "cnn-channels",
        lambda _: open_set.convolutional_classifier(3, 2),
        Value,
        "channels",
        "1, 3",
        "2",
    ),
    (
        "cnn-widths",
        lambda _: open_set.convolutional_classifier(3, widths=(4, 0)),
        Value,
        "widths",
        "0",
    ),
    (
        "symmetry-oblong",
        lambda _: open_set.random_symmetry(IMAGES),
        Value,
        "images",
        "square",
        "(8, 1, 6, 5)",
    ),
    ("shift-back", lambda _: open_set.random_shift(IMAGES, -1), Value, "reach", "-1"),
    ("classifier-epochs", lambda _: classifier(epochs=0), Value, "epochs", "0"),
    (
        "classifier-schedule",
        lambda _: classifier(schedule="linear"),
        Value,
        "schedule",
        "'cosine'",
        "'linear'",
    ),
    (
        "classifier-smoothing",
        lambda _: classifier(label_smoothing=1),
        Value,
        "label_smoothing",
        "[0, 1)",
    ),
    ("classifier-lr", lambda _: classifier(lr=0), Value, "lr", "0"),
    (
        "classifier-decay",
        lambda _: classifier(weight_decay=-1),
        Value,
        "weight_decay",
        "-1",
    ),
    ("classifier-batch", lambda _: classifier(batch_size=0), Value, "batch_size", "0"),
    (
        "classifier-labels",
        lambda _: classifier(LABELS + 2),
        Value,
        "labels",
        "0 to 2",
        "to 3",
    ),
    (
        "classifier-images",
        lambda _: classifier(images=IMAGES * 255),
        Value,
        "images",
        "[0, 1]",
    ),
    # geometric transformations
    (
        "geotrans-set",
        lambda _: geotrans.GeoTrans(9),
        Value,
        "transformations",
        "72",
        "9",
    ),
    (
        "geotrans-set-text",
        lambda _: geotrans.GeoTrans("rot90"),
        Value,
        "transformations",
        "'rot90'",
    ),
    (
        "geotrans-set-type",
        lambda _: geotrans.GeoTrans(8.0),
        Type,
        "transformations",
        "8.0",
    ),
    (
        "geotrans-step",
        lambda _: geotrans.GeoTrans(("flip", "turn")),
        Value,
        "transformations",
        "'turn'",
    ),
    (
        "geotrans-one",
        lambda _: geotrans.GeoTrans(["flip"]),
        Value,
        "transformations",
        "at least 2",
        "1",
    ),
    (
        "geotrans-same",
        lambda _: geotrans.GeoTrans(["rot90", "flip", "flip flip flip"]),
        Value,
        "transformations",
        "different",
        "'flip'",
    ),
    (
        "geotrans-score",
        lambda _: geotrans.GeoTrans(score="entropy"),
        Value,
        "score",
        "softmax",
        "'entropy'",
    ),
    (
        "geotrans-score-detector",
        lambda _: geotrans.GeoTrans(score=PixelGaussian()),
        Type,
        "score",
        "vectors",
        "PixelGaussian",
    ),
    (
        "geotrans-depth",
        lambda _: geotrans.GeoTrans(depth=11),
        Value,
        "depth",
        "16",
        "11",
    ),
    (
        "geotrans-widths",
        lambda _: geotrans.GeoTrans(widths=(8, 16)),
        Value,
        "widths",
        "3",
        "2",
    ),
    (
        "geotrans-widths-type",
        lambda _: geotrans.GeoTrans(widths=8),
        Type,
        "widths",
        "3",
        "int",
    ),
    (
        "geotrans-widths-zero",
        lambda _: geotrans.GeoTrans(widths=(8, 0, 8)),
        Value,
        "widths",
        "[1",
        "0",
    ),
    (
        "geotrans-epochs",
        lambda _: geotrans.GeoTrans(epochs=0),
        Value,
        "epochs",
        "[1",
        "0",
    ),
    (
        "geotrans-batch",
        lambda _: geotrans.GeoTrans(batch_size=1),
        Value,
        "batch_size",
        "[2",
        "1",
    ),
    ("geotrans-lr", lambda _: geotrans.GeoTrans(lr=0), Value, "lr", "(0", "0"),
    (
        "geotrans-val_fraction",
        lambda _: geotrans.GeoTrans(val_fraction=1),
        Value,
        "val_fraction",
        "1)",
        "1",
    ),
    (
        "geotrans-oblong",
        lambda _: geotrans.GeoTrans(8).fit(IMAGES),
        Value,
        "images",
        "H = W",
        "(6, 5)",
    ),
    (
        "geotrans-tiny",
        lambda _: geotrans.GeoTrans().fit(IMAGES[:, :, :3, :3]),
        Value,
        "images",
        "at least 4",
        "(3, 3)",
    ),
    (
        "geotrans-few",
        lambda _: geotrans.GeoTrans(8).fit(IMAGES[:4]),
        Value,
        "images",
        "at least 2",
        "val_fraction = 0.25",
        "1",
    ),
    (
        "transform-name",
        lambda _: geotrans.transform(IMAGES, "flip twist"),
        Value,
        "name",
        "flip",
        "'twist'",
    ),
    (
        "transform-oblong",
        lambda _: geotrans.transform(IMAGES, "rot270"),
        Value,
        "images",
        "H = W",
        "(6, 5)",
    ),
    (
        "transformation-set",
        lambda _: geotrans.transformation_set(16),
        Value,
        "which",
        "72",
        "16",
    ),
    # inpainting
    ("inpaint-cells-one", lambda _: Inpainting(4), Type, "cell_sizes", "int"),
    ("inpaint-cells-empty", lambda _: Inpainting(()), Value, "cell_sizes", "none"),
    ("inpaint-cells-zero", lambda _: Inpainting((0, 2)), Value, "cell_sizes", "[1"),
    ("inpaint-cells-large", lambda _: Inpainting((2, 17)), Value, "cell_sizes", "16]"),
    ("inpaint-sets-one", lambda _: Inpainting(n_sets=1), Value, "n_sets", "[2"),
    ("inpaint-sets-many", lambda _: Inpainting((16,), 5), Value, "n_sets", "4]"),
    ("inpaint-ssim", lambda _: Inpainting(ssim_weight=-1), Value, "ssim_weight", "-1"),
    ("inpaint-gms", lambda _: Inpainting(gms_weight="1"), Type, "gms_weight", "str"),
    ("inpaint-score", lambda _: Inpainting(score="l2"), Value, "score", "'gms'"),
    ("inpaint-even", lambda _: Inpainting(smoothing=4), Value, "smoothing", "odd"),
    ("inpaint-widths", lambda _: Inpainting(widths=8), Type, "widths", "int"),
    ("inpaint-crop", lambda _: Inpainting(patch_size=23), Value, "patch_size", "[24"),
    ("inpaint-epochs", lambda _: Inpainting(epochs=0), Value, "epochs", "[1"),
    ("inpaint-lr", lambda _: Inpainting(lr=0), Value, "lr", "(0"),
    ("inpaint-mean", lambda _: Inpainting(image_score="sum"), Value, "image_score"),
    ("inpaint-small", lambda _: Inpainting().fit(IMAGES), Value, "images", "32"),
    ("cell-masks-sets", lambda _: cell_masks(8, 8, 4, 5), Value, "n_sets", "4]"),
    ("cell-masks-cell", lambda _: cell_masks(8, 8, 0), Value, "cell_size", "[1"),
    ("unet-channels", lambda _: UNet(0), Value, "channels", "[1"),
    # PaDiM and SPADE
    ("padim-backbone", lambda _: PaDiM("vgg"), Value, "backbone", "'vgg'"),
    ("padim-backbone-type", lambda _: PaDiM(18), Type, "backbone", "int"),
    ("padim-layers", lambda _: PaDiM(layers="layer1"), Type, "layers", "'layer1'"),
    ("padim-features", lambda _: PaDiM(n_features=0), Value, "n_features", "[1"),
    ("padim-features-type", lambda _: PaDiM(n_features=2.5), Type, "n_features", "2.5"),
    ("padim-reduction", lambda _: PaDiM(reduction="svd"), Value, "reduction", "'svd'"),
    ("padim-reg", lambda _: PaDiM(reg_covar=0), Value, "reg_covar", "(0"),
    ("padim-sigma", lambda _: PaDiM(sigma=-1), Value, "sigma", "[0"),
    ("padim-score", lambda _: PaDiM(image_score="sum"), Value, "image_score", "'sum'"),
    (
        "misalign-type",
        lambda _: data.misalign(IMAGES),
        Type,
        "image_set",
        "ImageSet",
        "Tensor",
    ),
    (
        "misalign-angle",
        lambda _: data.misalign(ImageSet(IMAGES), angle=200),
        Value,
        "angle",
        "[0, 180]",
        "200",
    ),
    (
        "misalign-shift",
        lambda _: data.misalign(ImageSet(IMAGES), shift=0.5),
        Type,
        "shift",
        "an integer",
        "0.5",
    ),
    ("padim-one", lambda _: PaDiM().fit(IMAGES[:1]), Value, "images", "at least 2"),
    ("padim-range", lambda _: PaDiM().fit(IMAGES * 255), Value, "images", "[0, 1]"),
    (
        "padim-other-size",
        lambda _: PaDiM().fit(IMAGES).anomaly_map(torch.zeros(2, 1, 6, 6)),
        Value,
        "images",
        "(N, 1, 6, 5)",
    ),
    (
        "padim-pca-moments",
        lambda _: PaDiM(reduction="pca").moments(IMAGES),
        Value,
        "reduction",
        "pca",
    ),
    ("spade-backbone", lambda _: SPADE("vgg"), Value, "backbone", "'vgg'"),
    ("spade-k", lambda _: SPADE(n_neighbors=0), Value, "n_neighbors", "[1"),
    (
        "spade-k-many",
        lambda _: SPADE(n_neighbors=9).fit(IMAGES),
        Value,
        "images",
        "n_neighbors = 9",
        "8",
    ),
    ("spade-sigma", lambda _: SPADE(sigma=-1), Value, "sigma", "[0"),
    ("spade-score", lambda _: SPADE(image_score="sum"), Value, "image_score", "'sum'"),
    # students and teachers
    (
        "students-teacher",
        lambda _: StudentTeacher("master"),
        Value,
        "teacher",
        "'master'",
    ),
    (
        "students-students",
        lambda _: StudentTeacher(n_students=0),
        Value,
        "n_students",
        "0",
    ),
    (
        "students-field",
        lambda _: StudentTeacher(receptive_field=16),
        Value,
        "receptive_field",
        "a power of two + 1",
        "16",
    ),
    (
        "students-field-text",
        lambda _: StudentTeacher(receptive_field="17"),
        Type,
        "receptive_field",
        "an integer",
        "'17'",
    ),
    (
        "students-fields-none",
        lambda _: MultiScale(StudentTeacher(), (17, None)),
        Type,
        "receptive_fields",
        "an integer",
        "None",
    ),
    (
        "students-odd-stride",
        lambda _: StudentTeacher(
            backbone=nn.Sequential(nn.Conv2d(1, 4, 3, 3)), layers=("0",), epochs=1
        ).fit(torch.rand(4, 1, 40, 40)),
        Value,
        "layers",
        "⌈H / 2ᵏ⌉",
        "(13, 13)",
    ),
    (
        "students-field-type",
        lambda _: StudentTeacher(receptive_field=17.0),
        Type,
        "receptive_field",
        "17.0",
    ),
    (
        "students-term",
        lambda _: StudentTeacher(term="doubt"),
        Value,
        "term",
        "'doubt'",
    ),
    (
        "students-one",
        lambda _: StudentTeacher(n_students=1, term="variance"),
        Value,
        "n_students",
        "at least 2",
    ),
    (
        "students-backbone",
        lambda _: StudentTeacher(backbone="vgg"),
        Value,
        "backbone",
        "'vgg'",
    ),
    (
        "students-layers",
        lambda _: StudentTeacher(layers="layer1"),
        Type,
        "layers",
        "'layer1'",
    ),
    (
        "students-held-out",
        lambda _: StudentTeacher(val_fraction=1),
        Value,
        "val_fraction",
        "(0, 1)",
    ),
    (
        "students-score",
        lambda _: StudentTeacher(image_score="min"),
        Value,
        "image_score",
        "'min'",
    ),
    (
        "students-epochs",
        lambda _: StudentTeacher(epochs=0),
        Value,
        "epochs",
        "0",
    ),
    (
        "students-small",
        lambda _: StudentTeacher("triplet").fit(IMAGES),
        Value,
        "images",
        "above half of receptive_field = 33",
        "(4, 1, 6, 5)",
    ),
    (
        "students-one-image",
        lambda _: StudentTeacher("triplet", receptive_field=9).fit(IMAGES[:1]),
        Value,
        "images",
        "hold out",
        "1",
    ),
    (
        "students-stride",
        lambda _: PatchNetwork(1, 4, 17, 3),
        Value,
        "stride",
        "a power of two",
        "3",
    ),
    (
        "students-stride-field",
        lambda _: PatchNetwork(1, 4, 17, 16),
        Value,
        "receptive_field",
        "33",
        "17",
    ),
    (
        "students-scales",
        lambda _: MultiScale(StudentTeacher(), (17, 17)),
        Value,
        "receptive_fields",
        "different",
        "(17, 17)",
    ),
    (
        "students-scales-number",
        lambda _: MultiScale(StudentTeacher(), 17),
        Type,
        "receptive_fields",
        "17",
    ),
    (
        "students-scales-detector",
        lambda _: MultiScale(Gaussian()),
        Type,
        "detector",
        "StudentTeacher",
        "Gaussian",
    ),
]


# files and folders of images


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def draw(path, size=8, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), value).save(path)


def layout(folder, n=4):
    """A small data set in the MVTec AD layout."""
    for i in range(n):
        draw(folder / "train" / "good" / f"{i}.png", value=10 * i)
    draw(folder / "test" / "good" / "0.png")
    draw(folder / "test" / "hole" / "1.png")
    draw(folder / "ground_truth" / "hole" / "1_mask.png", value=255)
    return folder


def without(folder, name):
    """The same data set, but a file is gone."""
    (layout(folder) / name).unlink()
    return folder


def with_text(folder, name):
    """The same data set, but a file is no image."""
    write(layout(folder) / name, "I am no image")
    return folder


def with_size(folder, name):
    """The same data set, but a file is of another size."""
    draw(layout(folder) / name, size=5)
    return folder


def archive(folder, name):
    """An archive that holds a file of that name."""
    text = write(folder / "innocent.txt", "text " * 5000)
    with tarfile.open(folder / "packed.tar", "w") as file:
        file.add(text, arcname=name)
    return folder / "packed.tar"


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def half_mnist(root):
    """MNIST as a broken download leaves it."""
    path = write(root / "MNIST" / "raw" / "train-images-idx3-ubyte", "")
    path.write_bytes(
        b"\0\0\x08\x03" + b"\0\0\xea\x60" + b"\0\0\0\x1c" * 2 + bytes(1000)
    )
    return root


FILES = [
    (
        "mnist-missing",
        lambda tmp: data.load("mnist", root=tmp, download=False),
        Missing,
        "train-images",
    ),
    (
        "mnist-half",
        lambda tmp: data.load("mnist", root=half_mnist(tmp)),
        Value,
        "train-images-idx3-ubyte",
    ),
    (
        "cifar-missing",
        lambda tmp: data.load("cifar10", root=tmp, download=False),
        Missing,
        "data_batch_1",
    ),
    (
        "mvtec-missing",
        lambda tmp: data.load("mvtec-ad", category="pill", root=tmp),
        Missing,
        "'pill'",
    ),
    (
        "btad-missing",
        lambda tmp: data.load("btad", category="01", root=tmp),
        Missing,
        "'01'",
        "github",
    ),
    ("folder-missing", lambda tmp: data.from_folder(tmp / "no"), Missing, "path", "no"),
    ("folder-empty", lambda tmp: data.from_folder(tmp), Missing, "path", "train"),
    (
        "folder-no-images",
        lambda tmp: data.from_folder(without(tmp, "test/good/0.png")),
        Value,
        "test/good",
    ),
    (
        "image-text",
        lambda tmp: data.from_folder(with_text(tmp, "train/good/1.png")),
        Value,
        "good/1.png",
    ),
    (
        "image-size",
        lambda t: data.from_folder(with_size(t, "test/good/0.png")),
        Value,
        "good/0.png",
        "5×5",
    ),
    ("mask-missing", lambda t: data.from_folder(without(t, MASK)), Value, "1_mask"),
    ("mask-text", lambda t: data.from_folder(with_text(t, MASK)), Value, "1_mask"),
    ("mask-size", lambda t: data.from_folder(with_size(t, MASK)), Value, "8×8", "5×5"),
    (
        "archive-missing",
        lambda tmp: unpack(tmp / "no.tar", tmp / "out"),
        Missing,
        "archive",
        "no.tar",
    ),
    (
        "archive-text",
        lambda tmp: unpack(write(tmp / "a.tar", "text"), tmp / "out"),
        Value,
        "a.tar",
    ),
    (
        "archive-half",
        lambda tmp: unpack(halved(archive(tmp, "a")), tmp / "out"),
        Value,
        "packed.tar",
    ),
    (
        "archive-escapes",
        lambda tmp: unpack(archive(tmp, "../evil"), tmp / "out"),
        Value,
        "'../evil'",
    ),
    (
        "archive-absolute",
        lambda tmp: unpack(archive(tmp, "a/../../evil"), tmp / "out"),
        Value,
        "evil",
    ),
]


def folder_of(path):
    """A folder of short name: messages quote it, and must not pass the test, or become
    too long, by that.
    """
    folder = path / "x"
    folder.mkdir()
    return folder


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "error", "argument", "fragments"),
    [
        pytest.param(call, error, argument, fragments, id=name)
        for name, call, error, argument, *fragments in CASES
    ],
)
def test_bad_argument_is_refused(call, error, argument, fragments, tmp_path, capfd):
    with pytest.raises(error) as caught:
        call(folder_of(tmp_path))
    message = str(caught.value)
    assert message.startswith(argument), message
    missing = [text for text in ("expected", "got", *fragments) if text not in message]
    assert not missing, f"{missing} not in: {message}"
    assert len(message) < 500, "a message is read, not searched"
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "error", "fragments"),
    [
        pytest.param(call, error, fragments, id=name)
        for name, call, error, *fragments in FILES
    ],
)
def test_bad_file_is_named(call, error, fragments, tmp_path, capfd):
    with pytest.raises(error) as caught:
        call(folder_of(tmp_path))
    message = str(caught.value)
    missing = [text for text in fragments if text not in message]
    assert not missing, f"{missing} not in: {message}"
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "x" / "out").exists()
    assert not list(tmp_path.rglob("evil"))


def test_the_tables_are_long_and_their_names_unique():
    names = [name for name, *_ in CASES + FILES]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
