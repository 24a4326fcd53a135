"""Read our events from TensorBoard; retry once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tensorboard import errors
from tensorboard.context import RequestContext
from tensorboard.data.provider import DataProvider, RunTagFilter
from tensorboard.util import tb_logging

from kernelviz_callback.tensorboard_plugin.codec import PLUGIN_NAME

_Answer = TypeVar("_Answer")

_log = tb_logging.get_logger()


class EventStore:
    """Headers and payloads of our events, for every way in which TensorBoard loads data.

    Args:
        provider: TensorBoard's data provider; None if there is none, and so no events.
    """

    def __init__(self, provider: DataProvider | None) -> None:
        self._provider = provider

    def has_events(self, context: RequestContext, experiment: str) -> bool:
        """Return whether TensorBoard has any event of ours, without listing them."""
        if self._provider is None:
            return False
        return PLUGIN_NAME in self._provider.list_plugins(context, experiment_id=experiment)

    def headers(self, context: RequestContext, experiment: str) -> dict[str, dict[str, bytes]]:
        """List all events: run to tag to header, in the order in which they were written."""
        if self._provider is None:
            return {}
        provider = self._provider
        found = _retry_once(
            lambda: provider.list_tensors(
                context, experiment_id=experiment, plugin_name=PLUGIN_NAME
            )
        )
        return {run: _in_order(tags) for run, tags in found.items()}

    def payloads(
        self, context: RequestContext, experiment: str, run: str, tags: Sequence[str]
    ) -> dict[str, Any]:
        """Read events.

        Returns:
            Tag to content: bytes, or the exception where TensorBoard cannot unpack the event. A tag
            is absent if TensorBoard does not have the event or cannot answer now.
        """
        try:
            return _retry_once(lambda: self._read(context, experiment, run, tags))
        except errors.PublicError:
            raise
        except Exception as error:
            if len(tags) == 1:
                _log.warning("kernelviz: cannot read %r of run %r: %r", tags[0], run, error)
                return {tags[0]: error} if isinstance(error, TypeError | ValueError) else {}
        # A single event that cannot be unpacked makes the request for all of them fail.
        found: dict[str, Any] = {}
        for tag in tags:
            found |= self.payloads(context, experiment, run, [tag])
        return found

    def _read(
        self, context: RequestContext, experiment: str, run: str, tags: Sequence[str]
    ) -> dict[str, Any]:
        if self._provider is None:
            return {}
        found = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN_NAME,
            downsample=1,
            run_tag_filter=RunTagFilter(runs=[run], tags=tags),
        )
        return {tag: data[-1].numpy.item() for tag, data in found.get(run, {}).items() if data}


def _in_order(tags: Mapping[str, Any]) -> dict[str, bytes]:
    """Sort tags by time, without those whose events TensorBoard has purged."""
    events = [(series.max_wall_time, tag) for tag, series in tags.items()]
    written = sorted(event for event in events if event[0] is not None)
    return {tag: tags[tag].plugin_content for _, tag in written}


def _retry_once(request: Callable[[], _Answer]) -> _Answer:
    """Call a function; retry once, because TensorBoard's fast loader sometimes drops a request."""
    try:
        return request()
    except errors.PublicError:
        raise
    except Exception:
        _log.debug("kernelviz: repeating a request for TensorBoard's data", exc_info=True)
        return request()
