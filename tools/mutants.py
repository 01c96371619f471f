"""Change the code in one place, run the tests that reach it, and see whether one fails: `make mutants`.

The changes are cosmic-ray's: another operator, number, comparison or truth value, `not` added or removed, `break`
for `continue`. A seeded sample of places is drawn, and one change for each; annotations are left out. For every change
the tests that reach its line are run, the quick ones first, in a copy of the course, until one fails. For a line that
only runs when its module is imported, all tests of the module are run.

    make mutants                                                # 300 changes, as many at a time as there are cores
    python -m tools.mutants --count 40 metrics planes           # 40 changes in two modules
    python -m tools.mutants --count 40 --again metrics planes   # of these, again those that survived

The variable TESTS holds arguments of pytest, such as the files to run. The results of each module go to data/mutants/;
results.md there has the scores of all measured modules, and the survivors. Words of messages are counted apart.
"""

import argparse
import ast
import collections
import concurrent.futures
import json
import multiprocessing
import os
import queue
import random
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from cosmic_ray.commands import init as list_mutations
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec

from course.workspace import COURSE_FOLDER
from tools.common import copy_course, markdown_table

FOLDER = COURSE_FOLDER / "data" / "mutants"
TESTS = shlex.split(os.environ.get("TESTS", "tests"))  # what is run: arguments of pytest
PRELOADED = ["__main__", "keras", "matplotlib.pyplot", "scipy.ndimage", "scipy.stats", "sklearn.metrics"]
MOST_SECONDS = 30  # of tests for one change, by the time that they take without it
# Gives every test a coverage context of its own, also in the processes that it starts, and notes how long it took
PLUGIN = """
import json, os, time
import coverage, pytest

seconds = {}

def pytest_collection_finish():
    import helpers, course.batch, course.report  # and with them all modules: their first lines belong to no test

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    running = coverage.Coverage.current()
    running.switch_context(item.nodeid)
    running.set_option("run:context", item.nodeid)
    os.environ["COVERAGE_PROCESS_CONFIG"] = running.config.serialize()  # what the processes of the test begin with
    failed, started = item.session.testsfailed, time.perf_counter()
    result = yield
    if item.session.testsfailed == failed:  # what fails without any change is left out
        seconds[item.nodeid] = time.perf_counter() - started
    return result

def pytest_sessionfinish():
    with open(os.environ["TEST_SECONDS"], "w") as file:
        json.dump(seconds, file)
"""
TestsOf = dict[tuple[str, int], set[str]]  # (file, line): the tests that reach it


def reached_lines(course: Path, folder: Path) -> tuple[TestsOf, dict[str, float]]:
    """Run all tests under coverage; return the tests that reach each line (0: any line), and each test's seconds."""
    (course / "mutant_contexts.py").write_text(PLUGIN)
    data_file, times = folder / "coverage", folder / "seconds.json"
    environment = {**os.environ, "COVERAGE_FILE": str(data_file), "TEST_SECONDS": str(times)}
    coverage = [sys.executable, "-m", "coverage"]
    tests = ["-m", "pytest", "-q", "-p", "mutant_contexts", *TESTS]
    subprocess.run([*coverage, "run", *tests], cwd=course, env=environment, check=False)
    subprocess.run([*coverage, "combine", "--quiet"], cwd=course, env=environment, check=True)
    seconds = json.loads(times.read_text())
    tests_of, at_import = collections.defaultdict(set), set()
    with sqlite3.connect(data_file) as data:
        rows = data.execute(
            "select distinct file.path, arc.tono, context.context from arc "
            "join file on file.id = file_id join context on context.id = context_id where arc.tono > 0"
        )
        for path, line, context in rows:
            test = next((part for part in context.split("|") if "::" in part), None)
            module = Path(path).relative_to(course).as_posix()
            if not test:
                at_import.add((module, line))
            elif test in seconds:
                tests_of[module, line].add(test)
                tests_of[module, 0].add(test)
    only_look = set(seconds) - set().union(*tests_of.values())  # tests that reach no line: they look at constants
    for module in {module for module, _ in tests_of}:
        tests_of[module, 0] |= only_look
    for module, line in at_import:
        tests_of[module, line] = tests_of[module, 0]
    return tests_of, seconds


def lies_in(mutation: MutationSpec, nodes: Iterable[ast.AST]) -> bool:
    """Return whether a mutation lies within the source of one of several nodes."""
    parts = (((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)) for node in nodes)
    return any(begin <= mutation.start_pos < end for begin, end in parts)


def draw_changes(course: Path, modules: list[str], count: int, seed: int) -> list[MutationSpec]:
    """Return `count` of cosmic-ray's mutations, at different places, spread over the modules by their lines."""
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "work.sqlite", WorkDB.Mode.create) as database:
        list_mutations([course / module for module in modules], database, {})
        mutations = [item.mutations[0] for item in database.work_items]
    annotations = {}
    for module in modules:
        nodes = list(ast.walk(ast.parse((course / module).read_text(encoding="utf-8"))))
        found = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
        annotations[course / module] = [*filter(None, found)]
    places = collections.defaultdict(list)
    for mutation in sorted(mutations, key=lambda m: (str(m.module_path), m.start_pos, m.operator_name, m.occurrence)):
        if not lies_in(mutation, annotations[mutation.module_path]):
            places[str(mutation.module_path), mutation.start_pos].append(mutation)
    chance = random.Random(seed)
    return [chance.choice(places[place]) for place in chance.sample(sorted(places), min(count, len(places)))]


def choose_tests(mutation: MutationSpec, module: str, tests_of: TestsOf, seconds: dict[str, float]) -> list[str]:
    """Return the tests to run for a mutation, the quick ones first, one at least: as many as MOST_SECONDS allow."""
    lines = range(mutation.start_pos[0], mutation.end_pos[0] + 1)
    reaching = set().union(*(tests_of.get((module, line), ()) for line in lines))
    chosen, total = [], 0.0
    for test in sorted(reaching or tests_of[module, 0], key=seconds.get):  # coverage cannot see what TensorFlow runs
        total += seconds[test]
        if not chosen or total <= MOST_SECONDS:
            chosen.append(test)
    return chosen


def try_change(
    mutation: MutationSpec, course: Path, tests_of: TestsOf, seconds: dict[str, float], copies: queue.SimpleQueue
) -> dict:
    """Apply one mutation in a copy of the course and run the tests that reach it; return the result."""
    module = mutation.module_path.relative_to(course).as_posix()
    source = mutation.module_path.read_text(encoding="utf-8")
    changed = mutate_code(source, get_operator(mutation.operator_name)(**mutation.operator_args), mutation.occurrence)
    messages = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Raise, ast.JoinedStr))]
    line, column = mutation.start_pos
    result = {
        "module": module,
        "line": line,
        "column": column,
        "part": "messages" if lies_in(mutation, messages) else module,
        "function": mutation.definition_name or "",
        "was": source.splitlines()[line - 1].strip(),
        "is": changed.splitlines()[line - 1].strip(),
    }
    chosen = choose_tests(mutation, module, tests_of, seconds)
    if not chosen:
        return {**result, "outcome": "not reached"}
    copy = copies.get()
    (copy / module).write_text(changed, encoding="utf-8")
    process = multiprocessing.get_context("forkserver").Process(target=run_tests, args=(copy, chosen))
    process.start()
    process.join(120 + 10 * sum(map(seconds.get, chosen)))
    outcome = "survived" if process.exitcode == 0 else "noticed"
    if process.exitcode is None:  # an endless loop
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    (copy / module).write_text(source, encoding="utf-8")
    copies.put(copy)
    return {**result, "outcome": outcome}


def run_tests(copy: Path, tests: list[str]) -> None:
    """Run tests in a copy of the course until one fails, and exit this process: with 0 if all have passed."""
    os.setsid()
    os.chdir(copy)
    for number, way in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, way), number)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("course", "helpers", "tools")]:
        del sys.modules[name]  # the copy has its own
    sys.path[:] = [str(copy), *(place for place in sys.path if Path(place) != COURSE_FOLDER)]
    os._exit(pytest.main(["-q", "-x", *tests]))


def read_results(modules: Iterable[Path]) -> list[dict]:
    """Return the last results of some modules."""
    files = (FOLDER / f"{module.stem}.json" for module in modules)
    return [result for file in files if file.exists() for result in json.loads(file.read_text(encoding="utf-8"))]


def table(results: list[dict]) -> str:
    """Return the score of each module and the list of survivors as Markdown."""
    rows = []
    for module in [*sorted({result["part"] for result in results}), "all"]:
        of_module = [result for result in results if module in ("all", result["part"])]
        noticed = sum(result["outcome"] == "noticed" for result in of_module)
        rows.append([module, len(of_module), noticed, f"{noticed / len(of_module):.0%}"])
    lines = [markdown_table(["module", "changes", "noticed", ""], rows), ""]
    for result in sorted(results, key=lambda result: (result["module"], result["line"])):
        if result["outcome"] != "noticed":
            place = f"{result['module']}:{result['line']} ({result['function']}, {result['outcome']})"
            lines.append(f"- {place}: `{result['was']}` became `{result['is']}`")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Draw, try and report; print each change as it ends."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--again", action="store_true", help="only what survived the last time")
    options.add_argument("modules", nargs="*", help="names such as metrics or helpers; all if none is given")
    options = options.parse_args()
    paths = [Path("helpers.py"), *(Path("course", path.name) for path in sorted(COURSE_FOLDER.glob("course/*.py")))]
    modules = [path for path in paths if not options.modules or path.stem in options.modules]
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = [result for result in read_results(modules) if options.again and result["outcome"] == "noticed"]
    noticed = {(result["module"], result["line"], result["column"]) for result in results}
    with tempfile.TemporaryDirectory() as name:
        folder, copies, workers = Path(name), queue.SimpleQueue(), os.cpu_count()
        course = copy_course(folder / "course")
        changes = draw_changes(course, modules, options.count, options.seed)
        changes = [m for m in changes if (m.module_path.relative_to(course).as_posix(), *m.start_pos) not in noticed]
        tests_of, seconds = reached_lines(course, folder)
        os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg"}
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)  # they are imported once
        for number in range(workers):
            copies.put(copy_course(folder / f"changed-{number}"))
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            tried = pool.map(lambda change: try_change(change, course, tests_of, seconds, copies), changes)
            for number, result in enumerate(tried, start=1):
                results.append(result)
                module = Path(result["module"])
                print(f"{number:3} {result['outcome']:11} {module}:{result['line']} {result['is']}", flush=True)
                of_module = [one for one in results if one["module"] == result["module"]]
                (FOLDER / f"{module.stem}.json").write_text(json.dumps(of_module, indent=1), encoding="utf-8")
    report = table(read_results(FOLDER.glob("*.json")))
    (FOLDER / "results.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
