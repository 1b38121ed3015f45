from .drawing import draw as draw
from .previews import preview as preview
from .profiles import joint_figure as joint_figure

MAX_IMAGES: int
MAX_STRENGTHS: int
