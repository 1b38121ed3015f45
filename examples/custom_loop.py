"""Use a curriculum and a victim in your own training loop.

Trains a small network on the embedded digits for a few epochs, then measures it on the first 200
test images, clean and under three threats. Run it with

    python examples/custom_loop.py
"""

import torch
import torch.nn.functional as F
from torch import nn

import curricula

EPOCHS = 5
BATCH_SIZE = 64


def small_network(num_classes: int) -> nn.Module:
    """Return two convolutions that read 28x28 grey images at half their size."""
    return nn.Sequential(
        curricula.models.Normalise(),
        nn.AvgPool2d(2),
        nn.Conv2d(1, 16, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, num_classes),
    )


def main() -> None:
    torch.set_num_threads(1)  # a small network gains nothing from more
    torch.manual_seed(0)
    data = curricula.load_data("digits")
    model = small_network(data.num_classes)
    curriculum = curricula.Curriculum.parse(
        "rot:30+pgd(0.1, steps=3)", ["rot=constant", "pgd=linear(until=0.5)"]
    )
    victim = curricula.ModelVictim(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    order = torch.Generator().manual_seed(0)
    draws = torch.Generator().manual_seed(1)
    steps_per_epoch = len(data.train) // BATCH_SIZE
    step = 0
    for epoch in range(EPOCHS):
        loss_sum = 0.0
        for _, batch in curricula.batches(data.train, BATCH_SIZE, generator=order):
            progress = curricula.Progress(
                step=step,
                total_steps=EPOCHS * steps_per_epoch,
                epoch=epoch,
                total_epochs=EPOCHS,
            )
            strengths = curriculum.strengths(progress)
            views = curriculum(
                data.images(batch.pixels),
                batch.labels,
                strengths=strengths,
                victim=victim,
                generator=draws,
            )
            model.train()
            loss = F.cross_entropy(model(views.perturbed), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += float(loss.detach())
            step += 1
        shown = ", ".join(f"{label} {strength:.2f}" for label, strength in strengths.items())
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {loss_sum / steps_per_epoch:.3f}  [{shown}]")

    threats = {
        name: curricula.Threat.parse(text)
        for name, text in {
            "clean": "clean",
            "spatial": "rot:30",
            "adversarial": "pgd(0.1, steps=10)",
            "joint": "rot:30+pgd(0.1, steps=10)",
        }.items()
    }
    for result in curricula.evaluation.evaluate_threats(model, data, data.test[:200], threats):
        print(result)


if __name__ == "__main__":
    main()
