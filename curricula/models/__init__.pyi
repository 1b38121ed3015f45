from .build import build_model as build_model
from .normalise import Normalise as Normalise
