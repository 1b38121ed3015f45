from .hookspecs import Record as Record
from .hookspecs import hookimpl as hookimpl
from .registry import PluginWarning as PluginWarning
