"""Hashes of what the course's code does, so that a result records which code made it."""

import ast
import functools
import inspect
import json
import sys
import textwrap
from pathlib import Path

from course.workspace import CourseError, fingerprint

# Modules whose functions affect no number of a result: they find files, check them, and say what is wrong
_WITHOUT_NUMBERS = ("course.workspace", "course.machine", "course.arrays")


def _is_plain(value):
    """True for numbers, strings, and lists and dicts of them."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _makes_numbers(value):
    """True for functions and classes of the course that may affect a result."""
    module = getattr(value, "__module__", None) or ""
    of_the_course = module == "helpers" or module.startswith("course.")
    return callable(value) and of_the_course and module not in _WITHOUT_NUMBERS


def _bare_code(source):
    """Parse Python source and remove its docstrings; comments and layout do not survive parsing."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _shape(node):
    """Return a syntax tree as nested lists, without empty fields: Python's versions differ in these."""
    if isinstance(node, ast.AST):
        fields = [(name, _shape(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return [type(node).__name__, *fields]
    return [_shape(part) for part in node] if isinstance(node, list) else repr(node)


def code_shape(source: str) -> list:
    """Return the syntax tree of Python source as nested lists, the same for every version of Python that runs it.

    Comments, docstrings and layout do not count.
    """
    return _shape(_bare_code(source))


@functools.cache
def _codes_of(path, changed):
    """Return the code objects of a file's functions, kept until `changed`, the time of its last change, differs."""
    codes = [compile(path.read_text(encoding="utf-8"), path, "exec")]
    for code in codes:
        codes += [part for part in code.co_consts if inspect.iscode(part)]
    return set(codes)


def _check_as_imported(function):
    """Refuse a function of the course whose file has been edited since the import: its source is not what runs."""
    code = getattr(function, "__code__", None)  # a class has none
    if code is None or not _makes_numbers(function):
        return
    path = Path(code.co_filename)
    if not path.exists() or code not in _codes_of(path, path.stat().st_mtime_ns):
        raise CourseError(
            f"{path} has been edited or moved since this notebook imported it, so the code that runs is not the code "
            "in the file. Restart the kernel and run the notebook from its first cell."
        )


@functools.cache
def shape_fingerprint(source: str) -> str:
    """Return a short hash of `code_shape`; a process parses the same source only once."""
    return fingerprint(code_shape(source))


def source_fingerprint(*functions) -> str:
    """Return a short hash of what functions or classes of the course do: equal code, equal hash.

    It covers all functions, classes and plain constants of the course that they name, and what those name in turn.
    Comments, docstrings and layout do not count, nor do the modules that only find and check files.
    Raises CourseError if a file of the course has been edited or moved since this process imported it.
    """
    sources, waiting = {}, list(functions)
    while waiting:
        found = inspect.unwrap(waiting.pop())
        name = f"{found.__module__}.{found.__qualname__}"
        if name in sources:
            continue
        _check_as_imported(found)
        source = textwrap.dedent(inspect.getsource(found))
        try:
            tree = _bare_code(source)
        except SyntaxError:  # the source of a lambda is the lines it stands on, which may not parse alone
            tree = ast.parse(repr(source))
        known = vars(sys.modules[found.__module__])
        named = {node.id: known[node.id] for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in known}
        sources[name] = _shape(tree), {key: value for key, value in named.items() if _is_plain(value)}
        waiting += [value for value in named.values() if _makes_numbers(value)]
    return fingerprint(sources)
