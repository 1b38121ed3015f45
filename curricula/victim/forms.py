"""Choose how a frozen copy runs a network in eval mode, so that it computes what the network
computes, now and after each update, and changes nothing of it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.module import register_module_forward_pre_hook

from curricula.errors import UserError
from curricula.runtime.precision import no_tf32
from curricula.runtime.random_state import seeded
from curricula.victim.copies import (
    copied,
    copy_with_tensors,
    is_scripted,
    moved_names,
    registered,
    restore,
    restored,
    values_of,
)
from curricula.victim.equivalence import equal_up_to
from curricula.victim.outputs import checked_logits

MAX_TRIED = 2  # images: none of what is looked for depends on them
WEIGHT_NOISE = 0.05  # share of a weight's root mean square that an update in the check adds
MAX_NOISE = 4099  # values drawn for a tensor and repeated: a prime, so that no row is another's
LEAST_NOISE = 1e-3  # standard deviation of what it adds to weights that are zero
SAME_CODE = 1e-4  # share of the largest logit that two passes of the same code may differ by


class Form(IntEnum):
    """The way in which a frozen copy runs a network.

    - ``SHARED``: a copy of the modules around the network's own tensors.
    - ``COPIED``: a deep copy, made again when weights have changed, for modules that compute
      something when they change to eval mode.
    - ``ITSELF``: the network itself, its training flags set to eval mode during each pass, for
      networks whose copy would still run the network's modules, and for TorchScript.
    """

    SHARED = 0
    COPIED = 1
    ITSELF = 2


@attrs.frozen(kw_only=True, eq=False)
class Choice:
    """The form in which to run a network.

    Attributes:
        form: the form.
        others: modules with tensors that its code runs and that do not belong to it.
    """

    form: Form
    others: tuple[nn.Module, ...] = ()


def eval_copy(network: nn.Module) -> nn.Module:
    """Return a deep copy of a network in eval mode, whose weights require no gradient."""
    found = copied(network)
    found.eval()  # may return None, where a network has its own
    return found.requires_grad_(False)


def shared_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network in eval mode around the same tensors, which require no gradient
    there."""
    found = copy_with_tensors(network, Tensor.detach)
    found.eval()
    return found


def shares_tensors(copy: nn.Module, network: nn.Module) -> bool:
    """Return whether a copy has the network's parameters and buffers in the same memory, and none
    of its modules."""
    of_copy, of_network = (
        [(name, tensor.data_ptr()) for _, name, tensor in registered(each)]
        for each in (copy, network)
    )
    return of_copy == of_network and not set(copy.modules()) & set(network.modules())


def least_form(network: nn.Module) -> Form:
    """Return the first form that may be right for a network, as far as can be known without images.

    The network is not changed.
    """
    if is_scripted(network):
        return Form.ITSELF  # a copy has its own tensors, and cannot be given others
    try:
        if any(tensor.is_inference() for _, _, tensor in registered(network)):
            return Form.COPIED  # gradients cannot pass through such tensors
        if _has_own_mode(network) and _computes_in_eval_mode(network):
            return Form.COPIED
    except Exception:  # attributes that cannot be copied, or a mode that cannot be set
        return Form.ITSELF
    return Form.SHARED


def choose_form(network: nn.Module, x_NCHW: Tensor, least: Form) -> Choice:
    """Return the form in which to run a network, found by running copies of it on a few images.

    The network, its flags and the global random states are left as they were.

    Args:
        network: the network, in any mode.
        x_NCHW: images, in the dtype of its weights; the first `MAX_TRIED` are enough.
        least: the first form to try, as `least_form` returns it.

    Raises:
        UserError: its output is not logits (N, K); no form is right.
        Exception: whatever the network raises on the images.
    """
    x = x_NCHW.detach()[:MAX_TRIED].contiguous()
    copy = None if least is Form.ITSELF else _separate_copy(network)
    if copy is None:
        return _itself(network, x)
    try:
        trial = _Trial.of(copy, network, x)
    except UserError:
        raise
    except Exception as error:  # maybe only because it is a copy
        return _itself(network, x, failure=error)
    trial.check()
    if trial.runs_foreign or _loose_weights(network):
        return _itself(network, x)
    if least is Form.COPIED or trial.moved or not _follows_weights(network, x, trial.first.logits):
        return Choice(form=Form.COPIED)
    return Choice(form=Form.SHARED)


def _separate_copy(network: nn.Module) -> nn.Module | None:
    """Return a deep copy of a network in eval mode; None if it cannot be copied, has no eval mode,
    or its copy has some of its modules."""
    try:
        copy = eval_copy(network)
    except Exception:
        return None
    return copy if set(network.modules()).isdisjoint(copy.modules()) else None


def _itself(network: nn.Module, x_NCHW: Tensor, failure: Exception | None = None) -> Choice:
    """Return the choice to run a network itself, after `_checked_itself`."""
    return Choice(form=Form.ITSELF, others=_checked_itself(network, x_NCHW, failure))


@contextmanager
def frozen_in_place(network: nn.Module, others: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Set a network, and other modules that it runs, to eval mode and their weights to require no
    gradients inside the block, by their flags alone; restore them afterwards."""
    modules = [*network.modules(), *others]
    weights = [
        weight
        for module in modules
        for weight in module.parameters(recurse=False)
        if weight.requires_grad
    ]
    with _flags(modules, training=False):
        try:
            for weight in weights:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in weights:
                weight.requires_grad_()


@contextmanager
def _flags(modules: Iterable[nn.Module], *, training: bool) -> Iterator[None]:
    """Set the training flags of modules inside the block, and restore them afterwards."""
    changed = [each for each in modules if getattr(each, "training", training) != training]
    try:
        for module in changed:
            module.training = training
        yield
    finally:
        for module in changed:
            module.training = not training


@attrs.frozen(kw_only=True, eq=False)
class _Pass:
    """A pass of a network.

    Attributes:
        logits: what it returned.
        others: modules that it ran and that do not belong to it, in order.
        training: those of them that were in training mode.
        needs_gradient: whether the logits depend on a tensor that requires a gradient.
    """

    logits: Tensor
    others: tuple[nn.Module, ...]
    training: tuple[nn.Module, ...]
    needs_gradient: bool


def _run(
    network: nn.Module,
    x_NCHW: Tensor,
    *,
    eval_others: bool = False,
    grad: bool = True,
    seed: int = 0,
) -> _Pass:
    """Run a network on a copy of images, from fixed random states, and note which modules run.

    Modules that do not belong to it are left as they were.

    Args:
        network: changed as its code changes it.
        x_NCHW: the images.
        eval_others: set modules that do not belong to the network to eval mode.
        grad: whether gradients are enabled.
        seed: seed of the global random states, which are restored.
    """
    own = set(network.modules())
    others: dict[nn.Module, bool] = {}
    kept: list[tuple[nn.Module, str, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: Any) -> None:
        if module in own or module in others:
            return
        others[module] = bool(getattr(module, "training", False))
        kept.extend(
            (module, name, buffer, buffer.detach().clone())
            for name, buffer in module.named_buffers(recurse=False)
        )
        if eval_others and others[module]:
            module.training = False

    hook = register_module_forward_pre_hook(note)
    try:
        with seeded(seed, x_NCHW.device), torch.set_grad_enabled(grad), no_tf32():
            output = network(x_NCHW.clone())
            logits = checked_logits(output, len(x_NCHW))
    finally:
        hook.remove()
        restore(kept)
        for module, training in others.items():
            if training:
                module.training = True
    return _Pass(
        logits=logits.detach().float(),
        others=tuple(others),
        training=tuple(module for module, training in others.items() if training),
        needs_gradient=logits.requires_grad,
    )


@attrs.frozen(kw_only=True, eq=False)
class _Trial:
    """Two passes of a copy of a network in eval mode, and what they show.

    Attributes:
        copy: the copy.
        x_NCHW: the images.
        first: its pass while the training flags of the network itself are off.
        runs_original: whether the copy runs the network's own modules: it does so visibly, or
            returns other logits while those flags are on.
        runs_foreign: whether it runs modules or weights that do not belong to the copy.
        moved: names of its tensors that the passes changed.
    """

    copy: nn.Module
    x_NCHW: Tensor
    first: _Pass
    runs_original: bool
    runs_foreign: bool
    moved: Sequence[str]

    @classmethod
    def of(cls, copy: nn.Module, network: nn.Module, x_NCHW: Tensor) -> "_Trial":
        """Return the trial of a copy of a network, which is left as it was."""
        own = set(network.modules())
        before = values_of(copy)
        with restored(network):  # even a copy may run its modules
            with _flags(own, training=False):
                first = _run(copy, x_NCHW)
            with _flags(own, training=True):
                again = _run(copy, x_NCHW, grad=False)
        same = equal_up_to(again.logits, first.logits, SAME_CODE)
        runs_original = not same or not own.isdisjoint(first.others)
        # A network that computes gradients itself also does so without gradients outside.
        has_loose_weight = first.needs_gradient and not again.needs_gradient
        return cls(
            copy=copy,
            x_NCHW=x_NCHW,
            first=first,
            runs_original=runs_original,
            runs_foreign=runs_original or has_loose_weight or bool(_foreign(first.others, copy)),
            moved=moved_names(before),
        )

    def check(self) -> None:
        """Check that the copy computes in eval mode what a network computes there.

        Raises:
            UserError: modules that do not belong to it compute something else in eval mode; it
                changes its tensors and depends on which images are in the batch.
        """
        if not self.runs_original:
            self._check_mode_of_others()
        if self.moved and not self.runs_foreign and self._depends_on_batch():
            raise UserError(
                f"the model changes its tensor {self.moved[0]} also in eval mode, and its logits "
                "depend on which images are in the batch, as in training mode; "
                f"{_eval_mode_fix(self.copy)}"
            )

    def _check_mode_of_others(self) -> None:
        if not self.first.training:
            return
        if not equal_up_to(
            _run(self.copy, self.x_NCHW, eval_others=True).logits, self.first.logits
        ):
            kinds = ", ".join(sorted({type(module).__name__ for module in self.first.training}))
            raise UserError(
                f"the model runs modules in training mode that do not belong to it ({kinds}), "
                "so that its eval() does not reach them; assign them to attributes of the model, "
                "or call their eval()"
            )

    def _depends_on_batch(self) -> bool:
        """Return whether the first image's logits change with the other images of its batch."""
        first_twice = self.x_NCHW[:1].expand_as(self.x_NCHW)
        logits = _run(self.copy, first_twice).logits
        return not equal_up_to(logits[:1], self.first.logits[:1])


def _follows_weights(network: nn.Module, x_NCHW: Tensor, logits_NK: Tensor) -> bool:
    """Return whether a copy around a network's tensors computes what the network in eval mode
    computes, before and after its weights change.

    Args:
        network: left as it was.
        x_NCHW: the images.
        logits_NK: logits of the network in eval mode on them.
    """
    try:
        scratch = copied(network)
        shared = shared_copy(scratch)
        if not equal_up_to(_run(shared, x_NCHW).logits, logits_NK):
            return False
        _add_noise(scratch)
        return equal_up_to(_run(shared, x_NCHW).logits, _run(eval_copy(scratch), x_NCHW).logits)
    except Exception:  # code that expects other weights may raise anything
        return False


def _checked_itself(
    network: nn.Module, x_NCHW: Tensor, failure: Exception | None
) -> tuple[nn.Module, ...]:
    """Check that a network itself can be run with its training flags set to eval mode, and return
    the modules with tensors that it runs and that do not belong to it.

    Args:
        network: left as it was.
        x_NCHW: the images.
        failure: what a copy raised, if it failed.

    Raises:
        UserError: it changes its tensors, or draws random numbers although it is TorchScript.
        Exception: ``failure``, if the network fails too.
    """
    before = values_of(network)
    try:
        with frozen_in_place(network):
            passes = [_run(network, x_NCHW, seed=seed) for seed in (0, 1)]
    except UserError:
        raise
    except Exception as error:
        if failure is not None:
            raise failure from error
        raise
    finally:
        moved = moved_names(before)
        restore(before)
    if moved:
        raise UserError(
            f"the model changes its tensor {moved[0]} also in eval mode, and cannot be copied, so "
            f"an attack would change the model; {_eval_mode_fix(network)}"
        )
    if is_scripted(network) and not equal_up_to(passes[0].logits, passes[1].logits):
        raise UserError(
            f"the model returns random logits also in eval mode; {_eval_mode_fix(network)}"
        )
    return _foreign(passes[0].others, network)


def _eval_mode_fix(network: nn.Module) -> str:
    """Return what a user can do about a network that behaves as in training mode, as text."""
    if is_scripted(network) or any(isinstance(each, GraphModule) for each in network.modules()):
        return "call model.eval() before torch.jit.trace or torch.export, or give the original"
    return "let its forward change tensors and use the batch's statistics only if self.training"


def _foreign(others: Iterable[nn.Module], network: nn.Module) -> tuple[nn.Module, ...]:
    """Return the modules that have tensors other than the network's: a slice of a Sequential has
    none."""
    own = {id(tensor) for _, _, tensor in registered(network)}
    return tuple(
        module
        for module in others
        if any(id(tensor) not in own for _, _, tensor in registered(module))
    )


def _has_own_mode(network: nn.Module) -> bool:
    """Return whether a module of a network overrides ``train`` or ``eval``."""
    return any(
        getattr(type(module), name) is not getattr(nn.Module, name) or name in vars(module)
        for module in network.modules()
        for name in ("train", "eval")
    )


def _computes_in_eval_mode(network: nn.Module) -> bool:
    """Return whether a copy of a network changes tensors or modules when its mode changes."""
    scratch = copied(network)
    _add_noise(scratch)  # zero weights, such as new ones of LoRA, would hide what is computed
    for mode in (True, False):
        before = _contents(scratch)
        values = [
            value.detach().clone() if isinstance(value, Tensor) else value for value in before
        ]
        scratch.train(mode)
        after = _contents(scratch)
        if len(before) != len(after):
            return True
        for old, value, new in zip(before, values, after, strict=True):
            if old is not new:
                return True
            if isinstance(value, Tensor) and not torch.equal(value, new):
                return True
    return False


def _contents(network: nn.Module) -> list[Any]:
    """Return all modules and tensors that are attributes of a network's modules."""
    return [
        value
        for module in network.modules()
        for values in (vars(module), module._parameters, module._buffers, module._modules)
        for value in values.values()
        if isinstance(value, (Tensor, nn.Module))
    ]


def _loose_weights(network: nn.Module) -> bool:
    """Return whether a module keeps parameters in a list, tuple or dictionary that are not among
    its ``parameters()``, as those of recurrent layers are."""
    own = {id(weight) for weight in network.parameters()}
    return any(
        isinstance(value, nn.Parameter) and id(value) not in own
        for module in network.modules()
        for name, values in vars(module).items()
        if name != "_parameters" and type(values) in (list, tuple, dict)
        for value in (values.values() if type(values) is dict else values)
    )


def _add_noise(network: nn.Module) -> None:
    """Add noise to the weights of a network, as an update changes them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.is_floating_point():
                continue
            size = WEIGHT_NOISE * weight.float().square().mean().sqrt() + LEAST_NOISE
            some = torch.randn(min(weight.numel(), MAX_NOISE), generator=generator) * size.cpu()
            noise = some.repeat(math.ceil(weight.numel() / max(1, len(some))))[: weight.numel()]
            weight.add_(noise.view_as(weight).to(weight.device, weight.dtype))
