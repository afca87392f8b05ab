"""Lets `import torchvision` work where only its CUDA build exists beside a CPU build of torch.

The package index carries torchvision's CUDA build alone. Beside CPU torch its
operator library cannot load, and `import torchvision` then fails with
`operator torchvision::nms does not exist`: it registers fake kernels for
operators that nobody declared. Declaring the two schemas first is enough,
because this project uses torchvision's transforms and never those operators.

vLLM inspects model classes in a child process that imports torchvision too, so
the mend must live in the environment: `python -m venv`'s site-packages hold this
file and a `.pth` line that imports it at interpreter start. At that moment it
only registers a finder (torch is not imported). It does nothing where torch has
CUDA or where torchvision's operators load.
"""

import importlib.abc
import importlib.util
import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs once, at the first `import torchvision`, then steps aside."""

    library = None  # torch forgets the schemas when the Library object is collected

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torchvision")
        if spec is not None and spec.origin is not None and not _operators_load(spec.origin):
            self._declare_schemas()
        return None

    def _declare_schemas(self):
        import torch

        if torch.version.cuda is None:
            type(self).library = torch.library.Library("torchvision", "DEF")
            for schema in _SCHEMAS:
                type(self).library.define(schema)


def _operators_load(origin):
    import ctypes
    from pathlib import Path

    import torch  # noqa: F401  the operator library links against torch's libraries

    for library in Path(origin).parent.glob("_C*.so"):
        try:
            ctypes.CDLL(str(library))
        except OSError:
            return False
        return True
    return False


sys.meta_path.insert(0, _BeforeTorchvision())
