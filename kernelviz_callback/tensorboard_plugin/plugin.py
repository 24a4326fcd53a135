"""The server of the Kernels tab in TensorBoard: it serves the page, the timeline and weights."""

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import TypeAlias

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import FrontendMetadata, TBContext, TBPlugin
from tensorboard.util import tb_logging
from werkzeug import Request, Response

from kernelviz_callback.tensorboard_plugin.catalogue import Catalogue, ListedRun
from kernelviz_callback.tensorboard_plugin.codec import PLUGIN_NAME, check_payload
from kernelviz_callback.tensorboard_plugin.event_store import EventStore
from kernelviz_callback.tensorboard_plugin.header import Header, tag_of
from kernelviz_callback.tensorboard_plugin.timeline import RunTimeline

MOST_IDS = 64  # of a request; each payload has at most 1 MiB, TensorBoard's own limit is 256 MiB

_STATIC = files(__package__) / "static"
_SERVED = (".css", ".js")
_BYTES = "application/octet-stream"
_WsgiApp: TypeAlias = Callable[..., Iterable[bytes]]

_log = tb_logging.get_logger()


class KernelsPlugin(TBPlugin):  # type: ignore[misc]
    """Serve the tab *Kernels*.

    The methods ``*_route`` answer HTTP requests, the methods ``*_impl`` return the data. The runs,
    layers, ids and digests of a request are only compared with those that TensorBoard has listed:
    none of them is used as a path.

    Args:
        context: The context that TensorBoard gives its plugins.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: TBContext) -> None:
        self._store = EventStore(context.data_provider)
        self._catalogue = Catalogue()

    def get_plugin_apps(self) -> dict[str, _WsgiApp]:
        """Return the routes: those for data, and one for each file of the page."""
        names = [path.name for path in _STATIC.iterdir() if path.name.endswith(_SERVED)]
        static = {f"/{name}": _app(partial(_static_route, name)) for name in names}
        return {
            **static,
            "/timeline": _app(self.timeline_route),
            "/snapshots": _app(self.snapshots_route),
            "/probe": _app(self.probe_route),
        }

    def is_active(self) -> bool:
        """Return whether there is anything to show. TensorBoard calls this for each page load."""
        return self._store.has_events(RequestContext(), experiment="")

    def frontend_metadata(self) -> FrontendMetadata:
        """Describe the tab. Its page updates itself, and at once on TensorBoard's reload button."""
        return FrontendMetadata(es_module_path="/index.js", tab_name="Kernels")

    def timeline_route(self, request: Request) -> Response:
        """Answer with the timeline of all runs, as JSON."""
        text = self.timeline_impl(*_origin(request), request.args.get("revision"))
        return _respond(request, text, "application/json")

    def snapshots_route(self, request: Request) -> Response:
        """Answer with payloads of a layer: their count, their lengths, then the payloads."""
        ids = _argument(request, "ids").split(",")
        run, layer = _argument(request, "run"), _argument(request, "layer")
        payloads = self.snapshots_impl(*_origin(request), run, layer, ids)
        lengths = struct.pack(f"<{len(ids) + 1}I", len(ids), *map(len, payloads))
        return _respond(request, b"".join([lengths, *payloads]), _BYTES)

    def probe_route(self, request: Request) -> Response:
        """Answer with the payload of a probe."""
        run, digest = _argument(request, "run"), _argument(request, "digest")
        return _respond(request, self.probe_impl(*_origin(request), run, digest), _BYTES)

    def timeline_impl(
        self, context: RequestContext, experiment: str, revision: str | None = None
    ) -> str:
        """Return the timeline as JSON, or only ``unchanged`` if it still has the ``revision``."""
        catalogue = self._refreshed(context, experiment)
        if revision == catalogue.revision:
            return json.dumps({"revision": revision, "unchanged": True})
        return catalogue.text

    def snapshots_impl(
        self, context: RequestContext, experiment: str, run: str, layer: str, ids: Sequence[str]
    ) -> list[bytes]:
        """Return the payloads of snapshots.

        Returns:
            One payload for each id; empty if the id is unknown, or the payload is damaged or cannot
            be read now.

        Raises:
            InvalidArgumentError: If there are more than `MOST_IDS` ids.
            NotFoundError: If the run or the layer does not exist.
        """
        if len(ids) > MOST_IDS:
            raise errors.InvalidArgumentError(
                f"expected at most {MOST_IDS} ids; found {len(ids)}: split the request"
            )
        listed = self._run(context, experiment, run, lambda found: layer in found.layers)
        snapshots = listed.timeline.layers.get(layer)
        if snapshots is None:
            raise errors.NotFoundError(f"run {run!r} has no layer {layer!r}")
        headers = {tag_of(snapshots[each]): snapshots[each] for each in ids if each in snapshots}
        payloads = self._read(context, experiment, listed.origin, headers)
        return [
            payloads.get(tag_of(snapshots[each]), b"") if each in snapshots else b"" for each in ids
        ]

    def probe_impl(self, context: RequestContext, experiment: str, run: str, digest: str) -> bytes:
        """Return the compressed payload of a probe.

        Raises:
            NotFoundError: If the run or the probe does not exist, or cannot be read.
        """
        listed = self._run(context, experiment, run, lambda found: digest in found.probes)
        header = listed.timeline.probes.get(digest)
        if header is None:
            raise errors.NotFoundError(f"run {run!r} has no probe {digest!r}")
        tag = tag_of(header)
        payload = self._read(context, experiment, listed.origin, {tag: header}).get(tag)
        if payload is None:
            raise errors.NotFoundError(f"the probe {digest!r} of run {run!r} cannot be read")
        return payload

    def _refreshed(self, context: RequestContext, experiment: str) -> Catalogue:
        headers = self._store.headers(context, experiment)
        self._catalogue = now = self._known(experiment).updated(headers)
        return now

    def _known(self, experiment: str) -> Catalogue:
        catalogue = self._catalogue
        return catalogue if catalogue.experiment == experiment else Catalogue(experiment)

    def _run(
        self,
        context: RequestContext,
        experiment: str,
        run: str,
        is_complete: Callable[[RunTimeline], bool],
    ) -> ListedRun:
        """Find a run. TensorBoard lists its events again only if the run is not complete."""
        runs = self._known(experiment).runs
        if run not in runs or not is_complete(runs[run].timeline):
            runs = self._refreshed(context, experiment).runs
        if run not in runs:
            raise errors.NotFoundError(
                f"found no run {run!r}; reload the page for the list of runs"
            )
        return runs[run]

    def _read(
        self, context: RequestContext, experiment: str, origin: str, headers: Mapping[str, Header]
    ) -> dict[str, bytes]:
        """Read payloads by tag. Damaged ones are left out, and listed in the next timeline."""
        payloads, damaged = {}, {}
        for tag, payload in self._store.payloads(context, experiment, origin, [*headers]).items():
            try:
                check_payload(headers[tag], payload)
                payloads[tag] = payload
            except ValueError as error:
                damaged[tag] = str(error)
        if damaged:
            self._catalogue = self._known(experiment).without(origin, damaged)
        return payloads


def _app(answer: Callable[[Request], Response]) -> _WsgiApp:
    """Make a route of a function. Every exception becomes a JSON answer with the reason."""

    def answer_or_reason(request: Request) -> Response:
        try:
            return answer(request)
        except errors.PublicError as error:
            code, reason = error.http_code, str(error)
        except Exception as error:
            _log.exception("kernelviz: cannot answer %s", request.full_path)
            code = 500
            reason = (
                f"the Kernels tab cannot answer ({type(error).__name__}): see TensorBoard's log"
            )
        return _respond(request, {"error": reason}, "application/json", code=code)

    return Request.application(answer_or_reason)


def _static_route(name: str, request: Request) -> Response:
    mime_type = "text/javascript" if name.endswith(".js") else "text/css"
    return _respond(request, (_STATIC / name).read_bytes(), mime_type)


def _respond(request: Request, content: object, mime_type: str, code: int = 200) -> Response:
    response: Response = http_util.Respond(request, content, mime_type, code=code)
    return response


def _origin(request: Request) -> tuple[RequestContext, str]:
    return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _argument(request: Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise errors.InvalidArgumentError(f"the request to {request.path} lacks {name}=")
    return value
