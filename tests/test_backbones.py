"""Backbones: what they read, where they stop, that making them fast changes nothing, and
texnet.
"""

import copy
import functools
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import interpolate

from adlab import backbones
from adlab.backbones import (
    LAYERS,
    NAMES,
    WEIGHTS,
    Backbone,
    Normalize,
    TexNet,
    check_backbone,
    concatenate,
)

STRIDES = {
    "texnet": (2, 4, 8),
    "resnet18": (4, 8, 16),
    "wide_resnet50_2": (4, 8, 16),
    "efficientnet_b5": (4, 16, 16),
}
CHANNELS = {
    "texnet": [32, 64, 128],
    "resnet18": [64, 128, 256],
    "wide_resnet50_2": [256, 512, 1024],
    "efficientnet_b5": [40, 128, 176],
}
BIG = [name for name in LAYERS if name != "texnet"]


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


@pytest.mark.parametrize(
    ("backbone", "layers", "error", "message"),
    [
        ("vgg", None, ValueError, "backbone: expected one of 'texnet', 'resnet18'"),
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
    monkeypatch.setattr(backbones, "_named", None)
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
