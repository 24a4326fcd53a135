"""Health of filters: from numbers to verdicts that are calibrated against chance.

The null model of random filters, the verdicts, the examination of a layer, and when to tell the
user. Imports ``filters`` and ``probe``; ``drawing`` and all that comes after it may import it.
"""
