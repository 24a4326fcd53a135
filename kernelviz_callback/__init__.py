"""See a network's first layer learn.

``Trainer(callbacks=[KernelVizCallback()])`` pictures the kernels of the first convolution, and
their responses to one fixed probe image, at the start of training and at each epoch end.

``__init__.pyi`` lists the public names. Each is loaded when it is first used, so that importing the
package costs nothing.
"""

import lazy_loader

from kernelviz_callback._version import __version__ as __version__
from kernelviz_callback.forking import make_forks_safe as _make_forks_safe

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)

_make_forks_safe()


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
