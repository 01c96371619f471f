"""Change the code in one place, run the tests that reach it, and see whether one fails: `make mutants`.

The changes are cosmic-ray's: another operator, number, comparison or truth value, `not` put in or taken out, `break`
for `continue`. A seeded sample of places is drawn, alike in every module, and one change for each place; annotations
change nothing and are left out. For every change the tests that reach its line are run, the quick ones first, in a copy
of the course, until one fails. Where a line is only run as its module is imported, all tests of the module are.

    make mutants                                    # 300 changes, two at a time
    python tools/mutants.py --count 40 metrics planes   # 40 changes in two modules
    python tools/mutants.py --count 40 --again metrics planes   # of these again what survived

The variable TESTS holds arguments of pytest, such as the files to run. The results of each module go to data/mutants/,
and to results.md there the score of all that were measured, with what survived. Words of messages are counted apart.
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
from pathlib import Path

import pytest
from cosmic_ray.commands import init as list_mutations
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from plant_faults import copy_course
from store_notebooks import COURSE

FOLDER = COURSE / "data" / "mutants"
TESTS = shlex.split(os.environ.get("TESTS", "tests"))  # what is run: arguments of pytest
TOOLS = [path.stem for path in (COURSE / "tools").glob("*.py")]
PRELOADED = ["__main__", "keras", "matplotlib.pyplot", "pandas", "scipy.ndimage", "scipy.stats", "sklearn.metrics"]
MOST_SECONDS = 30  # of tests, as they took without a change, for one changed line
# Gives every test a coverage context of its own, also in the processes that it starts, and notes how long it took
PLUGIN = """
import json, os, time
import coverage, pytest

seconds, failed = {}, []

def pytest_collection_finish():
    import helpers, course.batch, course.report  # and with them all modules: their first lines belong to no test

def pytest_runtest_logreport(report):
    if report.failed:
        failed.append(report.nodeid)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    os.environ["TEST_CONTEXT"] = item.nodeid
    coverage.Coverage.current().switch_context(item.nodeid)
    started = time.perf_counter()
    result = yield
    seconds[item.nodeid] = time.perf_counter() - started
    return result

def pytest_sessionfinish():
    with open(os.environ["TEST_SECONDS"], "w") as file:
        json.dump({test: taken for test, taken in seconds.items() if test not in failed}, file)
    if failed:
        print("\\nLeft out, since they fail without any change:", *failed, sep="\\n")
"""
COVERAGE = """[run]
source = .
omit = tests/*, tools/*, conftest.py
parallel = true
concurrency = thread, multiprocessing
patch = subprocess, _exit
sigterm = true
context = ${TEST_CONTEXT-}
data_file = %s
"""


def reached_lines(course, folder):
    """Run all tests once under coverage; return ({(file, line): tests that reach it}, {test: seconds}).

    Under line 0 stand all tests of a file: they are those of its lines that are run as it is imported.
    """
    times = folder / "seconds.json"
    (folder / "settings.ini").write_text(COVERAGE % (folder / "coverage"))
    (course / "mutant_contexts.py").write_text(PLUGIN)
    run = [sys.executable, "-m", "coverage", "run", f"--rcfile={folder / 'settings.ini'}", "-m", "pytest", "-q"]
    environment = {**os.environ, "TEST_SECONDS": str(times), "TEST_CONTEXT": ""}
    subprocess.run([*run, "-p", "mutant_contexts", *TESTS], cwd=course, env=environment, check=False)
    seconds = json.loads(times.read_text())
    combine = [sys.executable, "-m", "coverage", "combine", "--quiet", f"--rcfile={folder / 'settings.ini'}"]
    subprocess.run(combine, cwd=course, env=environment, check=True)
    tests_of, at_import = collections.defaultdict(set), set()
    from coverage.numbits import numbits_to_nums

    with sqlite3.connect(folder / "coverage") as data:
        rows = data.execute(
            "select file.path, context.context, line_bits.numbits from line_bits "
            "join file on file.id = file_id join context on context.id = context_id"
        )
        for path, context, numbits in rows:
            test = next((part for part in context.split("|") if "::" in part), None)
            module = Path(path).relative_to(course).as_posix()
            for line in numbits_to_nums(numbits):
                if not test:
                    at_import.add((module, line))
                elif test in seconds:
                    tests_of[module, line].add(test)
                    tests_of[module, 0].add(test)
    only_look = set(seconds) - set().union(*tests_of.values())  # at constants
    for module in {module for module, _ in tests_of}:
        tests_of[module, 0] |= only_look
    for module, line in at_import:
        tests_of[module, line] = tests_of[module, 0]
    return tests_of, seconds


def spans(path, *kinds):
    """Return what some kinds of syntax take of a file, as ((line, column), (line, column)): start and end.

    kinds: classes of ast, or names of fields, such as `returns`.
    """
    names, classes = [k for k in kinds if isinstance(k, str)], tuple(k for k in kinds if not isinstance(k, str))
    nodes = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        nodes += [getattr(node, name, None) for name in names]
        nodes += [node] if isinstance(node, classes) else []
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in nodes if n is not None]


def lies_in(mutation, places):
    """Tell whether a mutation lies in one of several spans."""
    return any(start <= tuple(mutation.start_pos) < end for start, end in places)


def draw_changes(course, modules, count, seed):
    """Return `count` of cosmic-ray's mutations, at different places, spread over the modules by their lines."""
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "work.sqlite", WorkDB.Mode.create) as database:
        list_mutations([course / module for module in modules], database, {})
        mutations = [item.mutations[0] for item in database.work_items]
    chance, places = random.Random(seed), collections.defaultdict(list)
    annotations = {course / module: spans(course / module, "annotation", "returns") for module in modules}
    mutations = [mutation for mutation in mutations if not lies_in(mutation, annotations[mutation.module_path])]
    for mutation in sorted(mutations, key=lambda m: (str(m.module_path), m.start_pos, m.operator_name, m.occurrence)):
        places[str(mutation.module_path), mutation.start_pos].append(mutation)
    return [chance.choice(places[place]) for place in chance.sample(sorted(places), min(count, len(places)))]


def try_change(mutation, course, messages, tests_of, seconds, copies):
    """Apply one mutation in a copy of the course and run the tests that reach it; return what came of it, a dict."""
    module = mutation.module_path.relative_to(course).as_posix()
    source = (course / module).read_text(encoding="utf-8")
    changed = mutate_code(source, get_operator(mutation.operator_name)(**mutation.operator_args), mutation.occurrence)
    line = mutation.start_pos[0]
    result = {
        "module": module,
        "line": line,
        "column": mutation.start_pos[1],
        "part": "messages" if lies_in(mutation, messages[mutation.module_path]) else module,
        "function": mutation.definition_name or "",
        "was": source.splitlines()[line - 1].strip(),
        "is": changed.splitlines()[line - 1].strip(),
    }
    lines = range(line, mutation.end_pos[0] + 1)
    reaching = set().union(*(tests_of.get((module, each), ()) for each in lines))
    chosen, total = [], 0.0
    for test in sorted(reaching or tests_of[module, 0], key=seconds.get):  # what TensorFlow runs coverage cannot see
        if not chosen or total + seconds[test] <= MOST_SECONDS:
            chosen.append(test)
            total += seconds[test]
    if not chosen:
        return {**result, "outcome": "not reached"}
    copy = copies.get()
    (copy / module).write_text(changed, encoding="utf-8")
    process = multiprocessing.get_context("forkserver").Process(target=run_tests, args=(copy, chosen))
    process.start()
    process.join(120 + 10 * total)
    outcome = "survived" if process.exitcode == 0 else "noticed"
    if process.exitcode is None:  # a loop that does not end
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    (copy / module).write_text(source, encoding="utf-8")
    copies.put(copy)
    return {**result, "outcome": outcome, "tests": len(chosen)}


def run_tests(copy, tests):
    """Run tests in a copy of the course until one fails, and end this process: 0 where all have passed."""
    os.setsid()
    os.chdir(copy)
    for number, way in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, way), number)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("course", "helpers", *TOOLS)]:
        del sys.modules[name]  # the copy has its own
    sys.path[:] = [str(copy), *(place for place in sys.path if not Path(place).is_relative_to(COURSE / "tools"))]
    os._exit(pytest.main(["-q", "-x", *tests]))


def results_file(module):
    """Return where the results of a module stand."""
    return FOLDER / f"{Path(module).stem}.json"


def read_results(module):
    """Return the results that a module had the last time."""
    path = results_file(module)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def table(results):
    """Return the score of each module and the list of survivors as Markdown."""
    modules = sorted({result["part"] for result in results})
    lines = ["| module | changes | noticed | |", "|---|---|---|---|"]
    for module in [*modules, "all"]:
        of_module = [result for result in results if module in ("all", result["part"])]
        noticed = sum(result["outcome"] == "noticed" for result in of_module)
        lines.append(f"| {module} | {len(of_module)} | {noticed} | {noticed / len(of_module):.0%} |")
    lines.append("")
    for result in sorted(results, key=lambda result: (result["module"], result["line"])):
        if result["outcome"] != "noticed":
            place = f"{result['module']}:{result['line']} ({result['function']}, {result['outcome']})"
            lines.append(f"- {place}: `{result['was']}` became `{result['is']}`")
    return "\n".join(lines) + "\n"


def main():
    """Draw, try and report; print each change as it ends."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=300)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--again", action="store_true", help="only what survived the last time")
    options.add_argument("modules", nargs="*", help="names such as metrics or helpers; all if none is given")
    options = options.parse_args()
    modules = ["helpers.py", *sorted(f"course/{path.name}" for path in (COURSE / "course").glob("*.py"))]
    modules = [module for module in modules if not options.modules or Path(module).stem in options.modules]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder, results, copies = Path(name), [], queue.SimpleQueue()
        course = copy_course(folder / "course")
        changes, kept = draw_changes(course, modules, options.count, options.seed), []
        if options.again:
            kept = [one for module in modules for one in read_results(module) if one["outcome"] == "noticed"]
            noticed = {(one["module"], one["line"], one["column"]) for one in kept}
            changes = [m for m in changes if (str(m.module_path.relative_to(course)), *m.start_pos) not in noticed]
        messages = {course / module: spans(course / module, ast.Raise, ast.JoinedStr) for module in modules}
        tests_of, seconds = reached_lines(course, folder)
        workers = os.cpu_count()
        os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg"}
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)  # they are imported once
        for number in range(workers):
            copies.put(copy_course(folder / f"changed-{number}"))
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for result in pool.map(
                lambda change: try_change(change, course, messages, tests_of, seconds, copies), changes
            ):
                results.append(result)
                place = f"{result['module']}:{result['line']}"
                print(f"{len(results):3} {result['outcome']:11} {place} {result['is']}", flush=True)
                of_module = [one for one in [*kept, *results] if one["module"] == result["module"]]
                results_file(result["module"]).write_text(json.dumps(of_module, indent=1), encoding="utf-8")
    report = table(
        [result for path in FOLDER.glob("*.json") for result in json.loads(path.read_text(encoding="utf-8"))]
    )
    (FOLDER / "results.md").write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
