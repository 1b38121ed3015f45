"""The attacks of torchattacks as perturbations of curricula."""
