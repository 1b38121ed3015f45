"""Compare the images of curricula-corruptions with those of imagecorruptions 1.1.2, run on the same
random numbers, and print the largest difference of each corruption and severity in levels of 255.

    python tests/tools/corruptions_parity.py
"""

import importlib
import sys
from pathlib import Path

import click
import torch
from PIL import Image
from script import Script
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2.functional import pil_to_tensor

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "plugins" / "curricula-corruptions")]

from curricula_corruptions.filters import luminance  # noqa: E402
from curricula_corruptions.plugin import COMMON, EXTRA, STRENGTHS  # noqa: E402
from fixtures.published_corruptions import ROUNDING, agrees, corrupted  # noqa: E402

ALL = {**COMMON, **EXTRA}
KINDS = ((3, 28), (3, 32), (3, 64), (3, 224), (1, 28), (1, 32))
"""Channels and side of the images that are compared."""


def photographs(channels: int, side: int) -> torch.Tensor:
    """Return the two photographs of scikit-learn in whole levels, N = 2."""
    images = [
        Image.fromarray(pixels).resize((side, side)) for pixels in load_sample_images().images
    ]
    x_NCHW = torch.stack([pil_to_tensor(image) for image in images]) / 255
    return x_NCHW if channels == 3 else (luminance(x_NCHW) * 255).round() / 255


def make(name: str):
    """Return a corruption by its name, frost with the published photographs."""
    module, attribute = ALL[name].split(":")
    factory = getattr(importlib.import_module(f"curricula_corruptions.{module}"), attribute)
    return factory(textures="imagecorruptions") if name == "frost" else factory()


def differences(name: str, x_NCHW: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the differences in levels of images from the published ones."""
    perturbation = make(name)
    fields = perturbation.fields(x_NCHW, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    ours = perturbation(x_NCHW, None, strength=strength, victim=None, generator=generator)
    severity = 1 + STRENGTHS.index(strength)
    theirs = [
        corrupted(name, severity, x_CHW, numbers)
        for x_CHW, *numbers in zip(x_NCHW, *fields, strict=True)
    ]
    return (ours - torch.stack(theirs)).abs() * 255


@click.command(cls=Script)
@click.option("--name", "names", multiple=True, default=tuple(ALL), help="One; repeatable.")
def main(names: tuple[str, ...]) -> None:
    """Print the table; exit with 1 if a difference is beyond its tolerance."""
    print("| corruption | 1 | 2 | 3 | 4 | 5 | values that differ |")
    print("|---|---|---|---|---|---|---|")
    beyond = []
    for name in names:
        kinds = [kind for kind in KINDS if kind[0] in make(name).channels]
        largest, rounded, count = [], 0, 0
        for strength in STRENGTHS:
            found = [differences(name, photographs(*kind), strength) for kind in kinds]
            beyond += [(name, strength) for levels in found if not agrees(name, levels)]
            largest.append(max(float(levels.max()) for levels in found))
            rounded += sum(int((levels > ROUNDING).sum()) for levels in found)
            count += sum(levels.numel() for levels in found)
        cells = [f"{number:.3f}" for number in largest]
        print(f"| `{name}` | {' | '.join(cells)} | {100 * rounded / count:.4f} % |", flush=True)
    if beyond:
        raise SystemExit(f"beyond the tolerance: {beyond}")


if __name__ == "__main__":
    main()
