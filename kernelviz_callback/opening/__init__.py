"""Weights out of any file: found by name and shape, read alone, nothing in the file executed."""
