#!/usr/bin/env python3
"""Measures PyTorch with timm on the work of `adavit throughput`, alone or in turn with it."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from work import ADAMW, PRESETS, Work

GRID = (
    ("deit_small_patch16_224", False, 1),
    ("deit_small_patch16_224", False, 8),
    ("deit_small_patch16_224", False, 32),
    ("deit_small_patch16_224", True, 16),
    ("nano_patch4_28", False, 128),
    ("nano_patch4_28", True, 128),
)
"""Preset, whether it trains, and batch of the table's lines."""

SPIN_SECONDS = 0.05
"""How long OpenMP's threads may spin, with a margin, before they sleep."""

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that could make PyTorch's idle threads spin while adavit is measured."""


class Failure(Exception):
    """Something to tell a person in one line; `code` is the exit status."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


class Worker:
    """A process of worker.py: a model that waits to be measured."""

    def __init__(self, work: Work, *, compiled: bool) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        environment = {key: value for key, value in os.environ.items() if key not in WAITING}
        environment["OMP_NUM_THREADS"] = str(work.threads)
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("worker.py")),
                json.dumps({**asdict(work), "compile": compiled}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def measure(self, seconds: float) -> dict[str, Any]:
        """Images per second of each round, and memory."""
        assert self._process.stdin is not None
        # If the process has died, reading its answer says of what.
        with suppress(OSError):
            print(seconds, file=self._process.stdin, flush=True)
        return self._answer()

    def cpu_seconds(self) -> float | None:
        """Processor time that the process has used, where the system tells."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        # The name, in parentheses, may have spaces; fields 14 and 15 count from 1.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        # It holds nothing worth saving, and it may be in the middle of a measurement.
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            # Closing sends what is left of a request, to nobody.
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.wait()
        self._errors.seek(0)
        reason = last_line(self._errors.read()) or f"exit status {self._process.returncode}"
        if reason.startswith("ModuleNotFoundError"):
            requirements = Path(__file__).with_name("requirements.txt")
            reason += f"; install what {requirements} lists into {sys.executable}'s environment"
        raise Failure(f"PyTorch: {reason}")


def last_line(text: str) -> str:
    """The last line that is not blank, where Python and adavit both say what went wrong."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def run_adavit(binary: Path, work: Work, seconds: float) -> tuple[float, int | None]:
    """Images per second, and memory of a training step, as adavit reports them."""
    command = [str(binary), "throughput", "--json", "--preset", work.preset]
    command += ["--batch", str(work.batch), "--threads", str(work.threads)]
    command += ["--seconds", f"{seconds:g}"] + ["--train"] * work.train
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Failure(f"--adavit {binary}: {error.strerror or error}", 2) from error
    if done.returncode != 0:
        reason = last_line(done.stderr) or "no message"
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}: {reason}")
    try:
        report = json.loads(done.stdout)
        speed = float(report["train" if work.train else "dense"]["images_per_s"])
        memory = report.get("step_rss_bytes") if work.train else None
        threads = report["threads"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            f"{binary}: expected a report of throughput, found another: {error!r}"
        ) from error
    if threads != work.threads:
        raise Failure(f"{binary}: expected {work.threads} threads, found {threads}")
    if not speed > 0:
        raise Failure(f"{binary}: expected a positive number of images per second, found {speed}")
    return speed, None if memory is None else int(memory)


def cpu_name() -> str:
    """What the system calls the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def describe(work: Work, about: dict[str, Any]) -> dict[str, Any]:
    """What every report starts with."""
    return {**asdict(work), **about, "cpu": cpu_name()}


def measure_alone(work: Work, seconds: float, *, compiled: bool) -> tuple[dict[str, Any], Any]:
    """What a fresh process says of itself, and its measurement."""
    with Worker(work, compiled=compiled) as worker:
        answer = worker.measure(seconds)
        answer = {"images_per_s": statistics.median(answer["rounds"]), **answer}
        return worker.about, answer


def run(work: Work, seconds: float, *, compile: bool) -> dict[str, Any]:
    """PyTorch alone: eager and, if asked, compiled."""
    about, eager = measure_alone(work, seconds, compiled=False)
    compiled = measure_alone(work, seconds, compiled=True)[1] if compile else None
    return {**describe(work, about), "eager": eager, "compile": compiled}


@dataclass
class Turns:
    """What the rounds of a comparison gave."""

    adavit: list[float] = field(default_factory=list)
    adavit_memory: list[int | None] = field(default_factory=list)
    eager: list[float] = field(default_factory=list)
    eager_memory: list[int | None] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)
    idle_cpu: list[float] = field(default_factory=list)
    """Processor time that PyTorch took while adavit was measured."""


def ratio(
    work: Work, binary: Path, rounds: int, seconds: float, *, compile: bool
) -> dict[str, Any]:
    """adavit and PyTorch in turn."""
    # A binary that cannot be measured is found out before models are built and compiled.
    run_adavit(binary, work, min(seconds, 0.1))
    with Worker(work, compiled=False) as eager:
        if not compile:
            turns = take_turns(work, binary, rounds, seconds, eager, None)
        else:
            with Worker(work, compiled=True) as compiled:
                compiled.measure(0)  # Compiles.
                turns = take_turns(work, binary, rounds, seconds, eager, compiled)
        about = eager.about
    return {**describe(work, about), "rounds": rounds, "seconds": seconds, **summarize(turns)}


def take_turns(
    work: Work,
    binary: Path,
    rounds: int,
    seconds: float,
    eager: Worker,
    compiled: Worker | None,
) -> Turns:
    """Measures adavit, then PyTorch, then compiled PyTorch, and again."""
    turns = Turns()
    workers = [eager] if compiled is None else [eager, compiled]
    for number in range(1, rounds + 1):
        note(f"{work}: round {number} of {rounds}")
        time.sleep(SPIN_SECONDS)
        before = [worker.cpu_seconds() for worker in workers]
        speed, memory = run_adavit(binary, work, seconds)
        after = [worker.cpu_seconds() for worker in workers]
        spans = zip(before, after, strict=True)
        turns.idle_cpu.append(sum(b - a for a, b in spans if a is not None and b is not None))
        turns.adavit.append(speed)
        turns.adavit_memory.append(memory)

        answer = eager.measure(seconds)
        turns.eager.append(statistics.median(answer["rounds"]))
        turns.eager_memory.append(answer["step_rss_bytes"])
        if compiled is not None:
            time.sleep(SPIN_SECONDS)
            turns.compiled.append(statistics.median(compiled.measure(seconds)["rounds"]))
    note("")
    return turns


def summarize(turns: Turns) -> dict[str, Any]:
    """Medians, and ratios of adavit to PyTorch."""
    # PyTorch's peak is of all its rounds so far; adavit's, of a process of one round.
    eager_memory = turns.eager_memory[0]
    known = [memory for memory in turns.adavit_memory if memory is not None]
    adavit_memory = statistics.median_low(known) if known else None
    return {
        "adavit": {
            "images_per_s": statistics.median(turns.adavit),
            "per_round": turns.adavit,
            "step_rss_bytes": adavit_memory,
        },
        "eager": {**compare(turns.adavit, turns.eager), "step_rss_bytes": eager_memory},
        "compile": compare(turns.adavit, turns.compiled) if turns.compiled else None,
        "memory_ratio": adavit_memory / eager_memory if adavit_memory and eager_memory else None,
        "pytorch_cpu_s_while_adavit_ran": sum(turns.idle_cpu),
    }


def compare(adavit: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """The other side's speeds, and the ratios of adavit's to them, round by round."""
    ratios = [a / b for a, b in zip(adavit, other, strict=True)]
    return {
        "images_per_s": statistics.median(other),
        "per_round": list(other),
        "ratio": statistics.median(ratios),
        "ratio_per_round": ratios,
    }


def note(message: str) -> None:
    """Shows progress to a person, on one line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{message}", end="", file=sys.stderr, flush=True)


def number(value: float | None) -> str:
    """Four significant digits, without an exponent."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:#.4g}"


def mebibytes(value: int | None) -> str:
    """A size for people."""
    return "-" if value is None else f"{value / 2**20:.0f} MiB"


def conditions(report: dict[str, Any]) -> str:
    """Where and with what something was measured."""
    adamw = f", {report['adamw']} AdamW" if report["train"] else ""
    return (
        f"{report['threads']} threads, {report['cpu']}, torch {report['torch']}, "
        f"timm {report['timm']}{adamw}"
    )


def show_run(work: Work, report: dict[str, Any]) -> None:
    """PyTorch alone, for people."""
    print(work)
    print(conditions(report))
    print(f"  parameters     {report['parameters']:>10}, as many as adavit's")
    for name, label in (("eager", "PyTorch"), ("compile", "torch.compile")):
        if report[name] is not None:
            print(f"  {label:13}  {number(report[name]['images_per_s']):>10} images/s")
    eager = report["eager"]
    if work.train:
        print(f"  step's memory  {mebibytes(eager['step_rss_bytes']):>10}")
    print(f"  peak memory    {mebibytes(eager['peak_rss_bytes']):>10}")


def show_ratio(work: Work, report: dict[str, Any]) -> None:
    """A comparison, for people."""
    print(work)
    print(f"{conditions(report)}, rounds in turn: {report['rounds']}")
    print(f"  {'':13}  {'images/s':>10}  {'ratio':>6}  {'of each round':<24}  step's memory")
    adavit = report["adavit"]
    show_line("adavit", adavit, mebibytes(adavit["step_rss_bytes"]))
    show_line("PyTorch", report["eager"], mebibytes(report["eager"]["step_rss_bytes"]))
    if report["compile"] is not None:
        show_line("torch.compile", report["compile"], "-")
    print("A ratio is adavit's images/s over the line's: above 1, adavit is faster.")
    if report["memory_ratio"] is not None:
        print(f"A step of adavit takes {number(report['memory_ratio'])} of PyTorch's memory.")


def show_line(label: str, side: dict[str, Any], memory: str) -> None:
    """One side of a comparison."""
    each = " ".join(f"{value:.2f}" for value in side.get("ratio_per_round", [])) or "-"
    middle = f"{side['ratio']:.2f}" if "ratio" in side else "-"
    speed = number(side["images_per_s"])
    print(f"  {label:13}  {speed:>10}  {middle:>6}  {each:<24}  {memory}")


def grid(arguments: argparse.Namespace) -> None:
    """The documented table, each row as soon as it is measured."""
    compile = arguments.compile
    columns = ["work", "PyTorch images/s", *["torch.compile images/s"] * compile]
    columns += ["adavit images/s", "ratio", *["ratio to torch.compile"] * compile, "memory ratio"]
    report: dict[str, Any] = {}
    for preset, train, batch in GRID:
        work = Work(preset, batch, train, arguments.threads, arguments.adamw)
        report = ratio(work, arguments.adavit, arguments.rounds, arguments.seconds, compile=compile)
        if (preset, train, batch) == GRID[0]:
            show_row(columns)
            show_row(["---"] * len(columns))
        show_row(grid_cells(work, report))
    print(f"\n{conditions(report)}, rounds in turn: {report['rounds']}.")


def grid_cells(work: Work, report: dict[str, Any]) -> list[str]:
    """A row of the table."""
    compiled = report["compile"]
    memory = report["memory_ratio"]
    return [
        str(work),
        number(report["eager"]["images_per_s"]),
        *([number(compiled["images_per_s"])] if compiled else []),
        number(report["adavit"]["images_per_s"]),
        f"{report['eager']['ratio']:.2f}",
        *([f"{compiled['ratio']:.2f}"] if compiled else []),
        "-" if memory is None else f"{memory:.2f}",
    ]


def show_row(cells: Sequence[str]) -> None:
    """A row of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Ends with the status of bad usage."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return value


def duration(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, found {text!r}")
    return value


def program(text: str) -> Path:
    """A path that can be run."""
    path = Path(text).resolve()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise argparse.ArgumentTypeError(f"expected a program, found none at {text}")
    return path


def parser() -> Parser:
    """The command line."""
    top = Parser(description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    alone = commands.add_parser("run", help="PyTorch alone")
    in_turn = commands.add_parser("ratio", help="adavit and PyTorch in turn, round by round")
    table = commands.add_parser("grid", help="ratio of every line of the documented table")

    for command in (alone, in_turn):
        command.add_argument(
            "--preset", required=True, choices=PRESETS, metavar="PRESET", help=", ".join(PRESETS)
        )
        command.add_argument("--batch", required=True, type=count, help="images of a step")
        command.add_argument("--train", action="store_true", help="training, not inference")
        command.add_argument("--json", action="store_true", help="one JSON object")
    for command in (in_turn, table):
        command.add_argument(
            "--adavit",
            required=True,
            type=program,
            metavar="PROGRAM",
            help="adavit, built with --release",
        )
        command.add_argument("--rounds", type=count, default=5, help="default: %(default)s")
    for command in (alone, in_turn, table):
        seconds = 5.0 if command is alone else 3.0
        command.add_argument(
            "--seconds",
            type=duration,
            default=seconds,
            help="length of a measurement; default: %(default)g",
        )
        command.add_argument("--threads", type=count, default=2, help="default: %(default)s")
        command.add_argument("--compile", action="store_true", help="torch.compile beside eager")
        command.add_argument(
            "--adamw",
            choices=ADAMW,
            default=ADAMW[0],
            help="PyTorch's AdamW; default: %(default)s, its fastest on a CPU",
        )
    return top


def main() -> None:
    """Runs the command that the arguments name."""
    arguments = parser().parse_args()
    if arguments.command == "grid":
        grid(arguments)
        return
    work = Work(
        arguments.preset, arguments.batch, arguments.train, arguments.threads, arguments.adamw
    )
    if arguments.command == "run":
        report, show = run(work, arguments.seconds, compile=arguments.compile), show_run
    else:
        report = ratio(
            work, arguments.adavit, arguments.rounds, arguments.seconds, compile=arguments.compile
        )
        show = show_ratio
    if arguments.json:
        print(json.dumps(report))
    else:
        show(work, report)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        note("")
        print(f"error: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(130)
