"""Opens what a run left in the programs of others: the report in Chromium, the events in TensorBoard.

    python tools/ci/look.py RUN [--screenshot DIR]

Fails if the page says anything on its console, a figure is missing, or a value is not read.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
FIGURES = {"svg": 5, "table": 4, "img": 12}


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


def look_at_report(run, screenshots):
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        fail(f"no browser: expected one of {', '.join(BROWSERS)}")
    page = (run / "report.html").resolve().as_uri()
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, "--v=0", "--dump-dom", page], capture_output=True, text=True, timeout=120, check=True
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    if said:
        fail(f"the page says: {said}")
    counter = Counter()
    counter.feed(done.stdout)
    for tag, expected in FIGURES.items():
        if counter.found[tag] < expected:
            fail(f"{tag}: expected {expected}, found {counter.found[tag]}")
    if outside := [a for a in counter.addresses if not a.startswith("data:")]:
        fail(f"the page asks for {outside}")
    for name, size in {"wide": "1200,2600", "phone": "400,4200"}.items():
        if screenshots:
            target = screenshots / f"report-{name}.png"
            subprocess.run(
                [*command, f"--window-size={size}", f"--screenshot={target}", page],
                capture_output=True,
                timeout=120,
                check=True,
            )
    print(f"report: {counter.found}")


def look_at_events(run):
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
    look_at_report(args.run, args.screenshot)
    look_at_events(args.run)


if __name__ == "__main__":
    main()
