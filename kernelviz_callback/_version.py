"""The version of the package, for every module that writes it into a file."""

__version__ = "1.0.0"
