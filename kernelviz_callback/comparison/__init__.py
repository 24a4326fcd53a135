"""Comparison: what changed between checkpoints, and how alike two networks are.

Filters are matched, differences measured, and shown as a table, strips of tiles or a page.
Imports ``checkpoints`` and all below it; ``commands`` may import it. Never imports ``training`` or
Lightning.
"""
