"""The model under attack: a frozen, fast copy that perturbations query."""
