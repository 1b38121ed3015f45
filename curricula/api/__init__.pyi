from .exporting import Exported as Exported
from .exporting import export as export
from .predicting import Prediction as Prediction
from .predicting import predict as predict
from .training import Trained as Trained
