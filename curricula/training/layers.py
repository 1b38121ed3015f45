"""Choose layers of a network: those that stay frozen, and the last one, the head."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

import attrs
import torch
from torch import Tensor, nn

from curricula.errors import UserError, did_you_mean, shortened, shown
from curricula.models.normalise import Normalise
from curricula.victim.copies import is_scripted

BACKBONE = "backbone"
"""The pattern of all layers except the head, unless a layer has this name."""


@attrs.frozen(kw_only=True)
class Layers:
    """Names of a network's frozen layers and of its head.

    Attributes:
        frozen: names of the frozen parameters.
        frozen_modules: names of the outermost modules that stay in eval mode, so that batch norm
            keeps its statistics and dropout is off: those that a pattern matches, and those whose
            parameters are all frozen.
        head: names of the head's parameters; none if they are not needed.
        head_modules: names of the head's modules.
    """

    frozen: frozenset[str] = frozenset()
    frozen_modules: tuple[str, ...] = ()
    head: frozenset[str] = frozenset()
    head_modules: tuple[str, ...] = ()

    def freeze(self, model: nn.Module) -> nn.Module:
        """Return the model, after its frozen parameters were set to get no gradients."""
        for name, parameter in model.named_parameters():
            if name in self.frozen:
                parameter.requires_grad_(False)
        return model

    def rest(self, model: nn.Module) -> None:
        """Set a model's frozen modules to eval mode."""
        for name in self.frozen_modules:
            model.get_submodule(name).eval()

    def notes(self, freeze: Sequence[str], head_lr: float) -> tuple[str, ...]:
        """Return lines that tell the user what is frozen, and which layer is the head."""
        notes = []
        if freeze:
            patterns = ", ".join(freeze)
            notes.append(f"freeze: {len(self.frozen)} parameters are not trained ({patterns})")
        if self.head_modules:
            rate = f", with learning rate {head_lr:g}" if head_lr else ""
            notes.append(f"head: {', '.join(self.head_modules)}{rate}")
        return tuple(notes)

    def groups(self, model: nn.Module, lr: float, head_lr: float) -> list[dict[str, object]]:
        """Return the groups of a model's parameters for an optimiser, without the frozen ones: all
        in one, or the head's in a second one if ``head_lr`` is above 0.

        Each group states the rate that the learning-rate schedule scales, as ``lr`` and
        ``base_lr``.
        """
        trained = [
            (name, each) for name, each in model.named_parameters() if name not in self.frozen
        ]
        if not head_lr:
            return [{"params": [each for _, each in trained], "lr": lr, "base_lr": lr}]
        groups = []
        for is_head, rate in ((False, lr), (True, head_lr)):
            chosen = [each for name, each in trained if (name in self.head) is is_head]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "base_lr": rate})
        return groups


def choose_layers(
    model: nn.Module,
    x_NCHW: Tensor,
    *,
    num_classes: int,
    name: str,
    freeze: Sequence[str] = (),
    needs_head: bool = False,
) -> Layers:
    """Return the frozen layers of a network and its head.

    Args:
        model: the network.
        x_NCHW: images that it takes; one is passed through it if the head is needed.
        num_classes: number of its outputs.
        name: its name in messages.
        freeze: patterns of parameters or modules, as of `fnmatch`, such as ``layer1.*``; or
            ``backbone``, all but the head.
        needs_head: whether the head is needed for something else.

    Raises:
        UserError: a pattern matches nothing, all layers would be frozen, or the head is needed and
            the last layer does not have ``num_classes`` outputs.
    """
    if is_scripted(model) and (freeze or needs_head):
        raise UserError(
            f"{name} is scripted or traced, and its layers cannot be separated: give the network "
            "that it was made from, or leave out freeze, head_lr and init_head"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    means_head = BACKBONE in freeze and not _matches(model, BACKBONE)
    head_modules: tuple[str, ...] = ()
    if needs_head or means_head:
        head_modules = _head_of(model, x_NCHW, num_classes, name)
    head = {id(each) for module in head_modules for each in modules[module].parameters()}
    frozen: set[int] = set()
    frozen_modules: set[str] = set()
    for pattern in freeze:
        if pattern == BACKBONE and means_head:
            frozen |= {id(each) for each in model.parameters()} - head
            continue
        found = _matches(model, pattern)
        if not found:
            raise UserError(
                f"freeze (--freeze) {shown(pattern)} matches no layer of {name}; "
                f"{_fix(model, pattern)}"
            )
        for each in found:
            if each in modules:
                frozen_modules.add(each)
                frozen |= {id(parameter) for parameter in modules[each].parameters()}
            else:
                frozen.add(id(dict(model.named_parameters(remove_duplicate=False))[each]))
    trained = [each for each in model.parameters() if each.requires_grad and id(each) not in frozen]
    if freeze and not trained:
        raise UserError(
            f"freeze (--freeze) {shortened(', '.join(freeze))} freezes all layers of {name}, so "
            f"that nothing would be trained; its layers: {_layers(model)}; leave the last one out, "
            f"as --freeze {BACKBONE} does"
        )
    for each, module in modules.items():
        own = [id(parameter) for parameter in module.parameters()]
        if own and frozen.issuperset(own):
            frozen_modules.add(each)
    names = [(each, id(parameter)) for each, parameter in model.named_parameters()]
    return Layers(
        frozen=frozenset(each for each, number in names if number in frozen),
        frozen_modules=_outermost(frozen_modules),
        head=frozenset(each for each, number in names if number in head),
        head_modules=head_modules,
    )


def _outermost(names: Collection[str]) -> tuple[str, ...]:
    """Return the names of modules that are inside none of the others, in alphabetical order."""
    return tuple(
        sorted(
            name
            for name in names
            if not any(name.startswith(f"{outer}.") or (not outer and name) for outer in names)
        )
    )


def _matches(model: nn.Module, pattern: str) -> list[str]:
    """Return the names of a model's parameters, and of its modules that hold parameters or buffers,
    that a pattern matches.

    Names are those within the network, without the number that it has behind a `Normalise` layer.
    """
    modules = [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if name and (any(True for _ in module.parameters()) or any(True for _ in module.buffers()))
    ]
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    begin = _begin(model)
    return [
        name
        for name in (*modules, *parameters)
        if fnmatchcase(name.removeprefix(begin), pattern) and name + "." != begin
    ]


def _begin(model: nn.Module) -> str:
    """Return what the names of all layers behind a `Normalise` layer begin with."""
    wraps = isinstance(model, nn.Sequential) and len(model) == 2 and isinstance(model[0], Normalise)
    return "1." if wraps else ""


def _fix(model: nn.Module, pattern: str) -> str:
    begin = _begin(model)
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters()) if name]
    names = [name.removeprefix(begin) for name in names]
    return did_you_mean(pattern, names, otherwise=f"its layers: {_layers(model)}")


def _layers(model: nn.Module) -> str:
    """Return the names of a model's layers, the outermost only, for a message."""
    begin = _begin(model)
    names = [name.removeprefix(begin).partition(".")[0] for name, _ in model.named_parameters()]
    return shortened(", ".join(dict.fromkeys(names)))


def _head_of(model: nn.Module, x_NCHW: Tensor, num_classes: int, name: str) -> tuple[str, ...]:
    """Return the names of the modules of a network's head: the last layer called that has a weight
    matrix, which must have ``num_classes`` outputs, and the layers called after it, such as a batch
    norm of the logits.

    Raises:
        UserError: the last layer has a different number of outputs.
    """
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, label=label: called.append(label))
        for label, module in model.named_modules()
        if _own_parameters(module) and "parametrizations" not in label.split(".")
    ]
    was_training = [module for module in model.modules() if module.training]
    try:
        with torch.no_grad():
            device = next((each.device for each in model.parameters()), x_NCHW.device)
            model.eval()(x_NCHW[:1].to(device, copy=True))
    finally:
        for module in was_training:
            module.training = True
        for hook in hooks:
            hook.remove()
    order = list(dict.fromkeys(reversed(called)))[::-1]  # by the last call of each
    modules = dict(model.named_modules())
    last = max(
        (
            i
            for i, each in enumerate(order)
            if any(p.ndim > 1 for p in _own_parameters(modules[each]))
        ),
        default=None,
    )
    weight = None if last is None else getattr(modules[order[last]], "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or len(weight) != num_classes:
        raise UserError(
            f"{name} does not end in a layer with {num_classes} outputs, so that its head is not "
            f"known: leave out head_lr, init_head and freeze = {BACKBONE}, or end it in such a "
            "layer, such as nn.Linear"
        )
    return tuple(order[last:])


def _own_parameters(module: nn.Module) -> list[Tensor]:
    """Return the parameters of a module itself, those that a parametrisation computes its weights
    from among them."""
    parametrized = getattr(module, "parametrizations", None)
    computed = list(parametrized.parameters()) if isinstance(parametrized, nn.Module) else []
    return [*module.parameters(recurse=False), *computed]
