"""The texts and the digest of a safetensors file, and its arrays. Needs no torch."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curricula.runtime.files import open_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_HEADER = 100_000_000  # bytes; the library reads no longer header
DIGEST = "digest"  # text of a file of curricula that tells damage
CHANGED = "its contents changed after it was written"


def texts_in(content: bytes) -> dict[str, str]:
    """Return the texts in the bytes of a safetensors file, by name.

    Raises:
        Exception: the file is damaged; of many types.
    """
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__") or {}


def read_texts(path: Path) -> dict[str, str]:
    """Return the texts in a safetensors file, by name, without a look at its tensors.

    Raises:
        Exception: the file is missing or damaged; of many types.
    """
    with open_file(path) as stream:
        length = stream.read(8)
        return texts_in(length + stream.read(min(int.from_bytes(length, "little"), MAX_HEADER)))


def with_sorted_texts(content: bytes) -> bytes:
    """Return the bytes of a safetensors file with its texts in the order of their names.

    The library writes them in a random order, so that equal contents would differ as files.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    texts = header.pop("__metadata__", {})
    header = {"__metadata__": dict(sorted(texts.items())), **header}
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def content_digest(
    tensors: Iterable[tuple[str, str, Sequence[int], memoryview]], texts: Mapping[str, str]
) -> str:
    """Return a hash of tensors and texts, which tells damage.

    Args:
        tensors: name, data type, shape and bytes of each tensor, in the order of the names.
        texts: the texts, by name.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, text in sorted(texts.items()):
        digest.update(json.dumps([name, text]).encode())
    for name, dtype, shape, content in tensors:
        digest.update(json.dumps([name, dtype, list(shape)]).encode())
        digest.update(content)
    return digest.hexdigest()


def read_arrays(content: bytes) -> "tuple[dict[str, NDArray[Any]], dict[str, str]]":
    """Return the arrays and the texts, both by name, in the bytes of a safetensors file.

    Raises:
        Exception: the file is damaged; of many types.
    """
    import numpy as np
    from safetensors.numpy import load

    arrays, texts = load(content), texts_in(content)
    expected = texts.pop(DIGEST, None)
    parts = (
        (name, f"torch.{array.dtype}", array.shape, array.reshape(-1).view(np.uint8).data)
        for name, array in sorted(arrays.items())
    )
    if expected is not None and content_digest(parts, texts) != expected:
        raise ValueError(CHANGED)
    return arrays, texts
