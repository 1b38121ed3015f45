"""Images and networks that do not fit into memory are refused before they are allocated."""

import attrs
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from curricula import build_model, load_data
from curricula.errors import UserError
from curricula.models import small, wide
from curricula.runtime import memory


class SmallTensors(TorchDispatchMode):
    """Refuse tensors of more than 1 MB."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not made.is_meta:
            assert made.nbytes < 10**6, f"allocated {made.nbytes:,} bytes"
        return made


@pytest.fixture
def small_machine(monkeypatch):
    """A machine of 8 GiB, on which no large tensor is allocated."""
    monkeypatch.setattr(memory, "total_bytes", lambda: 2**33)
    with SmallTensors():
        yield


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("random(size=1024, channels=64, images=1000000)", "62,516 GiB"),
        ("random(size=1024, channels=64, images=100)", "23 GiB"),
        ("random(size=100, images=1000000)", "28 GiB"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_their_size(text, figure):
    with pytest.raises(UserError) as caught:
        load_data(text)
    assert f"would take {figure} of memory; this machine has 8 GiB: lower" in str(caught.value)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("wrn(depth=1000, width=1000)", "weights would take 238,"),
        ("wrn(depth=1000, width=20)", "weights would take 96 GiB"),
        ("stdcnn(width=10000)", "4,501,600,000 weights would take 68 GiB"),
        ("gcnn-stdcnn(width=10000)", "weights would take"),
        ("gcnn-vgg16(width=2000)", "weights would take"),
        ("gcnn-resnet18(group=d8, width=2000)", "weights would take"),
    ],
)
def test_networks_that_do_not_fit_are_refused_with_their_size(text, figure):
    with pytest.raises(UserError) as caught:
        build_model(text, "digits")
    assert figure in str(caught.value)
    assert "this machine has 8 GiB: give it a lower width or depth" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("wrn(depth=22, width=2)", wide),
        ("stdcnn(width=100)", small),
        ("smallcnn", small),
        ("lenet", small),
        ("madry-mnist", small),
    ],
)
def test_the_weights_are_counted_nearly(text, module, monkeypatch):
    counted = []
    monkeypatch.setattr(module, "check_weights", lambda name, count: counted.append(count))
    network = build_model(text, "digits")
    (count,) = counted
    assert 0.5 < count / sum(weight.numel() for weight in network.parameters()) < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrn(depth=1000000, width=1)", "at most 1,000, not 1000000"),
        ("wrn(depth=1e300, width=1)", "at most 1,000, not about 10^300"),
        ("wrn(depth=28, width=1e300)", "width must lie from 1 to 10,000, not about 10^300"),
        ("stdcnn(width=1000000)", "width must lie from 1 to 10,000, not 1000000"),
        ("p4cnn(width=1000000)", "width must lie from 1 to 10,000, not 1000000"),
    ],
)
def test_a_depth_or_width_beyond_any_use_is_refused(text, message):
    with pytest.raises(UserError) as caught:
        build_model(text, "digits")
    assert message in str(caught.value)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(
    ("name", "classes", "figure"),
    [
        ("regnet_y_128gf", 1000, "644,812,894 weights would take 10 GiB"),  # torchvision's number
        ("mobilenet_v3_small", 10**6, "weights would take 16 GiB"),
    ],
)
def test_a_network_of_torchvision_is_refused_before_it_is_allocated(name, classes, figure):
    data = attrs.evolve(load_data("random(size=32, images=20)"), classes=("a",) * classes)
    before = torch.get_rng_state()
    with pytest.raises(UserError) as caught:
        build_model(f"torchvision({name})", data)
    assert f"training torchvision({name}) of " in str(caught.value)
    assert figure in str(caught.value)
    assert "choose a smaller network, or fewer classes" in str(caught.value)
    assert torch.equal(before, torch.get_rng_state())


def test_large_images_make_the_linear_layer_of_a_small_network_too_large(monkeypatch):
    data = load_data("random(size=90, channels=1, images=10)")
    monkeypatch.setattr(memory, "total_bytes", lambda: 2**20)
    for name in ("smallcnn", "lenet", "madry-mnist", "stdcnn"):
        with pytest.raises(UserError, match=f"training {name} of .* weights would take 1 GiB"):
            build_model(name, data)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", limit)
    machine = memory.total_bytes()
    assert machine > 2**20
    for text, expected in (("1048576\n", 2**20), ("max\n", machine), ("", machine)):
        limit.write_text(text)
        assert memory.total_bytes() == expected


def test_a_system_that_reports_no_memory_has_no_limit(monkeypatch):
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.total_bytes() is None
    memory.check_fits("a", 2**90, fix="b")
