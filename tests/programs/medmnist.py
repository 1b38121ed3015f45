"""Train on images and labels in a file of MedMNIST's layout, and measure on its validation part."""

import curricula

values = {"model": "lenet", "epochs": 1, "batch_size": 10, "output": "run"}
trained = curricula.train(data="npz", data_root="own.npz", perturb="rot", **values)
print(trained.run.config.data, trained.results[0].n, len(trained.run.metrics))
(clean,) = curricula.evaluate(trained.run, threats=["clean"], split="validation")
print(clean.n)
