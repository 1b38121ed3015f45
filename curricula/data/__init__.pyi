from .dataset import DataSet as DataSet
from .dataset import Split as Split
from .dataset import SplitLike as SplitLike
from .dataset import batches as batches
from .dataset import load_data as load_data
from .lazy_split import LazySplit as LazySplit
from .lazy_split import Reader as Reader
from .spec import ImageSpec as ImageSpec
