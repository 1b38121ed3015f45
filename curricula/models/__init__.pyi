from .build import build_model as build_model
from .normalise import Normalise as Normalise
from .randomised import Randomised as Randomised
from .weights import load_weights as load_weights
from .weights import read_weights as read_weights
