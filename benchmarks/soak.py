"""Does anything grow? Memory and open files over a long training, and what a bench of many short runs leaves behind.

    python benchmarks/soak.py --steps 20000 --runs 200 --out benchmarks/results/soak.json

- a run of `--steps` steps with a tiny network, sampled every half second: resident memory (its mean over the second
  and the last tenth of the samples), open files and threads, bytes of log.jsonl
- a bench of `--runs` runs of two steps: processes, files in the temporary folder and in the bench's folder afterwards
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from biwaa.device import hardware

TINY = ["--backbone", "lenet", "--weights", "none", "--image-size", "28", "--resize", "28", "--crops", "1", "--augment",
        "none", "--batch-size", "8", "--bottleneck", "16", "--discriminator", "16", "--device", "cpu"]  # fmt: skip
EVERY = 0.5
"""Seconds between two samples."""


def sample(process: int) -> dict[str, float] | None:
    """Resident MiB, open files and threads of a process; None once it has ended."""
    place = Path(f"/proc/{process}")
    try:
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
        if "VmRSS" not in status:
            return None
        files = len(list((place / "fd").iterdir()))
        return {
            "mib": int(status["VmRSS"].split()[0]) / 1024,
            "files": float(files),
            "threads": float(status["Threads"]),
        }
    except (OSError, ValueError):
        return None


def long_run(steps: int, folder: Path) -> dict[str, Any]:
    """One stage of `steps` steps of BIWAA."""
    out = folder / "run"
    words = ["train", "--source", "digits:plain", "--target", "digits:photographs", "--recipe", "paper", *TINY,
             "--rounds", "1", "--no-baseline", "--steps", str(steps), "--out", str(out)]  # fmt: skip
    with (folder / "output").open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "biwaa", *words], stdout=output, stderr=output)
        samples: list[dict[str, float]] = []
        while process.poll() is None:
            found = sample(process.pid)
            if found and (out / "log.jsonl").exists():
                samples.append(found)
            time.sleep(EVERY)
    if process.returncode:
        raise SystemExit((folder / "output").read_text())
    samples = samples[:-4]  # not the predictions at the end
    tenth = max(1, len(samples) // 10)
    parts = {"second_tenth": samples[tenth : 2 * tenth], "last_tenth": samples[-tenth:]}
    return {
        "steps": steps,
        "samples": len(samples),
        "means": {
            name: {key: round(statistics.fmean(entry[key] for entry in part), 2) for key in samples[0]}
            for name, part in parts.items()
        },
        "log_bytes_a_step": round((out / "log.jsonl").stat().st_size / steps, 2),
    }


def many_runs(runs: int, folder: Path) -> dict[str, Any]:
    """A bench of `runs` runs of two steps."""
    temporary, out = folder / "temporary", folder / "bench"
    temporary.mkdir()
    words = ["bench", "digits", "--tasks", "plain2photographs", "--methods", "source_only", "--seeds",
             *map(str, range(runs)), "--recipe", "paper", *TINY, "--rounds", "1", "--steps", "2", "--processes", "2",
             "--out", str(out)]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(temporary)}
    most: dict[str, float] = {"mib": 0.0, "files": 0.0, "threads": 0.0}
    with (folder / "bench-output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "biwaa", *words],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )  # fmt: skip
        first: dict[str, float] | None = None
        while process.poll() is None:
            found = sample(process.pid)
            if found:
                most = {key: max(value, found[key]) for key, value in most.items()}
                if first is None and len(list(out.glob("runs/*/result.json"))) >= 5:
                    first = found
            time.sleep(EVERY)
    if process.returncode:
        raise SystemExit((folder / "bench-output").read_text())
    group = subprocess.run(["ps", "-o", "pid=,args=", "--sid", str(process.pid)], capture_output=True, text=True)
    run_files = sorted({path.name for path in out.glob("runs/*/*")})
    return {
        "runs": len(list(out.glob("runs/*/result.json"))),
        "processes_left": group.stdout.split("\n")[:-1],
        "temporary_files_left": sorted(path.name for path in temporary.iterdir()),
        "files_of_the_bench": sorted(path.name for path in out.iterdir()),
        "files_of_the_runs": run_files,
        "drafts_left": [str(path.relative_to(out)) for path in out.rglob(".*")],
        "markers_left": [path.name for path in out.glob("runs/*.*") if path.suffix in (".running", ".failed")],
        "parent_after_five_runs": first,
        "parent_at_most": most,
    }


def main(steps: int = 20_000, runs: int = 200, out: Path | None = None) -> None:
    """Measure, print JSON and write it."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        if steps:
            found["long_run"] = long_run(steps, Path(name))
        if runs:
            found["many_runs"] = many_runs(runs, Path(name))
    facts = hardware("cpu")
    found["hardware"] = {key: facts[key] for key in ("processor", "machine")}
    text = json.dumps(found, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")


if __name__ == "__main__":
    tyro.cli(main)
