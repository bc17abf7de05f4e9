"""Zero-shot: words say what is normal and what is not; no image of the product is needed.

    images ──▶ network ──▶ unit vectors ─┐
                                         ├─▶ cosine: does this text fit this image?
    texts ───▶ words ────▶ unit vectors ─┘

The joint embedding of images and texts is learned from images with captions, so that each
image fits its own. Then "flawless wood" and "damaged wood" are two vectors, and the score
of an image is its probability of the second. Few-shot: a memory of a few normal images is
asked besides.

Ours is a toy: it knows 6 generated materials and 31 words. The formulas are those of the
large ones.

Source: Radford et al. 2021, "Learning transferable visual models from natural language
supervision", ICML (CLIP); Jeong, Zou, Kim, Zhang, Ravichandran & Dabeer 2023, "WinCLIP:
zero-/few-shot anomaly classification and segmentation", CVPR.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    avg_pool2d,
    conv_transpose2d,
    cross_entropy,
    normalize,
)

from adlab._checks import check_counts, check_number
from adlab._maps import enlarge_and_blur
from adlab._parameters import Count, Counts
from adlab.backbones import Backbone
from adlab.detector import Localizer
from adlab.training import minimise, resolve_device, seeded, stream

WEIGHTS = Path(__file__).parent / "weights" / "joint.safetensors"
GRID = 16  # places along a side
HIDDEN, DIMENSIONS = 128, 64  # channels of a place; numbers of a vector
BATCH, RATE = 128, 3e-3  # of the pretraining: pairs, and Adam's largest step size
SCALE, LARGEST_SCALE = 1 / 0.07, 100.0  # of the cosines, at the start and at most
WORDS = (
    *("a", "bright", "carpet", "clean", "close", "cloth", "damaged", "dark"),
    *("defective", "flaw", "flawless", "gauze", "hole", "intact", "new", "of", "old"),
    *("perfect", "photo", "picture", "pierced", "scratch", "scratched", "stain"),
    *("stained", "stone", "tiles", "view", "with", "without", "wood"),
)


# -- the joint embedding


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """How badly images and texts find each other, the mean of two cross-entropies: over
    the texts for each image, and over the images for each text.

    Args:
        images, texts: unit vectors (N, D); row i of one belongs to row i of the other.
        scale: of the cosines, 1 / τ.

    Returns:
        A scalar; ln N where nothing is told apart.

    Raises:
        ValueError: vectors of other shapes.

    Source: Radford et al. 2021, figure 3.
    """
    if images.shape != texts.shape or images.ndim != 2:
        raise ValueError(
            f"texts: expected (N, D), as the images, got {tuple(images.shape)} and "
            f"{tuple(texts.shape)}"
        )
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


class JointEmbedding(nn.Module):
    """Images and texts as unit vectors in one space.

    An image goes through two layers of texnet, which is frozen, to 16 × 16 places, and
    each place through a layer of its own. The mean over all places, or over those of a
    window, is projected. A text is the mean of its words' vectors: their order is lost,
    and a word that is not known says nothing.

    Args:
        words: the known ones, in lower case.

    Raises:
        TypeError: no list of words.
    """

    def __init__(self, words: Sequence[str] = WORDS):
        super().__init__()
        if isinstance(words, str) or not words:
            raise TypeError(f"words: expected a list of words, got {words!r}")
        self.rows = {word: i for i, word in enumerate(words)}
        self.backbone = Backbone("texnet", ["layer1", "layer2"])
        n_channels = sum(self.backbone.channels)
        self.standard = nn.BatchNorm2d(n_channels, affine=False)
        self.place = nn.Conv2d(n_channels, HIDDEN, 1)
        self.project = nn.Linear(HIDDEN, DIMENSIONS)
        self.words = nn.EmbeddingBag(len(self.rows), DIMENSIONS)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    @property
    def scale(self) -> Tensor:
        """The factor 1 / τ of the cosines, which is learned, and at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What texnet says of images (B, 1 or 3, H, W) in [0, 1]: (B, 96, 16, 16)."""
        maps = [adaptive_avg_pool2d(each, GRID) for each in self.backbone(images)]
        return torch.cat(maps, 1)

    def places(self, features: Tensor) -> Tensor:
        """(B, 96, 16, 16) to (B, 128, 16, 16)."""
        return self.place(self.standard(features)).relu()

    def whole(self, features: Tensor) -> Tensor:
        """Unit vectors of images, (B, 64), from their features."""
        return normalize(self.project(self.places(features).mean((2, 3))), dim=1)

    def windows(self, features: Tensor, side: int) -> Tensor:
        """Unit vectors of all windows of side × side places, (B, h, w, 64), with h = w =
        17 - side.
        """
        means = avg_pool2d(self.places(features), side, 1).permute(0, 2, 3, 1)
        return normalize(self.project(means), dim=3)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, (N, 64).

        Raises:
            TypeError, ValueError: no list of texts, or a text without a known word.
        """
        rows = [self._rows_of(text) for text in _checked("texts", texts)]
        starts = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
        flat, device = torch.tensor([*chain(*rows)]), self.log_scale.device
        return normalize(self.words(flat.to(device), starts.to(device)), dim=1)

    def _rows_of(self, text: str) -> list[int]:
        """The known words of a text."""
        found = [self.rows.get(word) for word in re.findall("[a-z]+", text.lower())]
        known = [row for row in found if row is not None]
        if not known:
            raise ValueError(
                f"texts: expected a known word in each, as {[*self.rows][:3]}, got {text!r}"
            )
        return known


def _checked(name: str, texts: object) -> Sequence[str]:
    """Refuse what is no list of texts."""
    if not isinstance(texts, list | tuple) or not all(
        isinstance(text, str) for text in texts
    ):
        raise TypeError(f"{name}: expected a list of texts, got {texts!r}")
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got none")
    return texts


def pretrain(
    images: object, captions: Sequence[str], epochs: int = 20, seed: int = 0
) -> tuple[JointEmbedding, list[float]]:
    """Learn a joint embedding of images and their captions, by Adam, in one cycle.

    The features of texnet, 98 kB an image, are computed once and held in memory.

    Args:
        images: (N, C, H, W) in [0, 1].
        captions: N texts; their words, in lower case, are the known ones.
        epochs: passes through the images.
        seed: of the weights and of the order.

    Returns:
        The embedding, and the mean loss of each epoch.

    Raises:
        TypeError, ValueError: images and captions that do not fit; no number of epochs.
    """
    words = {word for text in _checked("captions", captions) for word in text.split()}
    check_number("epochs", epochs, 1, whole=True)
    with seeded(seed):
        joint = JointEmbedding(sorted(words))
        features = torch.cat([joint.features(batch) for batch in stream(images)])
        if len(features) != len(captions):
            raise ValueError(
                f"captions: expected {len(features)}, one an image, got {len(captions)}"
            )
        return joint, _learn(joint, features, captions, epochs)


def _learn(
    joint: JointEmbedding, features: Tensor, captions: Sequence[str], epochs: int
) -> list[float]:
    """Minimise the contrastive loss over batches in random order."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(features)).split(BATCH):
            yield features[rows], rows

    def loss(part: Tensor, rows: Tensor) -> Tensor:
        own = joint.texts([captions[i] for i in rows.tolist()])
        return contrastive_loss(joint.whole(part), own, joint.scale)

    optimizer = torch.optim.Adam(joint.parameters(), RATE)
    steps = epochs * math.ceil(len(features) / BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    return minimise(joint, loss, batches, optimizer, epochs=epochs, schedule=cycle)


def joint_embedding() -> JointEmbedding:
    """The one that comes with the package, by tools/joint.py: 6 generated materials, and
    31 words.
    """
    from safetensors.torch import load_file

    joint = JointEmbedding()
    joint.load_state_dict(load_file(WEIGHTS), strict=False)
    return joint.eval()


# -- the score


def prompt_embedding(
    joint: JointEmbedding,
    states: Sequence[str],
    templates: Sequence[str] = ("{}",),
    material: str = "",
) -> Tensor:
    """One unit vector for a class that many texts describe: the direction of their mean.

    Args:
        joint: the embedding.
        states: texts with a place for the material, as "damaged {}".
        templates: texts with a place for that, as "a photo of {}".
        material: the word for what is seen.

    Returns:
        (64,).

    Raises:
        TypeError, ValueError: no texts, or one without a known word.
    """
    named = [state.format(material) for state in _checked("states", states)]
    lines = [t.format(n) for t in _checked("templates", templates) for n in named]
    return normalize(joint.texts(lines).mean(0), dim=0)


def anomaly_probability(vectors: Tensor, prompts: Tensor, scale: Tensor) -> Tensor:
    """The probability of the second of two texts, by the softmax of scaled cosines.

    Args:
        vectors: unit vectors of images or windows, (…, D).
        prompts: of what is normal and what is not, (2, D).
        scale: of the cosines, 1 / τ.

    Returns:
        (…), in [0, 1].
    """
    return (scale * vectors @ prompts.T).softmax(-1)[..., 1]


def harmonic_mean(values: Sequence[Tensor]) -> Tensor:
    """Of several tensors of one shape, place by place: n / Σ 1 / v; 0 where one is 0."""
    return len(values) / sum(1 / value for value in values)


def over_windows(values: Tensor, side: int) -> Tensor:
    """From a value for each window to a value for each place: the harmonic mean over the
    windows that it lies in.

    Args:
        values: not negative, (B, h, w), of all windows of side × side places.
        side: of a window.

    Returns:
        (B, h + side - 1, w + side - 1).

    Source: Jeong et al. 2023, section 4.2.
    """
    ones = torch.ones(1, 1, side, side).to(values)
    count = conv_transpose2d(torch.ones_like(values[:1, None]), ones)
    return (count / conv_transpose2d(1 / values[:, None], ones))[:, 0]


def distance(vectors: Tensor, memory: Tensor) -> Tensor:
    """½ (1 - the largest cosine with a vector of the memory), in [0, 1].

    Args:
        vectors: unit vectors (B, h, w, D).
        memory: unit vectors (R, D).

    Returns:
        (B, h, w).
    """
    return ((1 - (vectors @ memory.T).amax(-1)) / 2).clamp(min=0)


# -- the detector

NORMAL = ("flawless {}", "perfect {}", "intact {}", "{} without a flaw")
ANOMALOUS = ("damaged {}", "defective {}", "{} with a flaw")
TEMPLATES = ("{}", "a photo of {}", "a picture of {}", "a close view of {}")


@dataclass(eq=False, repr=False)
class ZeroShot(Localizer):
    """How probable a text of what is anomalous is, beside one of what is normal: of the
    whole image, and for the map of its windows.

    Without a memory it learns nothing from images: `fit` looks at their shape only. With
    a memory of all windows of its training images it is few-shot: the map adds the
    distance to the nearest remembered one, ½ (1 - cosine), a mean over the sides; the
    score is the mean of the probability of the whole and of the highest such distance.

    Args:
        material: what is inspected, as "wood"; a word that is not known, as "surface",
            says nothing.
        normal, anomalous: texts with "{}" for the material.
        templates: texts with "{}" for those.
        sides: of the windows, in sixteenths of the image's side.
        memory: whether windows of the training images are remembered.
        embedding: None for the one that comes with the package, or one of one's own.

    Source: Jeong et al. 2023, sections 4 and 5. There the network is CLIP's, each window
    goes through it by itself, and the memory holds single patches, too.
    """

    material: str = "surface"
    normal: Sequence[str] = NORMAL
    anomalous: Sequence[str] = ANOMALOUS
    templates: Sequence[str] = TEMPLATES
    sides: Counts = (4, 8)
    memory: bool = False
    embedding: JointEmbedding | None = None
    batch_size: Count = field(default=64, kw_only=True)

    def _check_arguments(self) -> None:
        check_counts("sides", self.sides, GRID)
        for name in ("normal", "anomalous", "templates"):
            _checked(name, getattr(self, name))

    def _build(self) -> None:
        self.joint_ = JointEmbedding()

    @torch.no_grad()
    def _fit(self, images: object) -> None:
        self.joint_ = copy.deepcopy(self.embedding) or joint_embedding()
        self.joint_.to(resolve_device(self.device)).eval()
        self.prompts_ = torch.stack(
            [
                prompt_embedding(self.joint_, states, self.templates, self.material)
                for states in (self.normal, self.anomalous)
            ]
        )
        if self.memory:
            self._remember(images)
        else:
            for _ in self._stream(images):  # to know their shape
                pass

    def _remember(self, images: object) -> None:
        """All windows of all images, those of one side after those of the other."""
        batches = [self._windows(self._features(b)) for b in self._stream(images)]
        sides = [torch.cat(each) for each in zip(*batches, strict=True)]
        vectors = [each.flatten(0, 2) for each in sides]
        self.lengths_ = [len(each) for each in vectors]
        self.memory_ = torch.cat(vectors)

    def _features(self, batch: Tensor) -> Tensor:
        return self.joint_.features(batch)

    def _windows(self, features: Tensor) -> list[Tensor]:
        """Unit vectors of the windows of each side."""
        return [self.joint_.windows(features, side) for side in self.sides]

    def _probability(self, vectors: Tensor) -> Tensor:
        return anomaly_probability(vectors, self.prompts_, self.joint_.scale)

    def _whole(self, features: Tensor) -> Tensor:
        """The probability that the image is anomalous, (B,)."""
        return self._probability(self.joint_.whole(features))

    def _by_words(self, features: Tensor) -> Tensor:
        """At each place the harmonic mean over the sides and the whole, (B, 16, 16)."""
        whole = self._whole(features)[:, None, None].expand(-1, GRID, GRID)
        pairs = zip(self._windows(features), self.sides, strict=True)
        parts = [over_windows(self._probability(w), side) for w, side in pairs]
        return harmonic_mean([whole, *parts])

    def _by_memory(self, features: Tensor) -> Tensor:
        """At each place the mean over the sides of the distance to the nearest window
        remembered, (B, 16, 16).
        """
        memories = self.memory_.split(self.lengths_)
        triples = zip(self._windows(features), self.sides, memories, strict=True)
        parts = [over_windows(distance(w, kept), side) for w, side, kept in triples]
        return torch.stack(parts).mean(0)

    def _map(self, batch: Tensor) -> Tensor:
        features = self._features(batch)
        maps = self._by_words(features)
        if self.memory:
            maps = maps + self._by_memory(features)
        return enlarge_and_blur(maps, *batch.shape[2:], 0)

    def _score(self, batch: Tensor) -> Tensor:
        features = self._features(batch)
        score = self._whole(features)
        if self.memory:
            score = (score + self._by_memory(features).flatten(1).amax(1)) / 2
        return score
