"""The Kernels tab of TensorBoard: it draws every snapshot of a run from its weights.

``codec`` and ``header`` define what an event holds. ``loader`` is TensorBoard's entry point,
``plugin`` the server, and ``static/`` the page in the browser. The package imports neither torch
nor Lightning, so that TensorBoard starts quickly. ``snapshots`` and the packages above may import
it.
"""
