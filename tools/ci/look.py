"""Opens what a run left in the programs of others: the report in Chromium, the events in TensorBoard.

    python tools/ci/look.py RUN [--screenshot DIR]

Fails if the page writes to its console, a figure is missing, the page is wider than a phone, or a
value of the event files is not that of metrics.csv.
"""

import argparse
import csv
import html
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
FIGURES = {"figure": 20, "svg": 8, "table": 6, "img": 12}
# Width and height in pixels of what is drawn.
DESKTOP = (1200, 7000)
PHONE = (390, 16000)
# Chromium's setting for pages that the reader prefers dark, and light.
COLOURS = {"dark": 0, "light": 1}


def fail(message):
    sys.exit(f"error: {message}")


class Counter(HTMLParser):
    """Counts tags, and looks at every address."""

    def __init__(self):
        super().__init__()
        self.found = dict.fromkeys(FIGURES, 0)
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        if tag in self.found:
            self.found[tag] += 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


class Browser:
    """Chromium without a window, with a profile of its own."""

    def __init__(self, folder):
        path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        if path is None:
            fail(f"no browser: expected one of {', '.join(BROWSERS)}")
        self.command = [path, *QUIET, f"--user-data-dir={folder}/profile"]

    def run(self, page, *options):
        return subprocess.run(
            [*self.command, *options, page.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )


def phone_page(report, folder):
    """A page that shows the report as a phone does: Chromium has no window as narrow as that.

    Its title becomes the width that the report takes.
    """
    width, height = PHONE
    page = Path(folder) / "phone.html"
    page.write_text(
        "<!doctype html><title></title><style>:root{color-scheme:light dark}body{margin:0}"
        f"iframe{{border:0;width:{width}px;height:{height}px}}</style>"
        '<iframe onload="document.title=this.contentDocument.documentElement.scrollWidth" '
        f'srcdoc="{html.escape(report.read_text())}"></iframe>'
    )
    return page


def look_at_report(run, screenshots, folder):
    browser = Browser(folder)
    page = run / "report.html"
    done = browser.run(page, "--enable-logging=stderr", "--v=0", "--dump-dom")
    if written := [line for line in done.stderr.splitlines() if "CONSOLE" in line]:
        fail(f"the page writes to its console: {written}")
    counter = Counter()
    counter.feed(done.stdout)
    for tag, expected in FIGURES.items():
        if counter.found[tag] < expected:
            fail(f"{tag}: expected {expected}, found {counter.found[tag]}")
    if outside := [a for a in counter.addresses if not a.startswith("data:")]:
        fail(f"the page asks for {outside}")
    phone = phone_page(page, folder)
    shown = browser.run(phone, "--dump-dom").stdout
    width = re.search(r"<title>(\d+)</title>", shown)
    if width is None or int(width[1]) > PHONE[0]:
        fail(f"expected a page at most {PHONE[0]} pixels wide, found {width and width[1]}")
    if screenshots:
        for name, (shown, size) in {"desktop": (page, DESKTOP), "phone": (phone, PHONE)}.items():
            for colour, setting in COLOURS.items():
                browser.run(
                    shown,
                    f"--blink-settings=preferredColorScheme={setting}",
                    f"--window-size={size[0]},{size[1]}",
                    f"--screenshot={screenshots.resolve()}/report-{name}-{colour}.png",
                )
    print(f"report: {counter.found}")


def look_at_events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for stage in ("dense", "adaptive"):
        losses = [float(row["loss"]) for row in rows if row["stage"] == stage]
        found = [event.value for event in events.Scalars(f"{stage}_epoch/loss")]
        if len(found) != len(losses) or any(abs(a - b) > 1e-5 for a, b in zip(found, losses)):
            fail(f"{stage}: expected the losses {losses}, found {found}")
    print(f"events: {len(tags)} scalars, {len(rows)} epochs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder, trained with --tensorboard")
    parser.add_argument("--screenshot", type=Path, help="also write pictures of the page here")
    args = parser.parse_args()
    if args.screenshot:
        args.screenshot.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        look_at_report(args.run, args.screenshot, folder)
    look_at_events(args.run)


if __name__ == "__main__":
    main()
