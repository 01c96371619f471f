"""Time the course against what a user would pick instead: `make bench`. Takes about 20 minutes; keep the machine quiet.

Every measurement runs in its own process, and all are repeated in turn, so that a noisy minute affects all alike.
Writes a table (.md), its numbers (.json) and a picture (.png), named after the kind of processor, to results/.
"""

import ctypes.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import helpers
from course.machine import CORE_RATES, cpu_flags
from course.workspace import COURSE_FOLDER
from tools.common import machine, markdown_table, processor_name

HERE = COURSE_FOLDER / "tools" / "benchmarks"
INSTRUCTIONS = next((flag for flag in CORE_RATES if flag in cpu_flags()), "other")
RESULTS = HERE / "results" / re.sub(r"\W+", "-", f"{processor_name()} {INSTRUCTIONS}".lower())
# Operations of a prediction: a multiplication and an addition for each weight and position of each convolution
FLOP_A_PIXEL = 280_192
ROUNDS = 3
PEERS = COURSE_FOLDER / "data" / "bench" / "peers"  # their environment
CASES = ["256,4", "128,8", "96,4"]  # image size, batch size; the profile `hour` uses the last
NETWORKS = {
    "course": ("network_tensorflow", "plain"),
    "course, batches of 04": ("network_tensorflow", "lesson"),
    "course, XLA": ("network_tensorflow", "xla"),
    "PyTorch": ("network_pytorch", "contiguous"),
    "PyTorch, channels last": ("network_pytorch", "channels_last"),
    "PyTorch, channels last, tcmalloc": ("network_pytorch", "channels_last"),
    "PyTorch, compiled": ("network_pytorch", "compiled"),
}
COMPILED = ["course, XLA", "PyTorch, compiled"]  # compiling takes a while: at one size, in float32
WAYS = ["course", "plain_loop", "keras_directory", "decoding", "opencv"]
SAMPLE = {"patients": {"train": 20, "valid": 3, "test": 2}, "slices": 20}  # 500 pictures


def measure(script, *arguments, preload=""):
    """Run one measurement in its own process; return the JSON of its last line, None if it stopped."""
    of_peers = script == "network_pytorch" or "opencv" in arguments
    python = PEERS / "bin" / "python" if of_peers else sys.executable
    command = [str(python), "-m", f"tools.benchmarks.{script}", *map(str, arguments)]
    environment = {**os.environ, "LD_PRELOAD": preload}
    done = subprocess.run(command, cwd=COURSE_FOLDER, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(command[2:])} stopped: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_peers():
    """Make the environment of the peers if it is missing."""
    if not (PEERS / "ready").exists():
        python, requirements = PEERS / "bin" / "python", HERE / "requirements.txt"
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        (PEERS / "ready").touch()


def time_networks():
    """Return {(case, precision, network): [results]} and the results of the matrix product."""
    times, ceilings = {}, []
    tcmalloc = ctypes.util.find_library("tcmalloc_minimal")
    networks = {name: way for name, way in NETWORKS.items() if tcmalloc or "tcmalloc" not in name}
    if len(networks) < len(NETWORKS):
        print("PyTorch with tcmalloc is left out: there is no libtcmalloc_minimal here.")
    for number in range(ROUNDS):
        ceilings.append(measure("network_pytorch", "ceiling"))
        for precision in dict.fromkeys(("float32", helpers.choose_precision("auto"))):
            for network, (script, way) in networks.items():
                if network not in COMPILED or precision == "float32":
                    print(f"round {number + 1}: {network}, {precision}", flush=True)
                    cases = CASES[1:2] if network in COMPILED else CASES
                    preload = tcmalloc if "tcmalloc" in network else ""
                    results = measure(script, precision, way, *cases, preload=preload)
                    for case, result in (results or {}).items():
                        times.setdefault((case, precision, network), []).append(result)
    return times, ceilings


def time_preparation(folder):
    """Return {way: [seconds]} for 500 pictures, and what the course's way adds to memory for 500 and for 50,000."""
    helpers.import_dataset("sample", folder, sample=SAMPLE, progress=False)
    times = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for way in WAYS:
            print(f"round {number + 1}: preparation, {way}", flush=True)
            times[way].append(measure("preparation", way, folder))
    memory = {500: measure("preparation", "memory", folder)}
    description = helpers.read_description(folder)
    description["subsets"] = {subset: 100 * pairs for subset, pairs in description["subsets"].items()}
    helpers.write_json(folder / "dataset.json", description)
    memory[50_000] = measure("preparation", "memory", folder)
    return times, memory


def time_start():
    """Return the seconds that `import helpers` takes, beyond the start of Python itself."""
    program = "import time; start = time.perf_counter(); import helpers; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", program]
    runs = [subprocess.run(command, cwd=COURSE_FOLDER, capture_output=True, check=True) for _ in range(3 * ROUNDS)]
    return statistics.median(float(done.stdout) for done in runs)


def rows_of_networks(times, ceilings, task):
    """Return the table's rows for "training" or "prediction"."""
    rows = []
    median = {key: statistics.median(result[task] for result in results) for key, results in times.items()}
    for case, precision in dict.fromkeys(key[:2] for key in times):
        numbers = precision.replace("mixed_", "")
        networks = [key[2] for key in times if key[:2] == (case, precision)]
        peer = max(median[case, precision, network] for network in networks if "PyTorch" in network)
        ceiling = statistics.median(entry[numbers] for entry in ceilings)
        for network in networks:
            value = median[case, precision, network]
            pixels = value * int(case.split(",")[0]) ** 2
            work = pixels * FLOP_A_PIXEL / 1e9 * (3 if task == "training" else 1)
            speed = f"{value:.1f}", f"{value / peer:.2f}", f"{work:.0f}", f"{100 * work / ceiling:.0f} %"
            rows.append([*case.split(","), numbers, network, *speed])
    return rows


def write_results(times, ceilings, preparation, memory, start, training_memory):
    """Write the table and the picture."""
    versions = ", ".join(f"{name} {version}" for name, version in helpers.versions().items())
    where = f"{machine()}, with {INSTRUCTIONS}, {versions}"
    parts = [f"# Results\n\nMeasured by `make bench` on: {where}. Medians of {ROUNDS} rounds in turn.\n"]
    for name in ("float32", "bfloat16"):
        product = statistics.median(entry[name] for entry in ceilings)
        parts.append(f"A matrix product in {name}: {product:.0f} GFLOP/s.  ")
    header = ["image", "batch", "arithmetic", "network", "images/s", "to the fastest PyTorch", "GFLOP/s"]
    header.append("of the product")
    for task in ("training", "prediction"):
        parts += [f"\n## {task.capitalize()}\n", markdown_table(header, rows_of_networks(times, ceilings, task))]
    base = statistics.median(preparation["plain_loop"])
    rows = [
        [way.replace("_", " "), f"{statistics.median(values):.2f}", f"{base / statistics.median(values):.2f}"]
        for way, values in preparation.items()
    ]
    megabytes = [[f"preparation of {count} pictures adds", f"{value:.0f}"] for count, value in memory.items()]
    megabytes += [
        [f"training, 256x256, 2271 slices, {name}", f"{value['peak_megabytes']:.0f}"]
        for name, value in training_memory.items()
        if value
    ]
    parts += [
        "\n## Preparation of 500 pictures of 320x320 with their masks\n",
        markdown_table(["way", "seconds", "times as fast as the plain loop"], rows),
        "\n## Memory\n",
        markdown_table(["what", "anonymous memory, MB"], megabytes),
        f"\n## Start\n\n`import helpers`: {start:.2f} s.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    helpers.save_figure(plot_networks(times), RESULTS.with_suffix(".png"))


def plot_networks(times):
    """Draw images a second of training and prediction for every case, the course beside its peers."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(key[:2] for key in times))
    colors = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#F0E442", "#CC79A7")
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, 2), ("training", "prediction")):
        for offset, (network, color) in enumerate(zip(NETWORKS, colors)):
            timed = [index for index, case in enumerate(cases) if (*case, network) in times]
            places = [index + (offset - 3) * 0.12 for index in timed]
            speeds = [[result[task] for result in times[*cases[index], network]] for index in timed]
            axes.bar(places, [*map(statistics.median, speeds)], 0.11, color=color, label=network)
            for place, values in zip(places, speeds):
                axes.plot([place] * len(values), values, ".", color="black", markersize=3)
        axes.set(title=task, ylabel="images a second (dots: single rounds)", xticks=range(len(cases)))
        split = [(*case.split(","), precision.replace("mixed_", "")) for case, precision in cases]
        axes.set_xticklabels(["{0}x{0}\nbatch {1}\n{2}".format(*parts) for parts in split], fontsize=7)
        axes.legend(fontsize=7)
    return figure


def main():
    make_peers()
    with tempfile.TemporaryDirectory() as folder:
        preparation, memory = time_preparation(Path(folder).resolve())
    training_memory = {
        "batch 8": measure("memory", 8),
        "batch 32": measure("memory", 32),
        "batch 8, arrays of 8 GB, limit 4 GB": measure("memory", 8, 4000),
    }
    start = time_start()
    times, ceilings = time_networks()
    networks = [[*key, results] for key, results in times.items()]
    results = {"machine": machine(), "networks": networks, "ceilings": ceilings, "preparation": preparation}
    results |= {"preparation_memory": memory, "training_memory": training_memory, "start": start}
    helpers.write_json(RESULTS.with_suffix(".json"), results)
    write_results(times, ceilings, preparation, memory, start, training_memory)
    print(RESULTS.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
