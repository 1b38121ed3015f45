"""A statistical setting in which spatial and adversarial robustness provably trade off: its closed
forms, their simulation, and what training reaches there. It stands beside the library, which knows
images alone."""
