from .config import TrainConfig as TrainConfig
from .loop import Callback as Callback
from .loop import NoCallback as NoCallback
from .run import Run as Run
