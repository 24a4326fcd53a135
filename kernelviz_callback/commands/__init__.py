"""Commands: what each command of ``kernelviz`` does once its arguments are read.

May import every other package; only ``cli.py`` may import it.
"""
