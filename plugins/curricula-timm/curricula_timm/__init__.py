"""The image classifiers of timm as curricula models."""
