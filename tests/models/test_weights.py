"""Weights of any origin: what is recognised, and what is refused, in one line."""

import argparse
import io
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from curricula.errors import UserError
from curricula.models import Normalise, build_model
from curricula.models.weights import Weights, load_weights, read_weights


def network(classes=3, channels=1, width=4):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.LazyLinear(classes)
    ).eval()


def made(seed=0, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(**sizes)
        model(torch.rand(2, sizes.get("channels", 1), 5, 5))
        return model


def state(seed=1, **sizes):
    return made(seed, **sizes).state_dict()


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_loads(path, *notes, seed=1):
    model = made()
    loaded = load_weights(model, read_weights(path))
    for name, tensor in made(seed).state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    assert loaded.notes == notes


def one_line(call, match):
    with pytest.raises(UserError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_state_dict_of_torch_and_of_safetensors(tmp_path):
    torch.save(state(), tmp_path / "zip.pt")
    torch.save(state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state(), tmp_path / "net.safetensors")
    save_file(state(), tmp_path / "misnamed.pt", {"format": "pt"})
    for name in ("zip.pt", "old.pth", "net.safetensors", "misnamed.pt"):
        assert_loads(tmp_path / name)


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "ema", "our_own_key"]
)
def test_the_key_of_a_training_program_is_recognised_and_said(key, tmp_path):
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, key: state()}, tmp_path / "net.pt")
    assert_loads(tmp_path / "net.pt", f"the key {key!r}")


def test_keys_inside_each_other_and_a_choice_of_two_are_said(tmp_path):
    stored = {"model": {"state_dict": state()}, "ema": state(2)}
    torch.save(stored, tmp_path / "net.pt")
    assert_loads(
        tmp_path / "net.pt",
        "the key 'model' (not 'ema', which is there too)",
        "the key 'state_dict'",
    )


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "network.", "model.module.", "module._orig_mod.net."],
)
def test_a_common_prefix_is_taken_off_and_said(prefix, tmp_path):
    torch.save(prefixed(prefix, state()), tmp_path / "net.pt")
    assert_loads(tmp_path / "net.pt", f"the prefix {prefix!r}")


def test_a_prefix_that_the_model_has_is_kept_or_added():
    inner = nn.ModuleDict({"model": made()})
    for tensors in (state(), prefixed("model.", state()), prefixed("module.model.", state())):
        load_weights(inner, Weights(tensors=tensors, source="net.pt"))
        assert torch.equal(inner.state_dict()["model.0.weight"], state()["0.weight"])


def test_averaged_weights_of_torch(tmp_path):
    model = torch.optim.swa_utils.AveragedModel(made(1))
    torch.save(model.state_dict(), tmp_path / "net.pt")
    assert_loads(tmp_path / "net.pt", "averaged weights", "the prefix 'module.'")


def test_the_counter_of_batch_norm_may_be_missing_as_in_old_files(tmp_path):
    tensors = {name: t for name, t in state().items() if "num_batches" not in name}
    model = made()
    load_weights(model, Weights(tensors=tensors, source="net.pt"))
    assert torch.equal(model[0].weight, state()["0.weight"])


@pytest.mark.parametrize(
    ("text", "size"),
    [("resnet18", 32), ("torchvision(resnet18)", 32), ("torchvision(vit_b_16)", 32)],
)
def test_weights_of_another_library_fit_behind_our_normalisation(text, size):
    data = f"random(size={size}, images=20, channels=3)"
    ours = build_model(text, data)
    theirs = {name: t.clone() for name, t in ours[1].state_dict().items()}
    loaded = load_weights(build_model(text, data), Weights(tensors=theirs, source="net.pt"))
    assert not loaded.normalised
    own = Weights(tensors=ours.state_dict(), source="net.pt")
    assert load_weights(build_model(text, data), own).normalised


def test_a_normalisation_in_the_weights_is_taken_with_its_channels():
    model = nn.Sequential(Normalise(), nn.Flatten(), nn.Linear(12, 2))
    theirs = nn.Sequential(Normalise((0.1, 0.2, 0.3), 0.25), *model[1:])
    loaded = load_weights(model, Weights(tensors=theirs.state_dict(), source="net.pt"))
    x_NCHW = torch.rand(2, 3, 2, 2)
    assert loaded.normalised
    assert torch.equal(model(x_NCHW), theirs(x_NCHW))


def refused(tensors, match, model=None):
    model = made() if model is None else model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = Weights(tensors=tensors, source="weights net.pt")
    message = one_line(lambda: load_weights(model, weights), match)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    return message


def test_weights_that_do_not_fit_are_one_line_and_change_nothing():
    tensors = state()
    few = {name: tensor for name, tensor in tensors.items() if not name.startswith("3")}
    refused(few, r"of 9 tensors, 2 missing \(3.weight, 3.bias\); they are a part")
    refused({**tensors, "4.weight": torch.ones(1)}, r"1 left over \(4.weight\); .* more layers")
    refused(state(classes=100), r"2 of another shape .* network with 100 classes, .* has 3")
    refused(
        state(channels=3),
        r"1 of another shape .* images have a channel count of 3, and the data have 1",
    )
    refused(state(width=8), r"7 of another shape .* other arguments")
    single = [*state()][-1]
    refused({**state(), single: torch.ones(())}, r"1 of another shape .* other arguments")
    refused({"a.weight": torch.ones(1)}, r"8 missing .* 1 left over \(a.weight\); .* different net")
    many = {f"layer{n}": torch.ones(1) for n in range(1000)}
    assert len(refused(many, r"1,000 left over \(layer0, layer1, layer2, ...\)")) < 500


def of_type(dtype):
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in state().items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_half_and_double_weights_are_cast_and_that_is_said(dtype):
    model, tensors = made(), of_type(dtype)
    loaded = load_weights(model, Weights(tensors=tensors, source="net.pt"))
    assert loaded.notes == (f"{str(dtype).removeprefix('torch.')}, cast to float32",)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name].to(tensor.dtype))
    mixed = {**state(), "3.weight": tensors["3.weight"]}
    load_weights(model, Weights(tensors=mixed, source="net.pt"))
    assert torch.equal(model[3].weight, tensors["3.weight"].float())


def without(*names):
    return {name: tensor for name, tensor in state().items() if name not in names}


@pytest.mark.parametrize(
    "tensors",
    [
        of_type(torch.float8_e4m3fn),
        {**state(), "3.weight": torch.ones(3, 36, dtype=torch.int8)},
        {
            **state(),
            "3.weight": torch.ones(54, 1, dtype=torch.uint8),
            "3.weight.absmax": torch.ones(2),
        },
        {**without("3.weight"), "3.qweight": torch.ones(4, 3, dtype=torch.int32)},
    ],
    ids=["float8", "int8", "packed", "renamed"],
)
def test_weights_of_a_quantised_network_are_refused(tensors):
    refused(tensors, "; a quantised network computes something else: save the weights of the net")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int64])
def test_weights_of_another_type_are_refused(dtype):
    tensors = {**state(), "3.weight": torch.ones(3, 36, dtype=dtype)}
    refused(tensors, rf"3.weight: {dtype}, not torch.float32\); save them in the types")


NORMED = {
    "weight": (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm),
    "spectral": (nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", NORMED)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_names_of_a_norm_may_be_the_older_or_newer_ones(kind, prefix):
    x_NCHW = torch.rand(2, 1, 5, 5)

    def model(form, seed):
        network = made(seed)
        NORMED[kind][form](network[3])
        return network.eval()

    for theirs, ours, age in [(0, 1, "older"), (1, 0, "newer"), (0, 0, ""), (1, 1, "")]:
        there, here = model(theirs, 1), model(ours, 0)
        weights = Weights(tensors=prefixed(prefix, there.state_dict()), source="net.pt")
        notes = [note for note in load_weights(here, weights).notes if "norm" in note]
        assert notes == ([f"the {age} names of {kind} norm"] if age else [])
        torch.testing.assert_close(here(x_NCHW), there(x_NCHW))
        refused(there.state_dict(), "of a network with weight norm or spectral norm: name theirs")
    refused(
        state(), "this network has weight norm or spectral norm, and theirs has none", model(1, 1)
    )


@pytest.mark.parametrize("segment", ["module.", "_orig_mod.", "_fsdp_wrapped_module."])
def test_a_wrapper_inside_of_names_is_recognised_and_said(segment):
    theirs = {
        name.replace("1.", f"1.{segment}", 1) if name.startswith("1.") else name: tensor
        for name, tensor in state().items()
    }
    model = made()
    loaded = load_weights(model, Weights(tensors=prefixed("model.", theirs), source="net.pt"))
    assert loaded.notes == ("the prefix 'model.'", f"the wrapper {segment!r}")
    assert torch.equal(model[1].weight, state()["1.weight"])
    wrapped = nn.Sequential(model[0], nn.ModuleDict({"module": model[1]}), *model[2:])
    load_weights(wrapped, Weights(tensors=state(2), source="net.pt"))
    assert torch.equal(model[1].weight, state(2)["1.weight"])


def test_a_network_that_is_a_part_of_the_file_is_named_with_the_line_that_saves_it():
    tensors = {**prefixed("net.", state()), "loss.weight": torch.ones(3)}
    message = refused(tensors, "the network is under 'net.': save that part alone, {name")
    alone = eval(message.partition("alone, ")[2], {"weights": tensors})
    load_weights(made(), Weights(tensors=alone, source="net.pt"))
    tensors = {**prefixed("student.", state()), **prefixed("teacher.", state(2))}
    refused(tensors, r"of several networks, under 'student.', 'teacher.': save one alone, .*name")


def test_tensors_that_keep_their_values_may_be_missing_or_of_another_shape():
    model, new = made(), {"3.weight", "3.bias"}
    before = model[3].weight.clone()
    load_weights(model, Weights(tensors=state(classes=100), source="net.pt"), new=new)
    assert torch.equal(model[0].weight, state()["0.weight"])
    assert torch.equal(model[3].weight, before)


class Opened:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the file was executed",))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [nn.Linear(1, 1), {"state_dict": {}, "args": argparse.Namespace(lr=1)}, Opened(), [Opened()]],
    ids=["module", "namespace", "code", "list"],
)
def test_python_objects_are_refused_with_the_line_that_saves_weights(value, zipped, tmp_path):
    torch.save(value, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    one_line(
        lambda: read_weights(tmp_path / "net.pt"),
        r"holds Python objects.*torch.save\(model.state_dict\(\), 'weights.pt'\)$",
    )


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.ones(2), "holds a Tensor, not weights by name"),
        ([torch.ones(2)], "holds a list"),
        ({}, "holds a mapping of nothing"),
        ({"epoch": 3, "lr": 0.1}, "holds a mapping of 'epoch', 'lr'"),
        ({"state_dict": {}}, "holds a mapping of 'state_dict'"),
        ({"a": {"w": 1}, "b": {"w": 1}}, "a mapping of 'a', 'b'"),
        ({0: torch.ones(1)}, "a mapping of 0"),
        (
            {"best": {"w": torch.ones(1)}, "last": {"w": torch.ones(1)}},
            r"several networks, 'best', 'last': save one alone, torch.save.*\['best'\]",
        ),
        ({"w": torch.ones(1), "epoch": 3}, "holds 'epoch' beside tensors: save these alone"),
        (
            {"0._packed_params._packed_params": (), "w": torch.ones(1)},
            "packed .* quantised network",
        ),
        ({"w": torch.ones(2, 2).to_sparse()}, "'w' is not a plain tensor"),
        ({"w": torch.ones(2, device="meta")}, "'w' is not a plain tensor"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(value, match, tmp_path):
    torch.save(value, tmp_path / "net.pt")
    one_line(lambda: read_weights(tmp_path / "net.pt"), match)


def damaged_zip():
    stream = io.BytesIO()
    torch.save(state(), stream)
    return stream.getvalue()[:-200]


def other_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "a")
    return stream.getvalue()


def of_several_disks():
    """Return the end of a damaged archive: Python's reader refuses it in its check."""
    locator = b"PK\x06\x07" + bytes(12) + b"\x09\x00\x00\x00"
    return locator + b"PK\x05\x06" + b"\xff" * 16 + bytes(2)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "neither safetensors nor"),
        (b"hello", "neither safetensors nor"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "neither safetensors nor"),
        (b"\x80\x02", "neither safetensors nor"),
        (damaged_zip(), "or damaged; save it again"),
        (other_zip(), "neither safetensors nor"),
        (of_several_disks(), "neither safetensors nor"),
        (b"\x10" + bytes(7) + b'{"a": 1}        ', "damaged"),
        (b"\xff" * 8 + b"{", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    ],
)
def test_a_damaged_file_is_one_line(content, match, tmp_path):
    (tmp_path / "net.pt").write_bytes(content)
    one_line(lambda: read_weights(tmp_path / "net.pt"), match)


def test_a_missing_file_a_folder_and_a_script_are_one_line(tmp_path):
    torch.save(state(), tmp_path / "network.pt")
    one_line(
        lambda: read_weights(tmp_path / "netwrk.pt"), "no such file; did you mean .*network.pt"
    )
    one_line(lambda: read_weights(tmp_path), "it is a folder; name a file in it")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # torch.jit.save is deprecated
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    one_line(lambda: read_weights(tmp_path / "script.pt"), "a TorchScript program, not weights")
    one_line(lambda: read_weights(3), "weights must be a path, not 3")


def test_two_names_of_one_tensor_may_be_stored_under_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

    for name in ("first.weight", "second.weight"):
        model, value = Tied(), torch.rand(3, 3)
        load_weights(model, Weights(tensors={name: value}, source="net.pt"))
        assert torch.equal(model.first.weight, value)
        assert torch.equal(model.second.weight, value)


def test_a_lazy_layer_takes_the_shape_of_its_weights():
    model = network()
    load_weights(model, Weights(tensors=state(), source="net.pt"))
    assert torch.equal(model[3].weight, state()["3.weight"])


def test_a_module_that_loads_in_its_own_way_is_one_line_if_it_refuses():
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"count": 3}

        def set_extra_state(self, state):
            self.loaded = state

    model = Counting(2, 1)
    tensors = nn.Linear(2, 1).state_dict()
    load_weights(model, Weights(tensors=tensors, source="net.pt"))
    assert torch.equal(model.weight, tensors["weight"])


def test_a_damaged_checkpoint_of_a_run_is_one_line(tmp_path):
    from curricula.training.run import BEST, Run

    run = Run(tmp_path)
    run.save(BEST, {f"model.{name}": tensor for name, tensor in state().items()})
    assert_loads(tmp_path / BEST, "a checkpoint of curricula")
    content = bytearray((tmp_path / BEST).read_bytes())
    content[-1] ^= 1
    (tmp_path / BEST).write_bytes(content)
    one_line(lambda: read_weights(tmp_path / BEST), "damaged .its contents changed")


class _SecondVersion(nn.Linear):
    """A layer whose first version stored its weight with the other sign."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *others):
        if (metadata.get("version") or 1) < 2:
            state[f"{prefix}weight"] = -state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, metadata, *others)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_versions_of_layers_are_those_of_the_file(version, prefix, tmp_path):
    network = nn.Sequential(nn.Flatten(), _SecondVersion(4, 3))
    state = (nn.ModuleDict({"module": network}) if prefix else network).state_dict()
    state._metadata[f"{prefix}1"]["version"] = version
    torch.save(state, tmp_path / "net.pt")
    ours = nn.Sequential(nn.Flatten(), _SecondVersion(4, 3))
    load_weights(ours, read_weights(tmp_path / "net.pt"))
    expected = network[1].weight * (1 if version == 2 else -1)
    assert torch.equal(ours[1].weight, expected)


def test_the_version_of_a_layer_inside_a_wrapper_is_that_of_the_file(tmp_path):
    inner = _SecondVersion(4, 3)
    state = nn.Sequential(nn.Flatten(), nn.ModuleDict({"module": inner})).state_dict()
    state._metadata["1.module"]["version"] = 1
    torch.save(state, tmp_path / "net.pt")
    ours = nn.Sequential(nn.Flatten(), _SecondVersion(4, 3))
    load_weights(ours, read_weights(tmp_path / "net.pt"))
    assert torch.equal(ours[1].weight, -inner.weight)
