"""Read the weights of a network from a file of any origin, and load them into a model.

A file is read as data: safetensors, or torch's format with ``weights_only=True``, which runs no
code of the file.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from curricula.errors import UserError, message_of, printable, shortened, shown
from curricula.expressions.model_files import WEIGHTS
from curricula.models.kept_state import aside, load_aside
from curricula.models.normalisation import OWN
from curricula.models.normalise import Normalise, first_normalise
from curricula.runtime.files import read_file, similar_path
from curricula.runtime.tensor_files import CHANGED, DIGEST, content_digest, texts_in
from curricula.runtime.values import as_path

KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params",
        "ema", "model_ema", "state_dict_ema", "ema_state_dict")  # fmt: skip
"""Keys under which training programs store a network's tensors; the first one found is taken."""
AVERAGE = "average.module"  # prefix of the averaged weights in a checkpoint of curricula
COUNTED = "n_averaged"  # number of averaged weights, of torch's AveragedModel
BATCHES = "num_batches_tracked"  # a counter of batch norm, which no evaluation reads
SHAPELESS = (UninitializedParameter, UninitializedBuffer)  # tensors of lazy layers
CASTABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights that are cast to the model's: what a network computes stays the same."""
QUANTISED = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.float8_e4m3fn,
             torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)  # fmt: skip
"""Types in which quantised networks store weights; what they stand for is written elsewhere."""
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names under which torch's wrappers, such as `torch.compile`, hold the module that they wrap."""
NORMS: Mapping[str, Mapping[str, str]] = {
    "weight": {"g": "original0", "v": "original1"},
    "spectral": {"orig": "original", "u": "0._u", "v": "0._v"},
}
"""Ends of the tensors' names by kind of norm: of `torch.nn.utils` and of its parametrizations."""
_WRAPPED = re.compile(rf"(?<![^.])(?:{'|'.join(WRAPPERS)})\.")
_NORMED = re.compile(r"(.*)\bparametrizations\.(\w+)\.(original[01]?|0\._[uv])")
MAX_NAMES = 3  # names of tensors in a message
MAX_DEPTH = 8  # mappings inside each other, in a file of torch
SAVE = "torch.save(model.state_dict(), 'weights.pt')"
QUANTISED_FIX = (
    "a quantised network computes something else: save the weights of the network before it was "
    "quantised"
)


@attrs.frozen(kw_only=True, eq=False)
class Weights:
    """The tensors of a network, as a file holds them.

    Attributes:
        tensors: tensors on the CPU, by name.
        source: the file, as text for messages.
        notes: what was recognised in the file, a phrase each.
        versions: version of the format of each module's tensors, by the module's name, if the file
            states them, as `torch.nn.Module.state_dict` does.
        aside: what a checkpoint of curricula keeps beside the state dict, by name.
    """

    tensors: Mapping[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()
    versions: Mapping[str, int] = attrs.field(factory=dict)
    aside: Mapping[str, Tensor] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class Loaded:
    """Record what `load_weights` has recognised in weights.

    Attributes:
        notes: what was recognised in the weights, a phrase each, such as ``the prefix 'module.'``.
        normalised: whether the weights also state the values of the model's `Normalise` layers;
            True for a model without such a layer.
        normalisation: ``MEAN/STD`` if the weights state them for each channel, and the model does
            not; else ``own``.
    """

    notes: tuple[str, ...]
    normalised: bool
    normalisation: str = OWN


def read_weights(path: str | Path) -> Weights:
    """Return the tensors of a network from a file: safetensors, or what ``torch.save`` has written
    of a state dict, alone or within a mapping of a training program.

    Raises:
        UserError: the file is missing, damaged, holds something else, or holds Python objects,
            which are not read because that runs code.

    Example:
        >>> torch.save({"state_dict": {"module.weight": torch.ones(2)}}, "net.pt")
        >>> weights = read_weights("net.pt")
        >>> [*weights.tensors], weights.notes
        (['module.weight'], ("the key 'state_dict'",))
    """
    path = as_path("weights", path)
    source = printable(f"weights {path}")
    try:
        content = read_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{source}: no such file{_similar(path)}") from error
    except (OSError, ValueError) as error:
        reason = "it is a folder; name a file in it" if path.is_dir() else str(error)
        raise UserError(f"{source}: cannot be read ({reason})") from error
    if content.startswith(b"version https://git-lfs"):
        raise UserError(f"{source}: a pointer of Git LFS, not the file; fetch it: git lfs pull")
    if content[8:9] == b"{":
        return _of_safetensors(content, source)
    return _of_torch(content, source)


def _similar(path: Path) -> str:
    return similar_path(path, (each for each in path.parent.glob("*") if each.suffix in WEIGHTS))


def _of_safetensors(content: bytes, source: str) -> Weights:
    from safetensors import SafetensorError

    try:
        tensors, _, is_checkpoint = parse_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{source}: damaged ({message_of(error)}); fetch or save it again"
        ) from error
    if is_checkpoint:
        return Weights(
            tensors=network_tensors(tensors, source),
            aside=aside(tensors, network_prefix(tensors, source)),
            source=source,
            notes=("a checkpoint of curricula",),
        )
    return _checked(tensors, source, ())


def parse_safetensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str], bool]:
    """Return the tensors and the texts in the bytes of a safetensors file, both by name, and
    whether it is a checkpoint of curricula, whose digest is right.

    Raises:
        Exception: the file is damaged; of many types.
    """
    from safetensors.torch import load

    tensors = load(content)
    texts = texts_in(content)
    expected = texts.pop(DIGEST, None)
    if expected is not None and digest_of(tensors, texts) != expected:
        raise ValueError(CHANGED)
    return tensors, texts, expected is not None


def digest_of(
    tensors: Mapping[str, Tensor], texts: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return a hash of the tensors and texts of a checkpoint of curricula, which tells damage."""
    parts = (
        (name, str(tensor.dtype), tensor.shape, tensor.reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in sorted(tensors.items())
    )
    return content_digest(parts, texts)


def network_tensors(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the network's tensors by name from those of a checkpoint of curricula: the averaged
    weights if there are some.

    Raises:
        UserError: the count of averaged weights is not a number.
    """
    begin = f"{network_prefix(tensors, source)}."
    return {name.removeprefix(begin): t for name, t in tensors.items() if name.startswith(begin)}


def network_prefix(tensors: Mapping[str, Tensor], source: str) -> str:
    """Return the prefix of the network's tensors in a checkpoint of curricula: ``average.module``
    if it has averaged weights, and else ``model``.

    Raises:
        UserError: the count of averaged weights is not a number.
    """
    count = tensors.get(f"average.{COUNTED}")
    if count is not None and (
        count.numel() != 1 or count.is_floating_point() or count.is_complex()
    ):
        raise UserError(f"{source}: damaged (average.{COUNTED} is not a count); train again")
    return AVERAGE if count is not None and int(count) > 0 else "model"


def _of_torch(content: bytes, source: str) -> Weights:
    if _is_script(content):
        raise UserError(f"{source}: a TorchScript program, not weights; save those: {SAVE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats and sparse tensors, refused below
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        objects = any(word in str(error) for word in ("Unsupported global", "Unsupported operand"))
        if objects and content.startswith((b"PK\x03\x04", b"\x80")):  # an archive or a pickle
            raise UserError(
                f"{source}: holds Python objects, which are not loaded since that runs code of the "
                f"file; open it where you trust it, and save its weights alone: {SAVE}"
            ) from error
        raise UserError(
            f"{source}: neither safetensors nor weights of torch, or damaged; save it again: {SAVE}"
        ) from error
    return _found(value, source)


def _is_script(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no archive, or a damaged one
        return False


def _found(value: Any, source: str) -> Weights:
    """Return the state dict in a value of ``torch.load``: the value itself, or the one under a key
    of `KEYS`."""
    notes: tuple[str, ...] = ()
    for _ in range(MAX_DEPTH):
        if _is_state_dict(value):
            return _checked(value, source, notes)
        if not isinstance(value, Mapping):
            break
        within = [
            key for key in KEYS if isinstance(value.get(key), Mapping) and len(value[key]) > 0
        ] or [key for key, part in value.items() if _is_state_dict(part)][:2]
        if not within or (within[0] not in KEYS and len(within) > 1):
            break
        others = [repr(key) for key in within[1:]]
        aside = f" (not {', '.join(others)}, which is there too)" if others else ""
        notes = (*notes, f"the key {shown(within[0])}{aside}")
        value = value[within[0]]
    raise UserError(f"{source}: {_not_weights(value)}")


def _not_weights(value: Any) -> str:
    """Return what a value of ``torch.load`` is instead of weights, and the fix."""
    if not isinstance(value, Mapping):
        return f"holds a {type(value).__name__}, not weights by name; save those: {SAVE}"
    several = [key for key, part in value.items() if _is_state_dict(part)]
    if several:
        return (
            f"holds several networks, {shortened(', '.join(map(shown, several)))}: save one alone, "
            f"torch.save(torch.load(FILE)[{shown(several[0])}], 'weights.pt')"
        )
    tensors = {key: part for key, part in value.items() if isinstance(part, Tensor)}
    others = [key for key in value if key not in tensors]
    if any("_packed_params" in str(key) for key in others):
        return f"holds packed parameters; {QUANTISED_FIX}"
    if tensors and _is_state_dict(tensors):
        return (
            f"holds {_names([*map(shown, others)])} beside tensors: save these alone, "
            f"{{name: tensor for name, tensor in weights.items() if name not in {shown(others)}}}"
        )
    what = shortened(", ".join(map(shown, value)) or "nothing")
    return f"holds a mapping of {what}, not weights by name; save those: {SAVE}"


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(part, Tensor) for key, part in value.items())
    )


def _checked(tensors: Mapping[str, Tensor], source: str, notes: tuple[str, ...]) -> Weights:
    """Return the tensors as weights, after checking that each has values in memory."""
    for name, tensor in tensors.items():
        if tensor.is_quantized:
            raise UserError(f"{source}: {shown(name)} is quantised; {QUANTISED_FIX}")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(
                f"{source}: {shown(name)} is not a plain tensor (sparse, or without values); save "
                "dense weights"
            )
    versions = _versions(tensors)
    if COUNTED in tensors and all(n == COUNTED or n.startswith("module.") for n in tensors):
        tensors = {name: tensor for name, tensor in tensors.items() if name != COUNTED}
        notes = (*notes, "averaged weights")
    return Weights(tensors=tensors, source=source, notes=notes, versions=versions)


def _versions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the version of each module's tensors that a state dict of torch states."""
    stated = getattr(tensors, "_metadata", None)
    if not isinstance(stated, Mapping):
        return {}
    return {
        name: each["version"]
        for name, each in stated.items()
        if isinstance(name, str) and isinstance(each, Mapping) and type(each.get("version")) is int
    }


def load_weights(
    model: nn.Module, weights: Weights, *, what: str = "this model", new: Collection[str] = ()
) -> Loaded:
    """Load weights into a model, in place and strictly: each of the model's tensors receives one of
    the same name and shape, and none is left over.

    A prefix that all names share, such as ``module.``, is taken off, or added where the model has
    it and the weights do not; so are wrappers inside of names, as in ``features.module.0.weight``.
    Weight and spectral norm may have their older or newer names. Floating-point values of 16, 32
    and 64 bits are cast to the model's type; those of quantised networks are refused. The values of
    the model's `Normalise` layers may be missing from the weights; if they are there in another
    shape, such as one for each channel, the layer takes it.

    Args:
        model: the model; it is unchanged if an error is raised.
        weights: the weights.
        what: the model, in messages.
        new: names of the model's tensors that keep their values, such as those of a new last layer.

    Raises:
        UserError: tensors are missing, left over, or of a different shape or type; one line.

    Example:
        >>> weights = Weights(tensors={"module.weight": torch.ones(1, 2)}, source="net.pt")
        >>> load_weights(nn.Linear(2, 1, bias=False), weights).notes
        ("the prefix 'module.'",)
    """
    state = model.state_dict(keep_vars=True)  # in which two names of a tensor have the same one
    own = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    normalisations = _normalisation_names(model)
    tensors, renamed, (taken, added) = _renamed(weights.tensors, own, normalisations)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in new}
    tensors, cast = _cast(tensors, own)
    # safetensors stores one of several names of the same tensor.
    shared = {id(own[name]) for name in tensors if name in own}
    missing = [
        name
        for name, tensor in own.items()
        if name not in tensors
        and name not in normalisations
        and name not in new
        and not name.endswith(BATCHES)
        and id(tensor) not in shared
    ]
    left_over = [name for name in tensors if name not in own]
    shapes, types = [], []
    for name, tensor in tensors.items():
        if name not in own or name in normalisations or isinstance(own[name], SHAPELESS):
            continue  # a lazy layer takes any shape
        if tensor.shape != own[name].shape:
            shapes.append(name)
        elif tensor.dtype != own[name].dtype and not name.endswith(BATCHES):
            types.append(name)
    problems = []
    if missing:
        problems.append(f"{len(missing):,} missing ({_names(missing)})")
    if left_over:
        problems.append(f"{len(left_over):,} left over ({_names(left_over)})")
    if shapes:
        first = shapes[0]
        was, now = tuple(tensors[first].shape), tuple(own[first].shape)
        problems.append(f"{len(shapes):,} of another shape ({first}: {was}, not {now})")
    if types:
        first = types[0]
        was_type, now_type = tensors[first].dtype, own[first].dtype
        problems.append(f"{len(types):,} of another type ({first}: {was_type}, not {now_type})")
    if problems:
        cause = _cause(tensors, own, missing=missing, left_over=left_over, shapes=shapes)
        raise UserError(
            f"{weights.source} do not fit {what}: of {len(own):,} tensors, "
            f"{', '.join(problems)}; {cause}"
        )
    stated = normalisations <= tensors.keys()
    normalisation = _take_normalisation(model, tensors, weights.source)
    state = model.state_dict()  # with the versions of its layers, which some of torchvision ask for
    state.update(tensors)
    metadata: dict[str, dict[str, int]] = getattr(state, "_metadata", {})
    modules = {_unwrapped(f"{name}."): name for name in metadata}
    for name, version in weights.versions.items():
        module = added + f"{name}.".removeprefix(taken)
        found = module[:-1] if module[:-1] in metadata else modules.get(_unwrapped(module))
        if found is not None:
            metadata[found]["version"] = version
    model.load_state_dict(state)
    beside = {added + name.removeprefix(taken): tensor for name, tensor in weights.aside.items()}
    try:
        load_aside(model, beside)
    except Exception as error:  # third-party code may raise anything
        raise UserError(
            f"{weights.source} do not fit {what} ({message_of(error)}); name theirs"
        ) from error
    notes = (*weights.notes, *renamed, *cast)
    return Loaded(notes=notes, normalised=stated, normalisation=normalisation)


def _cast(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors with floating-point ones in the type of the model's of the same name, and
    what was cast, a phrase for each pair of types."""
    found, notes = dict(tensors), dict[str, None]()
    for name, tensor in tensors.items():
        if name in own and tensor.dtype != own[name].dtype:
            types = (tensor.dtype, own[name].dtype)
            if all(each in CASTABLE for each in types):
                found[name] = tensor.to(own[name].dtype)
                was, now = (str(each).removeprefix("torch.") for each in types)
                notes[f"{was}, cast to {now}"] = None
    return found, tuple(notes)


def _normalisation_names(model: nn.Module) -> set[str]:
    """Return the names of the buffers of a model's `Normalise` layers."""
    return {
        f"{name}.{buffer}" if name else buffer
        for name, layer in model.named_modules()
        if isinstance(layer, Normalise)
        for buffer, _ in layer.named_buffers(recurse=False)
    }


def _renamed(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], normalisations: set[str]
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, str]]:
    """Return the tensors under the names of a model, what was recognised, a phrase each, and the
    prefixes that were taken off and added.

    Of all prefixes that the weights' names share, and all that the model's names share, those are
    taken off that let the most names agree. Wrappers inside of names, and the two ways to name the
    tensors of weight and spectral norm, make no difference.
    """
    theirs, ours = _canonical(tensors), _canonical(own)
    best: tuple[tuple[int, int], str, str] | None = None
    plain = [ours[name] for name in own if name not in normalisations]
    for known, added in [([*ours.values()], ""), *((plain, prefix) for prefix in _prefixes(plain))]:
        short = {name.removeprefix(added) for name in known}
        for taken in _prefixes([*theirs.values()]):
            agree = sum(name.removeprefix(taken) in short for name in theirs.values())
            rank = (agree, -taken.count(".") - added.count("."))
            if best is None or rank > best[0]:
                best = rank, taken, added
    _, taken, added = best or ((0, 0), "", "")
    notes = {f"the prefix {shown(taken)}": None} if taken and taken != added else {}
    named = {canonical: name for name, canonical in ours.items()}
    renamed = {}
    for name, tensor in tensors.items():
        kept = added + name.removeprefix(taken)
        canonical = added + theirs[name].removeprefix(taken)
        found = kept if kept in own else named.get(canonical, kept)
        notes |= dict.fromkeys(_differences(kept, found, canonical))
        renamed[found] = tensor
    return renamed, tuple(notes), (taken, added)


def _canonical(names: Iterable[str]) -> dict[str, str]:
    """Return the names without the wrappers inside of them, and with the tensors of weight and
    spectral norm named as `torch.nn.utils.parametrizations` does, by name; a prefix that all share
    stays."""
    known = dict.fromkeys(names)
    shared = _prefixes([*known])[-1]
    found = {}
    for name in known:
        plain = shared + _unwrapped(name[len(shared) :])
        layer, dot, last = plain.rpartition(".")
        base, _, part = last.rpartition("_")
        for norm in NORMS.values():
            siblings = (name.removesuffix(part) + each for each in norm)
            if part in norm and all(each in known for each in siblings):
                plain = f"{layer}{dot}parametrizations.{base}.{norm[part]}"
        found[name] = plain
    return found if len({*found.values()}) == len(found) else {name: name for name in known}


def _unwrapped(name: str) -> str:
    """Return a name without the parts that stand for wrappers."""
    return _WRAPPED.sub("", name)


def _differences(theirs: str, ours: str, canonical: str) -> Iterator[str]:
    """Yield what differs between two names of one tensor, a phrase each."""
    if theirs == ours:
        return
    norm = _NORMED.fullmatch(canonical)
    if norm is not None and ("parametrizations." in theirs) != ("parametrizations." in ours):
        age = "newer" if "parametrizations." in theirs else "older"
        kind = next(kind for kind, parts in NORMS.items() if norm[3] in parts.values())
        yield f"the {age} names of {kind} norm"
    inside = set(_WRAPPED.findall(theirs)) ^ set(_WRAPPED.findall(ours))
    for wrapper in sorted(inside):
        yield f"the wrapper {shown(wrapper)}"


def _prefixes(names: list[str]) -> list[str]:
    """Return the empty text and every prefix, up to a dot, that all of the names share."""
    if not names:
        return [""]
    low, high = min(names), max(names)
    shared = 0
    while shared < min(len(low), len(high)) and low[shared] == high[shared]:
        shared += 1
    return ["", *(low[: at + 1] for at in range(shared) if low[at] == ".")]


def _names(names: list[str]) -> str:
    more = ", ..." if len(names) > MAX_NAMES else ""
    return shortened(", ".join(names[:MAX_NAMES])) + more


def _cause(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    missing: list[str],
    left_over: list[str],
    shapes: list[str],
) -> str:
    """Return the likely cause of weights that do not fit, and the fix."""
    differ = [name for name in tensors if name in own and tensors[name].dtype != own[name].dtype]
    if any(tensors[name].dtype in QUANTISED for name in (*differ, *(left_over if missing else ()))):
        return QUANTISED_FIX
    if not missing and not left_over and not shapes:
        return "save them in the types that the network has"
    theirs, ours = _normed(left_over), _normed(missing)
    if theirs & {*missing} or ours & {*left_over}:
        if theirs & {*missing}:
            return (
                "they are of a network with weight norm or spectral norm: name theirs, or save "
                "them after torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
            )
        return "this network has weight norm or spectral norm, and theirs has none: name theirs"
    parts = _parts(tensors, own)
    if parts:
        prefix, *others = parts
        what = f"the network is under {shown(prefix)}: save that part"
        if others:
            what = f"they are of several networks, under {', '.join(map(shown, parts))}: save one"
        return (
            f"{what} alone, {{name[{len(prefix)}:]: tensor for name, tensor in weights.items() if "
            f"name.startswith({prefix!r})}}"
        )
    if len(missing) == sum(not name.endswith(BATCHES) for name in own):
        return "they are of a different network: name theirs"
    if shapes and not missing and not left_over:
        of_last = [*own][-1].rpartition(".")[0]
        first = tensors[shapes[0]].shape, own[shapes[0]].shape
        if all(first) and all(name.rpartition(".")[0] == of_last for name in shapes):
            return (
                f"they are of a network with {first[0][0]:,} classes, and this one has "
                f"{first[1][0]:,}: name the data and arguments that they were trained with, or, to "
                "train a new last layer, init_head (--init-head new)"
            )
        if len(shapes) == 1 and len(first[0]) == 4 and first[0][2:] == first[1][2:]:
            return (
                f"they are of a network whose images have a channel count of {first[0][1]}, "
                f"and the data have {first[1][1]}"
            )
        return "they are of a network with other arguments (such as width), classes or image size"
    if left_over and not missing:
        return "they are of a network with more layers: name theirs, or save these layers alone"
    if missing and not left_over:
        return "they are a part of the network, or of one with fewer layers: name theirs"
    return "they are of a network with other layers: name theirs, with its arguments"


def _normed(names: list[str]) -> set[str]:
    """Return the names that tensors of weight norm or spectral norm would have without it."""
    matches = (_NORMED.fullmatch(name) for name in _canonical(names).values())
    return {match[1] + match[2] for match in matches if match is not None}


def _parts(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes, of some of the weights' names only, under which a whole model lies."""
    names = [name for name in own if not name.endswith(BATCHES)]
    first = next(iter(names), "")
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]
    return [
        prefix
        for prefix in prefixes
        if all(
            prefix + name in tensors
            and (
                isinstance(own[name], SHAPELESS) or tensors[prefix + name].shape == own[name].shape
            )
            for name in names
        )
    ]


def _take_normalisation(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> str:
    """Replace each `Normalise` layer of a model for which the weights have means or standard
    deviations of another shape, such as one for each channel; return the first one as text, and
    ``own`` if there is none."""
    text = OWN
    for name, layer in [*model.named_modules()]:
        if not isinstance(layer, Normalise) or not name:
            continue
        mean, std = (tensors.get(f"{name}.{buffer}") for buffer in ("mean", "std"))
        if mean is None or std is None:
            continue
        if (mean.shape, std.shape) == (layer.mean.shape, layer.std.shape):
            continue
        values = [each.float().squeeze().tolist() for each in (mean, std)]
        try:
            new = Normalise(*values)
        except UserError as error:
            raise UserError(f"{source}: {name}: {error}") from error
        if text == OWN and name == first_normalise(model):
            text = "/".join(
                ",".join(map(repr, torch.tensor(each).reshape(-1).tolist())) for each in values
            )
        model.set_submodule(name, new.to(layer.mean.device))
    return text
