"""Measure time and memory of averaged gradients (`eot=`): draws in one batch beside a loop.

    python tests/tools/eot_costs.py

PGD with eot=16 attacks random networks on one thread, each case in its own process. Time is that of
the processor, the shortest of three rounds; memory is what the largest resident size grew by. The
networks are untrained, which changes neither.
"""

import multiprocessing
import resource
import time

import torch

from curricula.data.spec import ImageSpec
from curricula.models import Randomised
from curricula.models.build import resolve_model
from curricula.perturbations.attacks.pgd import PGD
from curricula.victim import averaged
from curricula.victim.model_victim import ModelVictim

CASES = (("lenet", 1, 28), ("wrn(10, 1)", 3, 32))  # network, channels, pixels of a side
BATCHES = (1, 16, 128)
STEPS, EOT, ROUNDS = 2, 16, 3


def measured(case: tuple[str, int, int], batch: int, at_once: int) -> tuple[float, float]:
    """Return (milliseconds of an image, MiB) of one attack on a batch of images.

    Args:
        case: network, channels and pixels of a side.
        batch: images attacked together.
        at_once: pixels of the draws that run together; 1 for a loop over draws.
    """
    torch.set_num_threads(1)
    averaged.PIXELS_AT_ONCE = at_once
    name, channels, side = case
    spec = ImageSpec(classes=tuple("0123456789"), channels=channels, image_size=side)
    model = Randomised(resolve_model(name, spec).value, "gaussian:0.1").eval()
    victim, x_NCHW = ModelVictim(model), torch.rand((batch, channels, side, side))
    y_N = torch.zeros(batch, dtype=torch.long)
    attack = PGD(budget=0.1, steps=STEPS, eot=EOT)
    victim.gradient(x_NCHW[:1], y_N[:1])  # the first pass chooses the form of the network
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        attack(x_NCHW, y_N, strength=1.0, victim=victim, generator=torch.Generator())
        times.append(time.process_time() - began)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return 1000 * min(times) / batch, grown / 1024


def main() -> None:
    print(f"PGD, {STEPS} steps, eot={EOT}: ms per image (MiB)")
    print("| network | images | one batch | loop | time, loop / batch | memory, batch / loop |")
    print("|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for case in CASES:
        for batch in BATCHES:
            found = []
            for at_once in (averaged.PIXELS_AT_ONCE, 1):
                with context.Pool(1) as pool:
                    found.append(pool.apply(measured, (case, batch, at_once)))
            (fast, large), (slow, small) = found
            print(
                f"| {case[0]}, {case[1]}x{case[2]}x{case[2]} | {batch} | {fast:.1f} ({large:.0f}) "
                f"| {slow:.1f} ({small:.0f}) | {slow / fast:.1f} | {large / max(small, 1):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
