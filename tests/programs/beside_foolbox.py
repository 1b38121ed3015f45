"""Count the images that foolbox and curricula find correct: all, and those that PGD leaves."""

import foolbox
from mine import model, x, y

import curricula

theirs = foolbox.PyTorchModel(model, bounds=(0, 1))
attack = foolbox.attacks.LinfPGD(steps=10, rel_stepsize=0.25, random_start=False)
_, _, fooled = attack(theirs, x, y, epsilons=0.12)
print(round(len(x) * foolbox.accuracy(theirs, x, y)), int((~fooled).sum()))

threats = ["clean", "pgd(0.12, steps=10, random_start=false)"]
print(*[result.correct for result in curricula.evaluate(model, (x, y), threats)])
