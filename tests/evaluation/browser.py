"""Pages driven in headless Chromium."""

import html
import json
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def what_is_seen(page, actions, folder):
    """Run a script behind a page's own; what it left as JSON in an element `seen`."""
    driven = folder / "driven.html"
    driven.write_text(page.replace("</body>", actions + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    answer = subprocess.run(
        [str(CHROMIUM), *options, "--dump-dom", f"file://{driven}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    shutil.rmtree(folder / "profile", ignore_errors=True)
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', answer.stdout)[1]))
