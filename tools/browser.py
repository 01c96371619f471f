"""Open 05_evaluation in JupyterLab in a real browser, run all its cells, and see that it shows what it should.

`make browser` needs the program `chromium` (Debian: `apt-get install chromium`). This file runs in an environment with
JupyterLab and Playwright; its argument is the Python of the course, which runs 01 to 04 before (profile `smoke`) and is
the kernel in the browser. Pictures of the page, as wide as a desktop and as a phone, go to data/browser/.
"""

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

from playwright.sync_api import Page, TimeoutError as PlaywrightTimeoutError, sync_playwright

from course.workspace import COURSE_FOLDER

SCREENSHOTS = COURSE_FOLDER / "data" / "browser"
PORT, TOKEN = 8899, "course"
NOTEBOOK = "notebooks/05_evaluation.ipynb"
# as many cells have run as there are with an input that is shown
DONE = """cells => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].filter(
    prompt => /^\\[\\d+\\]:?$/.test(prompt.textContent.trim())).length === cells"""
# what TensorFlow writes when it starts
STARTED = re.compile(r"WARNING: All log messages before absl|I0000 .*(port|cudart_stub)\.cc:")
BEGUN = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].some(
    prompt => /^\\[[\\d*]+\\]:?$/.test(prompt.textContent.trim()))"""
IDLE = """() => document.querySelector('.jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator')
    ?.dataset.status === 'idle'"""
PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')].map(
    image => [image.naturalWidth, image.getBoundingClientRect().width, image.getBoundingClientRect().height])"""
SLIDER_MOVED = """before => {
    const image = document.querySelector('img.widget-image');
    return image && image.src !== before;
}"""


def prepare(folder: Path, python: str) -> dict[str, str]:
    """Copy the course to `folder`, run 01 to 04 in it, and return the environment variables for JupyterLab.

    JupyterLab is set to keep every cell in the page, not only those in view, to start the kernel unasked,
    and to read no news.
    """
    shutil.copytree(COURSE_FOLDER, folder / "course", ignore=shutil.ignore_patterns(".*", "data", "__pycache__"))
    chosen = {"UNET_WORK_DIR": str(folder / "work"), "UNET_PROFILE": "smoke", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment = os.environ | chosen
    for path in sorted((folder / "course" / "notebooks").glob("0[1-4]*.ipynb")):
        command = [python, "-m", "papermill", "--no-progress-bar", "--kernel", "python3", path, folder / path.name]
        subprocess.run(command, cwd=path.parent, env=environment, check=True, capture_output=True)
    notebook = folder / "course" / NOTEBOOK
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:  # what is seen afterwards was made in the browser
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    notebook.write_text(json.dumps(content), encoding="utf-8")
    subprocess.run([python, "-m", "ipykernel", "install", "--prefix", folder], check=True, capture_output=True)
    for name, value in {
        "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        settings = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(value), encoding="utf-8")
    return {
        **environment,
        "JUPYTER_PATH": str(folder / "share" / "jupyter"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
    }


def wait_for_server(seconds: float = 600) -> None:
    """Return when JupyterLab answers. Raises OSError if it does not."""
    end = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api?token={TOKEN}", timeout=5).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def screenshot(page: Page, name: str, width: int) -> None:
    """Save the whole notebook as it looks in a window of that width."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(1000)
    height = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-outer')].map(panel => panel.scrollHeight))"
    )
    page.set_viewport_size({"width": width, "height": min(height + 200, 16000)})
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / name)


def run_all_cells(page: Page) -> None:
    """Choose "Run All Cells", and see that it began: JupyterLab forgets it where the kernel is not ready yet."""
    for _ in range(10):
        page.locator(".jp-Notebook .jp-MarkdownCell").first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        try:
            page.wait_for_function(BEGUN, timeout=10_000)
            return
        except PlaywrightTimeoutError:
            print("Nothing runs yet; once more.", flush=True)
    raise SystemExit("JupyterLab does not run the cells.")


def use(page: Page, folder: Path) -> None:
    """Run all cells of the notebook in the page, and assert that each ran, none failed, and figures and slider work."""
    notebook = folder / "course" / NOTEBOOK
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    page.goto(f"http://127.0.0.1:{PORT}/lab/tree/{NOTEBOOK}?token={TOKEN}")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.wait_for_function(IDLE)
    run_all_cells(page)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    shown = [cell for cell in code if not cell["metadata"].get("jupyter", {}).get("source_hidden")]
    page.wait_for_function(DONE, arg=len(shown), timeout=1_800_000)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(3000)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    saved = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in saved for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in saved), "a cell did not run"
    for output in outputs:
        assert output["output_type"] != "error", f"a cell failed: {output}"
        if output.get("name") == "stderr":
            assert all(map(STARTED.match, "".join(output["text"]).splitlines())), f"a cell warned: {output}"
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    pictures = page.evaluate(PICTURES)
    assert 0 < figures < len(pictures), f"{figures} figures, and {len(pictures)} pictures with that of the slider"
    assert all(min(picture) > 0 for picture in pictures), f"a picture has no size: {pictures}"
    before = page.locator("img.widget-image").first.get_attribute("src")
    page.locator(".widget-slider .noUi-handle").first.press("ArrowRight")
    page.wait_for_function(SLIDER_MOVED, arg=before)
    print(f"{len(saved)} cells ran, {len(pictures)} pictures are shown, the slider moves.", flush=True)


def main(python: str) -> None:
    """Run the check with that Python as the kernel."""
    program = shutil.which("chromium") or sys.exit("There is no program chromium here: apt-get install chromium.")
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
