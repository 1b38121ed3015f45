"""The probe of a checkpoint: the logits of a few fixed images, by which the network is recognised
when it comes again, from its class, its file or its caller.

Names and shapes of weights do not tell a ReLU from a GELU, or one normalisation from another.
"""

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curricula.errors import UserError, message_of
from curricula.runtime.modes import ordinary_mode
from curricula.runtime.parsing import parse_json
from curricula.runtime.precision import weight_dtype
from curricula.runtime.random_state import seed_torch
from curricula.runtime.records import from_json
from curricula.victim.copies import copied
from curricula.victim.outputs import checked_logits

PROBE = "probe"  # text of a checkpoint
PROBE_IMAGES = 2  # images of a probe
STEP = 0.6180339887498949  # from one pixel to the next, modulo 1
TOLERANCE = 0.01  # share of the largest logit: far more than rounding on another machine changes

SAME_NETWORK = "give the same class with the same arguments and normalisation, or restore its code"
"""The fix of an error about a network that is not the one of the checkpoint."""


def probe_of(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, str]:
    """Return the text of a checkpoint with the network's logits for fixed images; none for a
    network whose logits are random or not finite, or that does not run on the CPU.

    Args:
        network: the network, in any mode and on any device. It is not changed.
        image_shape: (channels, height, width) of its images.
    """
    logits_NK = _logits(network, image_shape)
    if logits_NK is None:
        return {}
    return {PROBE: json.dumps([[float(f"{x:.6g}") for x in row] for row in logits_NK.tolist()])}


def check_probe(
    texts: Mapping[str, str],
    network: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    source: str,
    fix: str,
) -> None:
    """Check that a network with the weights of a checkpoint returns the logits of its probe, up to
    rounding.

    Args:
        texts: texts of the checkpoint; those of earlier versions have no probe.
        network: the network, with these weights. It is not changed.
        image_shape: as for `probe_of`.
        source: the checkpoint, in messages.
        fix: what the user can do.

    Raises:
        UserError: it returns other logits, or the probe is damaged.
    """
    if PROBE not in texts:
        return
    try:
        expected_NK = torch.tensor(from_json(list[list[float]], parse_json(texts[PROBE])))
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: damaged ({PROBE}: {message_of(error)}); train again") from error
    found_NK = _logits(network, image_shape)
    if found_NK is not None and found_NK.shape == expected_NK.shape:
        largest = (found_NK - expected_NK).abs().amax()
        if bool(largest <= TOLERANCE * expected_NK.abs().amax()):
            return
    raise UserError(
        f"{source}: with its weights, this network returns other logits than the one that it was "
        f"saved from; {fix}"
    )


def _logits(network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor | None:
    """Return the logits (N, K) of fixed images in float32, from a copy of a network in eval mode on
    the CPU; None if they are random, not finite, or cannot be computed."""
    numbers = torch.arange(PROBE_IMAGES * image_shape[0] * image_shape[1] * image_shape[2])
    x_NCHW = (numbers.double() * STEP % 1).float().reshape(PROBE_IMAGES, *image_shape)
    found: list[Tensor] = []
    try:
        with torch.random.fork_rng(devices=[]), ordinary_mode(torch.device("cpu")):
            # Some networks compute weights when they change to eval mode.
            copy = copied(network).cpu().train().eval()
            x_NCHW = x_NCHW.to(weight_dtype(copy) or x_NCHW.dtype)
            for seed in (0, 1):
                seed_torch(seed)
                with torch.no_grad():
                    found.append(checked_logits(copy(x_NCHW.clone()), PROBE_IMAGES).float())
    except Exception:  # of third-party code
        return None
    first, second = found
    if not first.isfinite().all() or not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        return None
    return first
