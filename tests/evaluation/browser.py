"""Run pages in headless Chromium."""

import html
import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def run_in_browser(page, script, folder):
    """Run a script after the page's scripts; return the JSON that it puts in element `seen`."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    process = subprocess.run(
        [str(CHROMIUM), *options, "--dump-dom", f"file://{file}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', process.stdout)[1]))
