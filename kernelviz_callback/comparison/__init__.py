"""Comparison: what changed between checkpoints, and how similar two networks are.

``compare.py`` reads the checkpoints, ``matching.py`` matches their filters, and ``comparison.py``
has the result. The result is shown as a table, as strips of tiles, as a chart or as a page. This
package imports ``checkpoints`` and all below it. ``commands`` may import it. It never imports
``training`` or Lightning.
"""
