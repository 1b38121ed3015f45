"""Evaluate a robust MNIST model: savings from skipping fooled images, effects of cheap arithmetic.

Both sides of a comparison attack the same batches, in turn.
"""

import json
import time

import pytest
import torch

from curricula.curriculum import Threat
from curricula.data.dataset import in_order
from curricula.evaluation.accuracy import BATCH_SIZE
from curricula.expressions.random_streams import Streams
from curricula.victim.model_victim import ModelVictim

NUM_IMAGES = 10_000
ATTACK = "pgd(0.3, steps=40, rel_step=1/10)"


class Counted(ModelVictim):
    """A victim that counts the images that its network sees."""

    def __init__(self, model, **options):
        super().__init__(model, **options)
        self.seen = []

    def _forward(self, x_NCHW):
        self.seen.append(len(x_NCHW))
        return super()._forward(x_NCHW)


def compared(data, model, victims, threat):
    """Return accuracy, seconds and passes per image under the attack on each victim, and the number
    of images that differ between two victims. The plain network in float32 classifies."""
    threat, judge = Threat.parse(threat), ModelVictim(model, fast=False)
    robust = {name: [] for name in victims}
    took = dict.fromkeys(victims, 0.0)
    for number, batch in enumerate(in_order(data.test[:NUM_IMAGES], BATCH_SIZE)):
        turns = list(victims) if number % 2 else list(reversed(victims))
        for name in turns:
            streams = Streams.of(0, torch.arange(NUM_IMAGES)[number * BATCH_SIZE :][: len(batch)])
            began = time.perf_counter()
            x = threat(
                data.images(batch.pixels),
                batch.labels,
                victim=victims[name],
                generator=torch.Generator().manual_seed(0),
                streams=streams,
            )
            took[name] += time.perf_counter() - began
            with torch.no_grad():
                robust[name].append(judge.logits(x).argmax(1) == batch.labels)
    robust = {name: torch.cat(found) for name, found in robust.items()}
    first, second = robust.values()
    return {
        "threat": str(threat),
        "accuracy": {name: found.double().mean().item() for name, found in robust.items()},
        "differ": int((first != second).sum()),
        "seconds": took,
        "passes": {name: sum(victim.seen) / NUM_IMAGES for name, victim in victims.items()},
    }


@pytest.mark.parametrize("threat", [f"{ATTACK[:-1]}, restarts=5)", "worst(rot:30+pgd:0.3, k=10)"])
def test_skipping_fooled_images(benchmark, robust, threat):
    data, model = robust
    victims = {"active": Counted(model, early_stop=True), "all": Counted(model)}
    found = benchmark.pedantic(compared, args=(data, model, victims, threat), rounds=1)
    for of in ("passes", "seconds"):
        found[f"share of {of}"] = found[of]["active"] / found[of]["all"]
    benchmark.extra_info.update(found)
    print(json.dumps(found, indent=2))


def test_cheap_arithmetic(benchmark, robust):
    """Compare the attack as training runs it, folded, in bf16 and compiled, with plain float32."""
    data, model = robust
    victims = {
        "fast": Counted(model, precision="bf16", compiled=BATCH_SIZE),
        "plain": Counted(model, fast=False),
    }
    found = benchmark.pedantic(compared, args=(data, model, victims, ATTACK), rounds=1)
    benchmark.extra_info.update(found)
    print(json.dumps(found, indent=2))
