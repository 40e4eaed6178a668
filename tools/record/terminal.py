"""Runs a command and draws what it writes, line by line in its own time, as an animated SVG.

    python tools/record/terminal.py OUT.svg --seconds 14 -- adavit train --max-steps 300

Needs nothing but Python. Long runs are shown in the given seconds, from the first line to the last.
"""

import argparse
import html
import subprocess
import time

WIDTH, LINE, CHAR, MARGIN = 116, 19, 8.0, 16


def recorded(command):
    """Every line that the command writes, and when."""
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    lines = [(0.0, "$ " + " ".join(command))]
    for line in process.stdout:
        text = line.rstrip("\n")
        while True:
            lines.append((time.monotonic() - start, text[:WIDTH]))
            text = text[WIDTH:]
            if not text:
                break
    if process.wait() != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return lines


def drawn(lines, rows, seconds):
    """The last `rows` lines at any time, looping."""
    pause = 3.0
    end = lines[-1][0] or 1.0
    total = seconds + pause
    width, height = WIDTH * CHAR + 2 * MARGIN, rows * LINE + 2 * MARGIN
    steps = []
    for index, (when, _) in enumerate(lines):
        top = max(0, index + 1 - rows) * LINE
        steps.append((100 * when / end * seconds / total, top))
    moves = "".join(f"{at:.2f}%{{transform:translateY({-top}px)}}" for at, top in steps)
    shown = []
    for index, (when, text) in enumerate(lines):
        at = when / end * seconds
        y = MARGIN + (index + 1) * LINE - 5
        shown.append(
            f'<text y="{y}" x="{MARGIN}" style="animation-delay:{at:.2f}s">{html.escape(text)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-size="13.3">'
        f"<style>text{{font-family:ui-monospace,Menlo,Consolas,monospace;fill:#e6e6e6;white-space:pre;"
        f"opacity:0;animation:show .01s forwards}}@keyframes show{{to{{opacity:1}}}}"
        f"#all{{animation:move {total:.1f}s step-end forwards}}@keyframes move{{{moves}100%{{transform:"
        f"translateY({-steps[-1][1]}px)}}}}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#1e1e1e"/>'
        f'<clipPath id="clip"><rect x="0" y="{MARGIN}" width="100%" height="{rows * LINE}"/></clipPath>'
        f'<g clip-path="url(#clip)"><g id="all">{"".join(shown)}</g></g></svg>\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="the SVG file to write")
    parser.add_argument("--rows", type=int, default=18, help="lines on the screen")
    parser.add_argument("--seconds", type=float, default=12.0, help="duration of the recording")
    parser.add_argument("command", nargs="+", help="behind --")
    args = parser.parse_args()
    with open(args.out, "w") as file:
        file.write(drawn(recorded(args.command), args.rows, args.seconds))


if __name__ == "__main__":
    main()
