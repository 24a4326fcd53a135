"""TensorBoard's entry point. It must not raise, otherwise TensorBoard does not start."""

import argparse

from tensorboard.plugins.base_plugin import TBContext, TBLoader, TBPlugin
from tensorboard.util import tb_logging

_PLUGIN_NAME = "kernels"
_ALL = 0

_log = tb_logging.get_logger()


class KernelsLoader(TBLoader):  # type: ignore[misc]
    """Add the Kernels tab to TensorBoard, if that is possible."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Set TensorBoard to keep all our events, unless the user has set another limit."""
        try:
            flags.samples_per_plugin.setdefault(_PLUGIN_NAME, _ALL)
        except Exception:
            _log.debug("kernelviz: cannot set how many events are kept", exc_info=True)

    def load(self, context: TBContext) -> TBPlugin | None:
        """Make the plugin; return None if that fails."""
        try:
            from kernelviz_callback.tensorboard_plugin.plugin import KernelsPlugin

            return KernelsPlugin(context)
        except Exception:
            _log.warning("kernelviz: the Kernels tab is missing", exc_info=True)
            return None
