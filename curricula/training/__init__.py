"""The one training loop, its configuration, its checkpoints and its run folder."""
