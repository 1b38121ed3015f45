"""A statistical setting in which spatial and adversarial robustness provably trade off.

The package holds closed forms of the accuracies, their simulation, models trained in the setting,
and the command ``curricula theory`` that prints and draws all three.
"""
