"""VT-ADL: a transformer that looks at an image patch by patch, a decoder that has to draw
the image again, and a density of the tokens in between.

    image ──▶ patches ──▶ linear + position ──▶ blocks of attention ──▶ tokens z_1 … z_N
    tokens ──▶ projection ──▶ transposed convolutions ──▶ reconstruction: global score
    tokens ──▶ mixture of Gaussians ──▶ -log p(z_n): local score

In the paper the parameters of the mixture are computed from the very token that it scores,
which is no density; here they are those of one mixture for all tokens.

Sources: Vaswani et al. 2017, "Attention is all you need"; Dosovitskiy et al. 2021, "An
image is worth 16 × 16 words"; Mishra, Verk, Fornasier, Piciarelli & Foresti 2021,
"VT-ADL: a vision transformer network for image anomaly detection and localization", ISIE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, softplus

from adlab import similarity
from adlab._checks import check_number
from adlab._maps import enlarge_and_blur
from adlab._methods import method
from adlab._parameters import Count, NonNegative, Positive, Whole
from adlab.detector import Localizer
from adlab.training import repeatable, resolve_device, seeded
from adlab.vectors import GaussianMixture

SMALLEST = 11  # pixels, the window of the SSIM

# -- patches


def to_patches(images: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W), cut into squares that do not overlap, row by row: (B, N, C ·
    size²).

    Args:
        size: side of a patch, in pixels; it divides H and W.

    Raises:
        TypeError, ValueError: a size that does not.
    """
    check_number("size", size, 1, whole=True)
    _check_divides(size, images.shape)
    b, c, height, width = images.shape
    rows, columns = height // size, width // size
    cut = images.reshape(b, c, rows, size, columns, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * size**2)


def _check_divides(size: int, shape: Sequence[int]) -> None:
    if any(n % size for n in shape[-2:]):
        raise ValueError(
            f"images: expected H and W that the side of a patch, {size}, divides, "
            f"got {tuple(shape)}"
        )


def from_patches(patches: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of `to_patches`: images (B, C, H, W), where shape is (C, H, W)."""
    c, height, width = shape
    b, _, length = patches.shape
    size = math.isqrt(length // c)
    rows, columns = height // size, width // size
    cut = patches.reshape(b, rows, columns, c, size, size)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(b, c, height, width)


# -- the transformer


def attention(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Every query takes a weighted mean of the values: softmax(Q Kᵀ / √d) V.

    Args:
        queries: (…, N, d).
        keys: (…, M, d).
        values: (…, M, e).

    Returns:
        The means (…, N, e), and the weights (…, N, M), which sum to one over M.

    Source: Vaswani et al. 2017, eq. 1.
    """
    alike = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    weights = alike.softmax(-1)
    return weights @ values, weights


class SelfAttention(nn.Module):
    """Attention of tokens (B, N, D) to one another, in several heads of D / n_heads
    numbers each.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, dim: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(dim, 3 * dim)
        self.join = nn.Linear(dim, dim)

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, N, D / heads)."""
        heads = self.project(tokens).unflatten(2, (3, self.n_heads, -1))
        return heads.permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape."""
        mixed = scaled_dot_product_attention(*self.split(tokens))
        return self.join(mixed.transpose(1, 2).flatten(2))

    def weights(self, tokens: Tensor) -> Tensor:
        """Who looks at whom: (B, heads, N, N), rows sum to one."""
        return attention(*self.split(tokens))[1]


class Block(nn.Module):
    """Tokens look at one another, then each thinks for itself; both are added to what
    was there, and normalised before, not after.

    Source: Dosovitskiy et al. 2021, eqs. 2 and 3.
    """

    def __init__(self, dim: int, n_heads: int):
        super().__init__()
        self.before_attention = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, n_heads)
        self.think = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, dim),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape."""
        tokens = tokens + self.attention(self.before_attention(tokens))
        return tokens + self.think(tokens)


class Encoder(nn.Module):
    """Images (B, C, H, W) to tokens (B, N, D), one a patch, each of mean 0 and variance
    1.

    Args:
        shape: (C, H, W).
        patch_size: side of a patch; it divides H and W.
        dim: D.
        depth: number of blocks.
        n_heads: of each; it divides D.
        positions: whether a learned vector for each place is added to its patch. Without
            them, other orders of the patches give the tokens in other orders, and nothing
            else.
    """

    def __init__(
        self,
        shape: Sequence[int],
        patch_size: int = 8,
        dim: int = 64,
        depth: int = 2,
        n_heads: int = 4,
        positions: bool = True,
    ):
        super().__init__()
        self.patch_size = patch_size
        n_patches = math.prod(shape[1:]) // patch_size**2
        self.embed = nn.Linear(shape[0] * patch_size**2, dim)
        # as large as embedded patches: small ones hardly grow, the decoder needs none
        places = 0.2 * torch.randn(n_patches, dim)
        self.places = nn.Parameter(places) if positions else None
        self.blocks = nn.ModuleList(Block(dim, n_heads) for _ in range(depth))
        self.normalise = nn.LayerNorm(dim, elementwise_affine=False)

    def embedded(self, images: Tensor) -> Tensor:
        """Patches, each for itself, before any attention: (B, N, D)."""
        tokens = self.embed(to_patches(images, self.patch_size))
        return tokens if self.places is None else tokens + self.places

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D)."""
        tokens = self.embedded(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.normalise(tokens)

    def attention_weights(self, images: Tensor) -> list[Tensor]:
        """Of each block, who looks at whom: (B, heads, N, N)."""
        tokens, found = self.embedded(images), []
        for block in self.blocks:
            found.append(block.attention.weights(block.before_attention(tokens)))
            tokens = block(tokens)
        return found


class Decoder(nn.Module):
    """Tokens (B, N, D) of a grid of patches to an image (B, C, H, W) in [0, 1], through
    one vector for the whole image.
    """

    def __init__(
        self, shape: Sequence[int], patch_size: int, dim: int, n_latent: int, width: int
    ):
        super().__init__()
        grid = [n // patch_size for n in shape[1:]]
        n_patches = math.prod(grid)
        self.project = nn.Linear(n_patches * dim, n_latent)
        layers: list[nn.Module] = [
            nn.Linear(n_latent, n_patches * width),
            nn.Unflatten(1, (width, *grid)),
        ]
        for factor in _prime_factors(patch_size):
            layers += [nn.GELU(), nn.ConvTranspose2d(width, width, factor, factor)]
        layers += [nn.GELU(), nn.Conv2d(width, shape[0], 3, padding=1), nn.Sigmoid()]
        self.draw = nn.Sequential(*layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        return self.draw(self.project(tokens.flatten(1)))


def _prime_factors(n: int) -> Iterator[int]:
    for factor in range(2, n + 1):
        while n % factor == 0:
            yield factor
            n //= factor


# -- the density of the tokens


def mixture_log_density(
    z: Tensor, logits: Tensor, means: Tensor, deviations: Tensor
) -> Tensor:
    """The logarithm of Σ_k w_k N(z; μ_k, diag σ_k²), (…).

    Args:
        z: (…, D).
        logits: (…, K), whose softmax are the weights w.
        means: μ, (…, K, D).
        deviations: σ > 0, (…, K, D).

    Source: Bishop 1994, "Mixture density networks", eqs. 22 and 29.
    """
    gaps = (z[..., None, :] - means) / deviations
    constants = deviations.log().sum(-1) + z.shape[-1] / 2 * math.log(2 * math.pi)
    return (logits.log_softmax(-1) - gaps.square().sum(-1) / 2 - constants).logsumexp(
        -1
    )


class SelfConditioned(nn.Module):
    """A mixture density network as in the paper: the parameters of the density of a token
    are computed from that token.

    With μ(z) = z and σ → 0 what it gives grows without bound: it is no density.

    Source: Mishra et al. 2021, eqs. 6 to 8; Bishop 1994, "Mixture density networks".
    """

    def __init__(self, dim: int, n_components: int):
        super().__init__()
        shape = nn.Unflatten(-1, (n_components, dim))
        self.logits = nn.Linear(dim, n_components)
        self.means = nn.Sequential(nn.Linear(dim, n_components * dim), shape)
        self.spread = nn.Sequential(nn.Linear(dim, n_components * dim), shape)

    def forward(self, z: Tensor) -> Tensor:
        """What the paper takes for the log-densities (…) of tokens (…, D)."""
        deviations = softplus(self.spread(z))
        return mixture_log_density(z, self.logits(z), self.means(z), deviations)


# -- the detector


@method("vt-adl", "VT-ADL", chapter=16)
@dataclass(eq=False, repr=False)
class VTADL(Localizer):
    """A vision transformer that learns to draw normal images again, and a mixture of
    Gaussians of its tokens.

    Trained with Adam on the squared error and one minus the SSIM of what the decoder
    draws. The map is -log p(z) of each patch, in nats, enlarged bilinearly; the score is
    its maximum over the patches plus the loss of the reconstruction, which is far
    smaller.

    Args:
        density: "mixture": one for all tokens, with full covariances, fitted by EM to
            those of the trained encoder. "self-conditioned", a control: as in the
            paper, its parameters are computed from the token itself, and the mean of
            what is taken for -log p(z) is part of the loss, for the encoder as well.
        score: "sum" of both terms; or one of them, "density" or "reconstruction".
        positions: whether tokens are told their place.
        patch_size: side of a patch, in pixels.
        dim: D, numbers of a token.
        depth: blocks.
        n_heads: of each block; they divide D.
        n_latent: numbers of the vector that the image is drawn from.
        width: channels of the decoder.
        n_components: Gaussians of the mixture.
        noise: standard deviation of what is added to the tokens, which have variance
            one, before their density is learned. For the mixture nothing is drawn: its
            square is added to the variances.
        error_weight, ssim_weight: of the two terms of the loss of the reconstruction.
        epochs: passes through the training images; 0 leaves the encoder at its random
            start, a control.
        lr: Adam's step size.
        batch_size: images per step.
        seed: of the first weights, the order, the noise, and the start of EM.
        device: "auto", "cpu", "cuda", …

    Height and width of the images are multiples of the patch size, and at least 11. The
    tokens of all training images are held in memory. The paper has images of 512 × 512
    pixels, patches of 64, 512 numbers, 6 blocks, 8 heads and 150 components.

    After `fit`: `encoder_`, an `Encoder`; `decoder_`; `mixture_`, a
    `adlab.vectors.GaussianMixture`, or `density_`, a `SelfConditioned`; and `history_`,
    the mean loss of each epoch.

    Raises:
        TypeError, ValueError: an argument out of its range.

    Source: Mishra, Verk, Fornasier, Piciarelli & Foresti 2021, "VT-ADL: a vision
    transformer network for image anomaly detection and localization", ISIE.
    """

    density: Literal["mixture", "self-conditioned"] = "mixture"
    score: Literal["sum", "density", "reconstruction"] = "sum"
    positions: bool = True
    patch_size: Count = 8
    dim: Count = 32
    depth: Count = 1
    n_heads: Count = 4
    n_latent: Count = 64
    width: Count = 16
    n_components: Count = 30
    noise: Positive = 0.05
    error_weight: NonNegative = 5.0
    ssim_weight: NonNegative = 0.5
    epochs: Whole = 40
    lr: Positive = 4e-3
    batch_size: Count = field(default=16, kw_only=True)

    def _check_arguments(self) -> None:
        if self.dim % self.n_heads:
            raise ValueError(
                f"dim: expected a multiple of n_heads = {self.n_heads}, got {self.dim}"
            )

    def _build(self) -> None:
        shape, size, dim = self.input_shape_, self.patch_size, self.dim
        self.encoder_ = Encoder(
            shape, size, dim, self.depth, self.n_heads, self.positions
        )
        self.decoder_ = Decoder(shape, size, dim, self.n_latent, self.width)
        if self.density == "self-conditioned":
            self.density_ = SelfConditioned(dim, self.n_components)

    def _fit(self, images: object) -> None:
        images = repeatable(images)
        self._check_sides(images, SMALLEST)
        _check_divides(self.patch_size, self.input_shape_)
        with seeded(self.seed):  # whatever was drawn to read the images
            self._build()
        self._train(images)
        if self.density == "mixture":
            self.mixture_ = self._fit_mixture(images)

    def _train(self, images: object) -> None:
        parts = [self.encoder_, self.decoder_, getattr(self, "density_", None)]
        networks = nn.ModuleList(part for part in parts if part is not None)
        networks.to(resolve_device(self.device)).eval()
        self.history_ = []
        if self.epochs:
            self.history_ = self._optimise(networks, self._loss, images)

    def _loss(self, images: Tensor) -> Tensor:
        tokens = self.encoder_(images)
        loss = self._error(images, tokens).mean()
        if self.density == "self-conditioned":
            noisy = tokens + self.noise * torch.randn_like(tokens)
            loss = loss - self.density_(noisy).mean()
        return loss

    def _error(self, images: Tensor, tokens: Tensor) -> Tensor:
        """The loss of the reconstruction, (B,)."""
        drawn = self.decoder_(tokens)
        error = similarity.mse(images, drawn)
        alike = similarity.ssim(images, drawn, data_range=1)
        return self.error_weight * error + self.ssim_weight * (1 - alike)

    def _fit_mixture(self, images: object) -> GaussianMixture:
        mixture = GaussianMixture(
            self.n_components,
            reg_covar=self.noise**2,
            seed=self.seed,
            device=self.device,
        )
        with torch.no_grad():
            return mixture.fit(
                self.encoder_(batch).flatten(0, 1) for batch in self._stream(images)
            )

    def _surprise(self, tokens: Tensor) -> Tensor:
        """-log p(z) of tokens (B, N, D): (B, N)."""
        if self.density == "self-conditioned":
            return -self.density_(tokens)
        flat = self.mixture_._score(tokens.flatten(0, 1))
        return flat.unflatten(0, tokens.shape[:2])

    def tokens(self, images: object) -> Tensor:
        """The tokens of the patches, row by row: float32 (N, patches, dim).

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda batch: self.encoder_(batch), images)

    def reconstruct(self, images: object) -> Tensor:
        """Images as the decoder draws them: float32 (N, C, H, W) in [0, 1].

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        return self._apply(lambda batch: self.decoder_(self.encoder_(batch)), images)

    def terms(self, images: object) -> tuple[Tensor, Tensor]:
        """The two terms of the score, each (N,): the largest -log p(z) of a patch, and the
        loss of the reconstruction.

        Raises:
            NotFittedError: `fit` was not called.
            TypeError, ValueError: images of another type, shape or range.
        """
        surprise, error = self._apply_all(self._terms, images)
        return surprise, error

    def _terms(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.encoder_(batch)
        return self._surprise(tokens).amax(1), self._error(batch, tokens)

    def _score(self, batch: Tensor) -> Tensor:
        surprise, error = self._terms(batch)
        if self.score == "sum":
            return surprise + error
        return surprise if self.score == "density" else error

    def _map(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[2:]
        surprise = self._surprise(self.encoder_(batch))
        grid = surprise.unflatten(1, (height // self.patch_size, -1))
        return enlarge_and_blur(grid, height, width, 0)
