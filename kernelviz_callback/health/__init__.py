"""Find filters that are not healthy: numbers, verdicts, and alerts for the user.

`null_model` simulates random filters, `verdicts` compares the numbers of filters with it, `examine`
does this for a layer, and `alerts` decides when to warn. Imports ``filters``, ``probe`` and
``model``; ``drawing`` and every package above it may import it. `verdict_names` imports nothing, so
that ``tensorboard_plugin`` can import it too.
"""
