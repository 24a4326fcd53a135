"""What TensorBoard imports at its start: nothing here may fail, or TensorBoard does not start."""

import argparse

from tensorboard.plugins.base_plugin import TBContext, TBLoader, TBPlugin
from tensorboard.util import tb_logging

_PLUGIN_NAME = "kernels"
_ALL = 0

_log = tb_logging.get_logger()


class KernelsLoader(TBLoader):  # type: ignore[misc]
    """Adds the Kernels tab to TensorBoard, or leaves TensorBoard as it is."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Have TensorBoard keep every event of ours, unless the user has said otherwise."""
        try:
            flags.samples_per_plugin.setdefault(_PLUGIN_NAME, _ALL)
        except Exception:
            _log.debug("kernelviz: no sampling of its own", exc_info=True)

    def load(self, context: TBContext) -> TBPlugin | None:
        """Make the plugin, or None where it does not work."""
        try:
            from kernelviz_callback.tensorboard_plugin.plugin import KernelsPlugin

            return KernelsPlugin(context)
        except Exception:
            _log.warning("kernelviz: the Kernels tab is missing", exc_info=True)
            return None
