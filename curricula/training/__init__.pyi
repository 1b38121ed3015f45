from .callbacks import Callback as Callback
from .callbacks import NoCallback as NoCallback
from .config import TrainConfig as TrainConfig
from .run import Run as Run
from .step import Update as Update
