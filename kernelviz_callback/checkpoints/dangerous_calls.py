"""Functions that do harm when a pickle calls them, and what each of them does.

A pickle calls functions by their names. A name is listed here only if the call itself is dangerous:
a class in a package that is called ``code`` or ``os_utils`` is as harmless as any other class.
"""

import re

_DANGERS = {
    "runs a program": r"(os|posix|nt)\.(system|popen\w*|exec[lv]\w*|spawn[lv]\w*|posix_spawnp?|"
    r"startfile|fork|forkpty)"
    r"|subprocess\.(Popen|run|call|check_call|check_output|getoutput|getstatusoutput)"
    r"|pty\.(spawn|fork)|(commands\.|popen2\.)\w+|multiprocessing\.\w*\.?Process"
    r"|asyncio\.(subprocess\.)?create_subprocess_\w+|distutils\.spawn\.spawn",
    "runs Python code": r"builtins\.(eval|exec|execfile|compile|breakpoint|__import__)"
    r"|runpy\.\w+|importlib\.(import_module|reload|__import__)|imp\.load_\w+"
    r"|code\.(interact|InteractiveConsole|InteractiveInterpreter)(\.\w+)?"
    r"|(pdb|bdb|timeit|profile|cProfile|trace)\.(\w+\.)?(run\w*|set_trace|timeit|repeat|Timer|Pdb)"
    r"|(pickle|_pickle|dill|cloudpickle|joblib|marshal)(\.\w+)*\.loads?|torch\.load"
    r"|torch\.serialization\.load|torch\.jit\.load|torch\.hub\.load",
    "opens or changes files": r"(builtins|io|_io|os|posix|codecs)\.(open|FileIO|fdopen)"
    r"|(os|posix|nt|pathlib\.\w+)\.(remove|unlink|rmdir|removedirs|renames?|replace|truncate|"
    r"chmod|chown|symlink|link|mkdir|makedirs|write_bytes|write_text|touch)"
    r"|shutil\.(rmtree|move|copy\w*|chown|make_archive|unpack_archive)",
    "connects to other machines": r"socket\.(socket|create_connection|create_server|socketpair)"
    r"|urllib\.request\.\w+|(requests|httpx)\.(get|post|put|request|Session|Client)"
    r"|http\.client\.\w+|ftplib\.FTP\w*|smtplib\.SMTP\w*|webbrowser\.open\w*",
    "loads machine code": r"ctypes\.(CDLL|PyDLL|WinDLL|OleDLL|LibraryLoader|cdll\.\w+)"
    r"|ctypes\.util\.\w+|cffi\.FFI|torch\.(ops|classes)\.load_library",
}
_PATTERNS = {what: re.compile(pattern) for what, pattern in _DANGERS.items()}


def danger_of(name: str) -> str | None:
    """Return what a call of a function does that no checkpoint needs, or None if it does no harm.

    Args:
        name: Name of the function or class, as ``module.name``.

    Example:
        >>> danger_of("os.system"), danger_of("code.models.Net")
        ('runs a program', None)
    """
    return next((what for what, names in _PATTERNS.items() if names.fullmatch(name)), None)
