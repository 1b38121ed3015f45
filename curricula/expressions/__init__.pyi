from .binding import bind as bind
from .nodes import Node as Node
from .syntax import parse as parse
