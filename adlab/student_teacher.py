"""Student and teacher: where networks that learned to imitate another one on normal
images no longer manage to, something is not normal.

    image ──▶ teacher, frozen ──▶ y(r, c) ────────┐
      └─────▶ M students ──▶ μ₁(r, c), …, μ_M(r, c) ┴──▶ error e, variance v ──▶ map

Every network describes the patch around a place (r, c) by a vector, and runs over a
whole image at once. Images are mirrored at their borders.

Source: Bergmann, Fauser, Sattlegger and Steger, Uninformed students: student–teacher
anomaly detection with discriminative latent embeddings, CVPR 2020.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torch.utils.data import Dataset, random_split

from adlab._checks import check_number
from adlab._maps import enlarge_and_blur
from adlab._methods import method
from adlab._parameters import (
    Count,
    Fraction,
    ImageScore,
    NonNegative,
    Positive,
    TwoOrMore,
    check_hint,
)
from adlab.backbones import (
    Backbone,
    backbone_of,
    check_backbone,
    concatenate,
    usual_layers,
)
from adlab.detector import Localizer
from adlab.training import resolve_device, seeded
from adlab.vectors import Moments

# -- networks that describe patches


class PatchNetwork(nn.Module):
    """A network that describes a patch by a vector, and all patches of an image at
    once.

    Its convolutions see nothing beyond the borders of what they are given (they are
    "valid"), and the later ones are dilated instead of pooled. So what it says about a
    patch, in eval mode, is the same whether the patch comes alone or within an image.
    Batch norms, which the paper has not, halve the training.

    Args:
        channels: of the images.
        n_features: length d of a description.
        receptive_field: side p of the patch, in pixels: 2ᵏ + 1, above 2 · stride.
        stride: pixels from one described patch to the next, a power of two.
        width: channels of the hidden layers.

    Raises:
        ValueError, TypeError: an argument out of its range.
    """

    def __init__(
        self,
        channels: int,
        n_features: int,
        receptive_field: int = 33,
        stride: int = 4,
        width: int = 32,
    ):
        super().__init__()
        check_number("channels", channels, 1, whole=True)
        check_number("n_features", n_features, 1, whole=True)
        check_number("width", width, 1, whole=True)
        _check_power_of_two("stride", stride)
        _check_power_of_two("receptive_field", receptive_field, plus=1)
        check_number("receptive_field", receptive_field, 2 * stride + 1)
        self.receptive_field, self.stride = receptive_field, stride
        layers, inside = [], channels
        for options in _convolutions(receptive_field, stride):
            convolution = nn.Conv2d(inside, width, bias=False, **options)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            inside = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(inside, n_features, 1))
        self.to(memory_format=torch.channels_last)  # much faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """Descriptions of the patches inside images: (N, C, H, W) to (N, d, h, w).

        Entry (i, j) describes the patch whose upper left pixel is (stride · i, stride ·
        j). A patch (N, C, p, p) gives (N, d, 1, 1).
        """
        return self.layers(x.contiguous(memory_format=torch.channels_last))

    def dense(self, x: Tensor) -> Tensor:
        """Descriptions of the patches around the pixels 0, stride, 2 · stride, … of
        images mirrored at their borders: (N, C, H, W) to (N, d, ⌈H / stride⌉, ⌈W /
        stride⌉).
        """
        return self(pad(x, [self.receptive_field // 2] * 4, mode="reflect"))


def _convolutions(receptive_field: int, stride: int) -> list[dict[str, int]]:
    """Options of the convolutions: first those with a stride, then those with ever
    wider dilations.
    """
    n_halvings = round(math.log2(stride))
    n_dilated = round(math.log2((receptive_field - 1) // (2 * stride)))
    first = {"kernel_size": 5, "stride": 2} if n_halvings else {"kernel_size": 3}
    halving = {"kernel_size": 3, "stride": 2}
    dilated = [{"kernel_size": 3, "dilation": 2**i} for i in range(n_dilated)]
    return [first, *[halving] * (n_halvings - 1), *dilated]


def _check_power_of_two(name: str, value: object, plus: int = 0) -> None:
    check_number(name, value, 1, whole=True)
    power = int(value) - plus
    if power < 1 or power & (power - 1):
        more = f" + {plus}" if plus else ""
        raise ValueError(f"{name}: expected a power of two{more}, got {value}")


# -- losses of a teacher


def compactness_loss(descriptions: Tensor) -> Tensor:
    """How much the features of descriptions (N, d) repeat one another, in [0, 1].

    It is the mean squared correlation of two different features, over the N
    descriptions. Source: section 3.1, where the correlations are summed as they are.
    """
    correlation = correlation_matrix(descriptions)
    d = len(correlation)
    return (correlation.square().sum() - d) / (d * (d - 1))


def correlation_matrix(descriptions: Tensor) -> Tensor:
    """Correlations (d, d) of the features of descriptions (N, d)."""
    centred = descriptions - descriptions.mean(0)
    scaled = centred / centred.norm(dim=0).clamp_min(1e-6)
    return scaled.T @ scaled


def triplet_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0
) -> Tensor:
    """By how much a patch fails to be nearer to a variant of itself than to another
    patch.

    Args:
        anchor, positive, negative: descriptions (N, d, …).
        margin: by which it should be nearer, in squared distance.

    Returns:
        (N, …), 0 where it is. The other patch is held against whichever of the two it
        is nearer to: the anchor swap of Balntas et al., "Learning local feature
        descriptors with triplets and shallow convolutional neural networks", BMVC 2016.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1)

    far = torch.minimum(distance(anchor, negative), distance(positive, negative))
    return (margin + distance(anchor, positive) - far).clamp_min(0)


def augment(
    images: Tensor, shift: int, brightness: float = 0.1, noise: float = 0.03
) -> Tensor:
    """Images (N, C, H, W) a little moved (by at most `shift` pixels), lit otherwise, and
    with Gaussian noise.
    """
    n, _, height, width = images.shape
    padded = pad(images, [shift] * 4, mode="reflect")
    corners = torch.randint(2 * shift + 1, (n, 2)).tolist()
    moved = torch.stack(
        [
            image[:, i : i + height, j : j + width]
            for image, (i, j) in zip(padded, corners, strict=True)
        ]
    )
    light = brightness * (2 * torch.rand(n, 1, 1, 1) - 1)
    return moved + light.to(moved) + noise * torch.randn(moved.shape).to(moved)


# -- score


def error_and_variance(predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two signs of an anomaly at every place.

    Args:
        predictions: of M students, (B, M, d, h, w).
        target: features of the teacher, (B, d, h, w).

    Returns:
        e, the squared distance of the students' mean from the teacher, and v, the mean
        squared distance of the students from their mean; each (B, h, w), at least 0.

    Source: equations 8 and 9; the variance is centred here, so that nothing cancels.
    """
    mean = predictions.mean(1)
    error = (mean - target).square().sum(1)
    variance = (predictions - mean[:, None]).square().sum(2).mean(1)
    return error, variance


def enlarge(maps: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Maps (B, h, w) of the pixels 0, stride, 2 · stride, … to maps of all pixels (B,
    height, width).

    Bilinear between them; pixels after the last one take its value.
    """
    size = [stride * (n - 1) + 1 for n in maps.shape[1:]]
    between = interpolate(maps[:, None], size, mode="bilinear", align_corners=True)
    rest = [0, width - size[1], 0, height - size[0]]
    return pad(between, rest, mode="replicate")[:, 0]


# -- detector

STRIDE = 4  # of a teacher that learns from no backbone
Teacher = Literal["backbone", "distilled", "triplet"]
Term = Literal["both", "error", "variance"]


@method("student-teacher", "students", chapter=8, options={"backbone": "texnet"})
@dataclass(eq=False, repr=False)
class StudentTeacher(Localizer):
    """Students learn to say of normal images what a teacher says; the score is how far
    they miss it, and how much they disagree.

    The features of the teacher are standardised, channel by channel, over the training
    images; but no channel is divided by less than half the median deviation, or one
    that hardly ever moves on normal images would drown the others. Error and variance
    are standardised by constants from training images that were held out, and summed.
    Images that come neither as a tensor, an array or an ImageSet nor as a map-style
    Dataset are held in memory.

    Args:
        teacher: "backbone", layers of a trained network; "distilled", a small
            `PatchNetwork` that has learned to say the same, in few features that do not
            repeat one another; or "triplet", one that has learned from the training
            images alone to know patches again.
        n_students: M; with one there is no variance, and the score is the error.
        receptive_field: side p of the patches that the students see, and the teacher
            with them if it is no backbone: 2ᵏ + 1 pixels.
        term: of the score: "both", "error" or "variance". May be changed after fitting.
        backbone: name or nn.Module, as for `adlab.backbones.Backbone`.
        layers: of the backbone, to be read, one or more; None for the middle one of the
            usual three.
        n_features: length of the descriptions of a distilled or a triplet teacher.
        width: channels of the hidden layers of students and such teachers.
        epochs: passes of the students through the training images.
        teacher_epochs: passes of a teacher that has to be trained.
        lr: Adam's step size, of both.
        val_fraction: share of the training images that is held out.
        sigma: of the Gaussian that smooths the map, in pixels; 0 for none.
        image_score: "max" or "mean" of the map.
        seed: of the networks, the held-out images, their order and the augmentation.
        device: "auto", "cpu", "cuda", …

    After `fit`: `students_`, independent networks; `teacher_`, one of them, unless it
    is a backbone; `history_`, the loss of each epoch, summed over the students;
    `teacher_history_`.

    Source: Bergmann et al., CVPR 2020.
    """

    any_size = True

    teacher: Teacher = "backbone"
    n_students: Count = 3
    receptive_field: Annotated[int, partial(_check_power_of_two, plus=1)] = 33
    term: Term = "both"
    backbone: str | nn.Module = "texnet"
    layers: Sequence[str] | None = None
    n_features: TwoOrMore = 32
    width: Count = 32
    epochs: Count = 10
    teacher_epochs: Count = 10
    lr: Positive = 5e-3
    val_fraction: Fraction = 0.2
    sigma: NonNegative = 0
    image_score: ImageScore = "max"
    batch_size: Count = field(default=4, kw_only=True)

    def _check_arguments(self) -> None:
        _check_term(self.term, self.n_students)
        check_backbone(self.backbone, self.layers)

    # what a user calls

    def target(self, images: object) -> Tensor:
        """What the teacher says, standardised: float32 (N, d, h, w).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._target, images)

    def predict(self, images: object) -> Tensor:
        """What the students say instead: float32 (N, M, d, h, w).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(self._predict, images)

    # learning

    def _fit(self, images: object) -> None:
        images = self._as_dataset(images)
        for batch in self._stream(images):  # all are checked before the training begins
            _check_size(batch, self.receptive_field)
        learn, held_out = _hold_out(images, self.val_fraction, self.seed)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._probe()
            self._build_patch_networks()
        if self.teacher != "backbone":
            self._teach(learn)
            vars(self).pop("network_", None)  # it has said what it knows
        self.mean_, std = self._statistics(self._features, learn)
        self.std_ = std.clamp_min(std.median() / 2)  # see the class
        self.history_ = self._optimise(self.students_, self._student_loss, learn)
        self.term_mean_, self.term_std_ = self._statistics(self._terms, held_out)

    def _probe(self) -> None:
        """Find out what the teacher gives: the channels and the stride of its maps."""
        self.n_channels_, self.stride_ = self.n_features, STRIDE
        if self.teacher == "triplet":
            return
        self.network_ = self._mirroring_backbone()
        probe = torch.zeros(1, *self.input_shape_).to(resolve_device(self.device))
        knowledge = self._knowledge(probe)
        self.stride_ = _stride(probe.shape[2:], knowledge.shape[2:])
        if self.teacher == "backbone":
            self.n_channels_ = knowledge.shape[1]

    def _build(self) -> None:
        if self.teacher == "backbone":
            self.network_ = self._mirroring_backbone(trained=False)
        self._build_patch_networks()

    def _build_patch_networks(self) -> None:
        if self.teacher != "backbone":
            self.teacher_ = self._patch_network().requires_grad_(False).eval()
        self.students_ = nn.ModuleList(
            self._patch_network() for _ in range(self.n_students)
        )

    def _mirroring_backbone(self, trained: bool = True) -> Backbone:
        """The backbone, made to mirror what it reads at the borders, as the students
        do.
        """
        layers = self.layers or usual_layers(self.backbone)[1:2]
        network = backbone_of(self, layers, trained=trained)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                module.padding_mode = "reflect"
        return network

    def _patch_network(self) -> PatchNetwork:
        size = self.n_channels_, self.receptive_field, self.stride_, self.width
        network = PatchNetwork(self.input_shape_[0], *size)
        return network.to(resolve_device(self.device))

    def _statistics(
        self, function: Callable[[Tensor], Tensor], images: Dataset
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of function(batch), over all
        places: (d, 1, 1) both.
        """
        moments = Moments(diagonal=True)
        with torch.no_grad():
            for batch in self._stream(images):
                moments.update(_rows(function(batch)))
        std = (moments.scatter / moments.count).sqrt()
        std = torch.where(std > 0, std, 1)
        return moments.mean.float()[:, None, None], std.float()[:, None, None]

    # the teacher

    def _teach(self, images: Dataset) -> None:
        """Train the teacher, and freeze it."""
        self.teacher_.requires_grad_(True)
        method = self._distil if self.teacher == "distilled" else self._self_supervise
        self.teacher_history_ = method(images)
        self.teacher_.requires_grad_(False)

    def _distil(self, images: Dataset) -> list[float]:
        """Let the teacher learn features from which a linear decoder tells those of the
        backbone.
        """
        mean, std = self._statistics(self._knowledge, images)
        with seeded(self.seed + 1):
            decoder = nn.Conv2d(self.n_features, len(mean), 1)

        def loss(batch: Tensor) -> Tensor:
            descriptions = self.teacher_.dense(batch)
            knowledge = (self._knowledge(batch) - mean) / std
            misses = decoder(descriptions) - knowledge
            return misses.square().mean() + compactness_loss(_rows(descriptions))

        both = nn.ModuleList([self.teacher_, decoder])
        return self._optimise(both, loss, images, epochs=self.teacher_epochs)

    def _self_supervise(self, images: Dataset) -> list[float]:
        """Let the teacher learn to know patches again, from among those of other images
        and places.
        """

        def loss(batch: Tensor) -> Tensor:
            anchor = self.teacher_.dense(batch)
            variant = augment(batch, max(1, self.receptive_field // 8))
            positive = self.teacher_.dense(variant)
            _, _, h, w = anchor.shape
            negative = anchor.roll((1, h // 2, w // 2), (0, 2, 3))
            losses = triplet_loss(anchor, positive, negative)
            return losses.mean() + compactness_loss(_rows(anchor))

        return self._optimise(self.teacher_, loss, images, epochs=self.teacher_epochs)

    def _knowledge(self, batch: Tensor) -> Tensor:
        """The features of the backbone, those of several layers together."""
        return concatenate(self.network_(batch))

    def _features(self, batch: Tensor) -> Tensor:
        """What the teacher says: (B, C, H, W) to (B, d, h, w)."""
        with torch.no_grad():
            if self.teacher == "backbone":
                return self._knowledge(batch)
            return self.teacher_.dense(batch)

    # students and score

    def _target(self, batch: Tensor) -> Tensor:
        return (self._features(batch) - self.mean_) / self.std_

    def _predict(self, batch: Tensor) -> Tensor:
        return torch.stack([student.dense(batch) for student in self.students_], 1)

    def _student_loss(self, batch: Tensor) -> Tensor:
        """Mean squared error over features, places and images, summed over students:
        each learns as it would alone.
        """
        misses = self._predict(batch) - self._target(batch)[:, None]
        return misses.square().mean((0, 2, 3, 4)).sum()

    def _terms(self, batch: Tensor) -> Tensor:
        """Error and variance, (B, 2, h, w)."""
        both = error_and_variance(self._predict(batch), self._target(batch))
        return torch.stack(both, 1)

    def _map(self, batch: Tensor) -> Tensor:
        _check_term(self.term, self.n_students)
        _check_size(batch, self.receptive_field)
        terms = (self._terms(batch) - self.term_mean_) / self.term_std_
        error, variance = terms.unbind(1)  # one student's variance is 0 throughout
        maps = {"both": error + variance, "error": error, "variance": variance}
        size = tuple(batch.shape[2:])
        enlarged = enlarge(maps[self.term], self.stride_, *size)
        return enlarge_and_blur(enlarged, *size, self.sigma) if self.sigma else enlarged


@dataclass(eq=False, repr=False)
class MultiScale(Localizer):
    """Students of several receptive fields: the map is the mean of theirs.

    Each brings error and variance in units of its own standard deviation on held-out
    normal images, so no scale outweighs another.

    Args:
        detector: the `StudentTeacher` to be fitted once a scale; its seed counts.
        receptive_fields: sides p of the patches, 2ᵏ + 1 pixels each.
        image_score: "max" or "mean" of the map.
        seed: unused, here as in every detector.
        device: "auto", "cpu", "cuda", …

    Source: Bergmann et al., CVPR 2020, equation 11.
    """

    any_size = True

    detector: StudentTeacher
    receptive_fields: Sequence[int] = (17, 33, 65)
    image_score: ImageScore = "max"
    batch_size: Count = field(default=4, kw_only=True)

    def _check_arguments(self) -> None:
        if not isinstance(self.detector, StudentTeacher):
            raise TypeError(
                f"detector: expected a StudentTeacher, got {type(self.detector).__name__}"
            )
        fields = self.receptive_fields
        if isinstance(fields, str) or not isinstance(fields, Sequence):
            raise TypeError(
                f"receptive_fields: expected a sequence of numbers, got {fields!r}"
            )
        if not fields or len(set(fields)) < len(fields):
            raise ValueError(
                f"receptive_fields: expected different numbers, got {fields!r}"
            )
        for p in fields:
            _check_power_of_two("receptive_fields", p, plus=1)

    def _fit(self, images: object) -> None:
        images = self._as_dataset(images)
        next(self._stream(images))  # remembers the shape of an image
        for p in self.receptive_fields:
            scale = copy.copy(self.detector)
            scale.receptive_field, scale.device = p, self.device
            setattr(self, f"scale_{p}_", scale.fit(images))

    def _map(self, batch: Tensor) -> Tensor:
        scales = [getattr(self, f"scale_{p}_") for p in self.receptive_fields]
        return torch.stack([scale._map(batch) for scale in scales]).mean(0)


# -- data


def _hold_out(images: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Images to learn from, and others that are held out."""
    n = len(images)
    n_held_out = max(1, round(fraction * n))
    if n_held_out == n:
        raise ValueError(
            f"images: expected more, to learn from some and hold out {fraction:g} of them; got {n}"
        )
    generator = torch.Generator().manual_seed(seed)
    return tuple(random_split(images, [n - n_held_out, n_held_out], generator))


def _rows(features: Tensor) -> Tensor:
    """Feature maps (B, d, h, w) as vectors (B · h · w, d)."""
    return features.movedim(1, -1).flatten(0, 2)


def _stride(image: Sequence[int], feature_map: Sequence[int]) -> int:
    """From one entry of a map to the next, in pixels; at borders a map is rounded up."""
    longest = max(range(2), key=lambda i: image[i])
    stride = 2 ** round(math.log2(image[longest] / feature_map[longest]))
    if tuple(feature_map) != tuple(math.ceil(side / stride) for side in image):
        raise ValueError(
            "layers: expected maps of H / 2**k, W / 2**k, rounded up, "
            f"got {tuple(feature_map)} of images {tuple(image)}"
        )
    return stride


def _check_size(batch: Tensor, receptive_field: int) -> None:
    """An image can be mirrored by no more than its own size."""
    if min(batch.shape[2:]) <= receptive_field // 2:
        raise ValueError(
            f"images: expected H, W above half of receptive_field = {receptive_field}, "
            f"got {tuple(batch.shape)}"
        )


def _check_term(term: str, n_students: int) -> None:
    check_hint("term", term, Term)
    if term == "variance" and n_students == 1:
        raise ValueError("n_students: expected at least 2 for a variance, got 1")
