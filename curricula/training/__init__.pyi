from .callbacks import Callback as Callback
from .callbacks import NoCallback as NoCallback
from .config import TrainConfig as TrainConfig
from .predictions import read_evaluation as read_evaluation
from .run import Run as Run
from .step import Update as Update
