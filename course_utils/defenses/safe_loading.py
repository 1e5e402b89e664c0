"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import Tensor


def is_promised(content: bytes, promised: str) -> bool:
    """Whether the SHA-256 hash of some bytes is the promised one.

    promised: 64 hexadecimal digits, in capitals or not, perhaps with spaces around them.
    """
    return hashlib.sha256(content).hexdigest() == promised.strip().lower()


class UnsafeFileError(RuntimeError):
    """A file that is not what was promised, or that holds more than weights."""


def load_weights(path: Path, promised: str) -> dict[str, Tensor]:
    """Load weights from a .pt or .safetensors file whose SHA-256 hash is the promised one.

    The bytes are read once: what was hashed is what is loaded. Raises UnsafeFileError if the hash
    differs or the file holds anything but weights; then none of its code has run.
    """
    content = Path(path).read_bytes()
    if not is_promised(content, promised):
        raise UnsafeFileError(f"{path.name} has another hash than the promised {promised[:8]}...")
    if path.suffix == ".safetensors":
        return safetensors_weights(content)
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(f"{path.name} holds more than weights: do not load it.") from error


def safetensors_weights(content: bytes) -> dict[str, Tensor]:
    """Weights from the bytes of a safetensors file: a format without any code.

    Raises UnsafeFileError if the package safetensors is missing, or cannot read the file.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load as read
    except ImportError as error:
        raise UnsafeFileError(
            "The package safetensors reads this file: pip install safetensors."
        ) from error
    try:
        return read(content)
    except SafetensorError as error:
        raise UnsafeFileError(f"This is no safetensors file: {error}.") from error
