"""Count the images that AutoAttack leaves correct, by its authors' code and by curricula."""

import pyautoattack
from mine import model, x, y

import curricula

adversary = pyautoattack.AutoAttack(model, norm="Linf", eps=0.12, seed=0)
x_adversarial, _ = adversary.run_standard_evaluation(x, y)
print(*[int((model(images).argmax(1) == y).sum()) for images in (x, x_adversarial)])

results = curricula.evaluate(model, (x, y), ["clean", "autoattack:0.12"])
print(*[result.correct for result in results])
