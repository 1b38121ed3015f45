"""Measure the images per second of curricula-corruptions, in batches, and of imagecorruptions
1.1.2, image by image, on one core, and print them with their ratio.

    python tests/tools/corruptions_speed.py
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from corruptions_parity import ALL, make
from PIL import Image
from script import Script

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fixtures.published_corruptions import Numpy, load, published_name

SIZES = {32: (128, 16), 224: (8, 4)}
"""Images of a batch of ours, and published calls of one round, by the side in pixels."""

SEVERITY = 3


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median processor time of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


@click.command(cls=Script)
@click.option("--name", "names", multiple=True, default=tuple(ALL), help="One; repeatable.")
@click.option("--rounds", default=5, help="Rounds; medians are reported.", show_default=True)
def main(names: tuple[str, ...], rounds: int) -> None:
    """Print images per second at severity 3, ours and theirs, and the ratio."""
    torch.set_num_threads(1)
    module = load()
    module.np = Numpy(np.random)
    np.random.seed(0)
    heads = [f"{side} px: {what}" for side in SIZES for what in ("ours", "published", "ratio")]
    print(f"| corruption | {' | '.join(heads)} |")
    print(f"|{'---|' * (1 + len(heads))}")
    for name in names:
        cells = []
        for side, (batch, calls) in SIZES.items():
            generator = torch.Generator().manual_seed(0)
            x = (torch.rand((batch, 3, side, side), generator=generator) * 255).round() / 255
            pixels = (x[:calls] * 255).round().byte().permute(0, 2, 3, 1).numpy()
            images = [Image.fromarray(image) for image in pixels]
            perturbation = make(name)
            function = getattr(module, published_name(name))

            def ours(perturbation=perturbation, x=x, generator=generator):
                perturbation(x, None, strength=SEVERITY / 5, victim=None, generator=generator)

            def theirs(function=function, images=images):
                for image in images:
                    np.array(function(image, SEVERITY))

            fast = batch / seconds(ours, rounds)
            slow = calls / seconds(theirs, rounds if name != "glass-blur" else 1)
            cells += [f"{fast:,.0f}", f"{slow:,.0f}", f"{fast / slow:.1f}"]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
