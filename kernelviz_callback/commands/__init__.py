"""Commands: what each command of ``kernelviz`` does after ``cli.py`` has read its arguments.

``demo.py``, ``show.py``, ``compare.py`` and ``evolve.py`` have one command each. This package may
import every other package. Only ``cli.py`` may import it.
"""
