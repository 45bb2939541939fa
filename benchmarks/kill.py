"""Kills the real command again and again, resumes it, and compares bytes with a run that was not killed.

    python benchmarks/kill.py --kills 30 --out kill.json

A third of the kills each: at a random instant of training, while a checkpoint is written, at the end of a stage (while
its file, the model, the predictions or the result are written). A chain of kills and resumptions ends when a run
finishes before its kill comes; the next chain starts in a fresh folder. Modes: small nets end to end; BIWAA on a frozen
backbone, with the teacher of the recipe `robust`; that recipe end to end; end to end in two processes (--devices 2), of
which in turn the leading and the second one is killed: the other must end by itself, with a sentence.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from biwaa.ranks import GONE
from biwaa.result import read_result

COMMON = ["--source", "digits:plain", "--target", "digits:photographs", "--device", "cpu", "--log-every", "10"]
TEACHER = ["--recipe", "robust", "--rounds", "3", "--scouts", "2", "--bottleneck", "32", "--checkpoint-every", "5"]
SMALL = ["--backbone", "cnn", "--weights", "none", "--image-size", "24", "--resize", "24", "--crops", "1", "--augment",
         "none"]  # fmt: skip
FROZEN = ["--backbone", "efficientnet-lite0", "--freeze-backbone", "--image-size", "32", "--resize", "32"]
END_TO_END = ["--recipe", "demo", "--method", "biwaa", "--rounds", "2", "--steps", "40", "--bottleneck", "16",
              "--discriminator", "32", "--checkpoint-every", "5"]  # fmt: skip
MODES = {
    "end to end": END_TO_END,
    "frozen, teacher": [*TEACHER, *FROZEN, "--steps", "150", "--method", "biwaa", "--discriminator", "32"],
    "end to end, teacher": [*TEACHER, *SMALL, "--steps", "30"],
    "two processes": [*END_TO_END, "--devices", "2"],
}
COMPARED = ("model.safetensors", "predictions.csv")
KINDS = ("any instant", "checkpoint", "end of a stage")
WHOLE = "the model is in"
"""What is printed once no process waits for another any more."""
PATIENCE = 60.0
"""Seconds after which a process that did not end by itself hangs."""


def command(flags: list[str], out: Path, resume: bool) -> list[str]:
    """The command as a user types it."""
    return [sys.executable, "-m", "biwaa", "train", *COMMON, *flags, "--out", str(out), *["--resume"] * resume]


def drafts(run: Path) -> set[str]:
    """What is being written in a run folder."""
    found: set[str] = set()
    for folder in (run, run / "checkpoints"):
        try:
            found |= {entry.name for entry in os.scandir(folder) if entry.name.startswith(".")}
        except OSError:
            continue
    return found


def children(process: int) -> list[int]:
    """Living processes that a process started."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def lives(process: int) -> bool:
    """Whether it runs; one that has ended and was not asked for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(ended: Callable[[], bool], what: str) -> None:
    """Wait until something has ended by itself.

    Raises:
        SystemExit: it does not.
    """
    begin = time.perf_counter()
    while not ended():
        if time.perf_counter() - begin > PATIENCE:
            raise SystemExit(f"{what} goes on after the other process was killed")
        time.sleep(0.01)


def kill_once(flags: list[str], run: Path, kind: str, seconds: float, rng: random.Random, second: bool) -> bool:
    """Start or resume, and kill at an instant of `kind`, the leading process or the second; False where it was late."""
    resume = (run / "recipe.yaml").exists()
    before = run.stat().st_mtime_ns if run.exists() else None
    wait = rng.uniform(0, seconds)
    skip = rng.randrange(6)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command(flags, run, resume), stdout=subprocess.DEVNULL, stderr=errors)
        begin: float | None = None
        seen: set[str] = set()
        while process.poll() is None:
            if begin is None:
                # The folder is touched when training starts: what comes before, importing, is no news.
                if run.exists() and run.stat().st_mtime_ns != before and (run / "recipe.yaml").exists():
                    begin = time.perf_counter()
            elif kind == "any instant":
                if time.perf_counter() - begin > wait:
                    break
            else:
                fresh = drafts(run) - seen
                seen |= fresh
                checkpoint = {name for name in fresh if name.startswith(".candidate")}
                chosen = checkpoint if kind == "checkpoint" else fresh - checkpoint
                skip -= len(chosen)
                if chosen and skip < 0:
                    break
            time.sleep(0.0005)
        others = children(process.pid)
        if second and others:
            os.kill(others[0], signal.SIGKILL)
            wait_for(lambda: process.poll() is not None, "the leading process")
        process.kill()
        code = process.wait()
        wait_for(lambda: not any(lives(other) for other in others), "the second process")
        errors.seek(0)
        text = errors.read().decode(errors="replace")
        survived = bool(others) and code != 0 and WHOLE not in text
        if code not in (0, 2 if second else -9) or (survived and GONE not in text) or "Traceback" in text:
            raise SystemExit(f"the command failed by itself ({code}):\n{text}")
    return code != 0


def measure(name: str, flags: list[str], kills: int, folder: Path, rng: random.Random) -> dict[str, Any]:
    """Kill `kills` times in one mode; how many chains, and whether all ended with the same bytes."""
    whole = folder / "whole"
    subprocess.run(command(flags, whole, False), check=True, capture_output=True)
    expected = {part: (whole / part).read_bytes() for part in COMPARED}
    seconds = read_result(whole).cost.seconds
    struck = dict.fromkeys(KINDS, 0)
    victims = dict.fromkeys(("leading process", "second process") if "--devices" in flags else (), 0)
    chains = same = 0
    while sum(struck.values()) < kills:
        run = folder / f"cut{chains}"
        chains += 1
        while sum(struck.values()) < kills:
            count = sum(struck.values())
            kind, second = KINDS[count % len(KINDS)], bool(victims) and count % 2 == 1
            if not kill_once(flags, run, kind, 0.7 * seconds, rng, second):
                break
            struck[kind] += 1
            if victims:
                victims["second process" if second else "leading process"] += 1
            print(f"{name}: killed {sum(struck.values())} of {kills} ({kind})", file=sys.stderr, flush=True)
        done = subprocess.run(
            command(flags, run, (run / "recipe.yaml").exists()), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"could not be resumed:\n{done.stderr}")
        same += all((run / part).read_bytes() == content for part, content in expected.items())
        if left := drafts(run):
            raise SystemExit(f"left behind in {run}: {left}")
    return {
        "kills": struck,
        **({"killed": victims} if victims else {}),
        "runs": chains,
        "runs_with_the_same_bytes": same,
    }


def main(kills: int = 30, modes: tuple[str, ...] = tuple(MODES), seed: int = 0, out: Path | None = None) -> None:
    """Measure the modes asked for, print JSON, and write it; figures of other modes in the file are kept."""
    found: dict[str, Any] = {}
    for name in modes:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(name, MODES[name], kills, Path(folder), random.Random(seed))
    print(json.dumps(found, indent=2))
    if out:
        earlier = json.loads(out.read_text()) if out.exists() else {}
        out.write_text(json.dumps(earlier | found, indent=2) + "\n")
    if any(entry["runs"] != entry["runs_with_the_same_bytes"] for entry in found.values()):
        raise SystemExit("a resumed run ended otherwise")


if __name__ == "__main__":
    tyro.cli(main)
