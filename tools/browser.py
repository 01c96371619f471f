"""Open 05_evaluation in JupyterLab in a real browser, run all its cells, and check that it shows what it should.

`make browser` needs the program `chromium`. This file runs in an environment with JupyterLab and Playwright; its
argument is the course's Python, which first runs 01 to 04 (profile `smoke`) and then is the kernel in the browser.
Pictures of the page, as wide as a desktop and as a phone, go to data/browser/.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, TimeoutError as PlaywrightTimeoutError, expect, sync_playwright

from course.workspace import COURSE_FOLDER

SCREENSHOTS = COURSE_FOLDER / "data" / "browser"
PORT, TOKEN = 8899, "course"
NOTEBOOK = "notebooks/05_evaluation.ipynb"
PROMPTS = ".jp-CodeCell .jp-InputPrompt"
IDLE = ".jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status=idle]"
# what TensorFlow writes when it starts
STARTED = re.compile(r"WARNING: All log messages before absl|I0000 .*(port|cudart_stub)\.cc:")
PICTURES = "images => images.map(image => [image.naturalWidth, image.clientWidth, image.clientHeight])"


def prepare(folder: Path, python: str) -> dict[str, str]:
    """Copy the course to `folder`, run 01 to 04 in it, and return the environment variables for JupyterLab.

    JupyterLab will keep every cell in the page, not only those in view, start the kernel by itself, and fetch no news.
    """
    shutil.copytree(COURSE_FOLDER, folder / "course", ignore=shutil.ignore_patterns(".*", "data", "__pycache__"))
    environment = {
        **os.environ,
        "UNET_WORK_DIR": str(folder / "work"),
        "UNET_PROFILE": "smoke",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
    }
    commands = [["ipykernel", "install", "--prefix", folder]]
    for path in sorted((folder / "course" / "notebooks").glob("0[1-4]*.ipynb")):
        commands.append(["papermill", "--kernel", "python3", "--cwd", path.parent, path, folder / path.name])
    # so that all output seen afterwards was made in the browser
    commands.append(["nbconvert", "--clear-output", "--inplace", folder / "course" / NOTEBOOK])
    for command in commands:
        subprocess.run([python, "-m", *command], env=environment, check=True, capture_output=True)
    for name, value in {
        "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(value), encoding="utf-8")
    return environment


def wait_for_server() -> None:
    """Return when JupyterLab answers; exit if it does not within ten minutes."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api?token={TOKEN}", timeout=5).close()
        time.sleep(1)
    raise SystemExit("JupyterLab does not answer: data/browser/jupyterlab.log says why.")


def screenshot(page: Page, name: str, width: int) -> None:
    """Save the whole notebook as it looks in a window of that width."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(1000)
    panels = page.locator(".jp-WindowedPanel-outer")
    height = panels.evaluate_all("panels => Math.max(...panels.map(panel => panel.scrollHeight))")
    page.set_viewport_size({"width": width, "height": min(height + 200, 16000)})
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / name)


def run_all_cells(page: Page) -> None:
    """Choose "Run All Cells" until it begins: JupyterLab ignores it while the kernel is not ready."""
    for _ in range(10):
        page.locator(".jp-Notebook .jp-MarkdownCell").first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(PlaywrightTimeoutError):
            return page.locator(PROMPTS, has_text=re.compile(r"[\d*]")).first.wait_for(timeout=10_000)
        print("Nothing runs yet, trying again.", flush=True)
    raise SystemExit("JupyterLab does not run the cells.")


def use(page: Page, folder: Path) -> None:
    """Run all cells of the notebook in the page, and assert that each ran, none failed, and figures and slider work."""
    page.goto(f"http://127.0.0.1:{PORT}/lab/tree/{NOTEBOOK}?token={TOKEN}")
    page.locator(IDLE).wait_for()
    run_all_cells(page)
    expect(page.locator(PROMPTS, has_text=re.compile(r"\[[ *]\]"))).to_have_count(0, timeout=1_800_000)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(3000)
    cells = json.loads((folder / "course" / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    saved = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in saved for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in saved), "a cell did not run"
    for output in outputs:
        assert output["output_type"] != "error", f"a cell failed: {output}"
        if output.get("name") == "stderr":
            assert all(map(STARTED.match, "".join(output["text"]).splitlines())), f"a cell warned: {output}"
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    pictures = page.locator(".jp-OutputArea-output img").evaluate_all(PICTURES)
    assert 0 < figures < len(pictures), f"{figures} figures, and {len(pictures)} pictures with that of the slider"
    assert all(min(picture) > 0 for picture in pictures), f"a picture has no size: {pictures}"
    shown = page.locator("img.widget-image").first
    before = shown.get_attribute("src")
    page.locator(".widget-slider .noUi-handle").first.press("ArrowRight")
    expect(shown).not_to_have_attribute("src", before, timeout=60_000)
    print(f"{len(saved)} cells ran, {len(pictures)} pictures are shown, the slider moves.", flush=True)


def main(python: str) -> None:
    """Run the check with that Python as the kernel."""
    program = shutil.which("chromium") or sys.exit("Chromium is not installed here: apt-get install chromium.")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = prepare(folder, python)
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={PORT}"]
        command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
        command += [f"--ServerApp.root_dir={folder / 'course'}"]
        with open(SCREENSHOTS / "jupyterlab.log", "w", encoding="utf-8") as log:
            server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                wait_for_server()
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(executable_path=program, args=["--disable-gpu"])
                    page = browser.new_page(viewport={"width": 1280, "height": 900})
                    page.set_default_timeout(600_000)
                    try:
                        use(page, folder)
                    finally:
                        screenshot(page, "desktop.png", 1280)
                        screenshot(page, "phone.png", 390)
                    browser.close()
            finally:
                server.terminate()
                server.wait(timeout=60)
    print(f"Pictures of the page: {SCREENSHOTS.relative_to(COURSE_FOLDER)}/desktop.png and phone.png")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
