"""Functions that harm the machine if a pickle calls them. No checkpoint needs to call one of them.

A pickle may name any function or class. The names of ordinary classes say nothing: a project may
have a package ``code`` or ``socket`` of its own. So only functions of Python itself, and of torch,
are listed here, each by its whole name.
"""

import re

_CALLS = {
    "runs a program": (
        r"(os|posix|nt)\.(system|popen|exec\w+|spawn\w+|posix_spawnp?|fork|forkpty|startfile)",
        r"subprocess\.(Popen|run|call|check_call|check_output|getoutput|getstatusoutput)",
        r"pty\.spawn",
        r"asyncio\.(subprocess\.)?create_subprocess_(exec|shell)",
    ),
    "runs Python code": (
        r"builtins\.(eval|exec|compile|breakpoint)",
        r"runpy\.(run_path|run_module|_run_code|_run_module_code)",
        r"code\.(interact|compile_command|InteractiveInterpreter|InteractiveConsole)(\.\w+)?",
        r"(pdb|bdb|cProfile|profile)\.(run|runeval|runcall|runctx|set_trace|Pdb|Bdb)(\.\w+)?",
        r"timeit\.(timeit|repeat|main|Timer)(\.\w+)?",
        r"torch\.utils\.cpp_extension\.(load|load_inline)",
    ),
    "imports a module": (
        r"builtins\.__import__",
        r"importlib\.(import_module|__import__|reload|_bootstrap\._gcd_import)",
        r"torch\.hub\.load",
    ),
    "loads a library into the process": (
        r"ctypes\.(CDLL|PyDLL|WinDLL|OleDLL|LibraryLoader)(\.\w+)?",
        r"torch\.ops\.load_library|torch\.classes\.load_library",
    ),
    "unpickles data, which may run anything": (
        r"_?pickle\.(loads?|_?Unpickler)(\.\w+)?",
        r"torch(\.serialization)?\.load",
        r"marshal\.loads?",
    ),
    "opens, changes or deletes files": (
        r"(builtins|io|_io|codecs|os|posix|nt)\.open",
        r"(os|posix|nt)\.(remove|unlink|rmdir|removedirs|rename|renames|replace|truncate|chmod"
        r"|chown|link|symlink|mkdir|makedirs|kill|killpg|putenv|chdir)",
        r"shutil\.(rmtree|move|copy\w*|chown|make_archive|unpack_archive)",
    ),
    "opens a connection": (
        r"_?socket\.(socket|create_connection|create_server)(\.\w+)?",
        r"urllib\.request\.(urlopen|urlretrieve)",
        r"webbrowser\.open\w*",
        r"requests\.(api\.)?(get|post|put|request)",
    ),
}
# A name may reach such a function through another module, as ``shutil.os.system`` does.
_THROUGH = r"(\w+\.)*(?=(os|posix|nt|subprocess|builtins)\.)"
_PATTERNS = {
    consequence: re.compile(f"(?:{_THROUGH})?(?:{'|'.join(names)})")
    for consequence, names in _CALLS.items()
}


def danger_of(name: str) -> str | None:
    """Return what a call of a function does to the machine; None if it is not known as dangerous.

    Args:
        name: ``module.name`` of the function, with the names of modules of Python 3.

    Example:
        >>> danger_of("os.system"), danger_of("code.models.Net")
        ('runs a program', None)
    """
    found = (does for does, pattern in _PATTERNS.items() if pattern.fullmatch(name))
    return next(found, None)
