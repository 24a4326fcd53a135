"""The Kernels tab in TensorBoard: every snapshot of a run, drawn from its weights."""
