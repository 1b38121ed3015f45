from .model_victim import ModelVictim as ModelVictim
