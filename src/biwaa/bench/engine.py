"""Trains the runs of a grid: in processes of this machine, on a Ray cluster, or as Slurm jobs.

- a run is trained by the process that holds its lock; a finished one is never trained again
- a failed one leaves a sentence in NAME.failed and a log in NAME.log, and the others go on
- a process that dies is replaced and its run resumed from its last checkpoint, at most TRIES times
"""

import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from biwaa.api import adapt
from biwaa.bench.grid import Work
from biwaa.errors import BiwaaError, one_line
from biwaa.files import write_text
from biwaa.recipe import recipe_from
from biwaa.registry import load_plugin_file

TRIES = 3  # How often a run may lose its process
_IN_TRAINING: set[Path] = set()  # Markers of the runs that this process is training


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    name: str
    state: str  # finished, failed, or busy: another process holds it
    reason: str = ""


def train_one(work: Work) -> Outcome:
    """Train one run, or find it finished. Never raises but for an interrupt."""
    locks = work.folder / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    work.run.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / f"{work.name}.lock", timeout=-1 if work.wait else 0):
            return _train_locked(work)
    except Timeout:
        return Outcome(work.name, "busy")


def _train_locked(work: Work) -> Outcome:
    work.failed.unlink(missing_ok=True)
    if work.result():
        return Outcome(work.name, "finished")
    tries = 1 + int(work.running.read_text() or 0) if work.running.exists() else 1
    if tries > TRIES:
        work.running.unlink()
        return _failed(work, f"its process died {TRIES} times; was there too little memory?")
    write_text(work.running, str(tries))
    _IN_TRAINING.add(work.running)
    try:
        log = work.log.open("a", encoding="utf-8")
        with log, contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
            outcome = _train_logged(work)
    finally:
        work.running.unlink(missing_ok=True)
        _IN_TRAINING.discard(work.running)
    return outcome


def _train_logged(work: Work) -> Outcome:
    try:
        for file in work.plugins:
            load_plugin_file(file)
        recipe = recipe_from(work.recipe, work.name)
        adapt(
            work.source, work.target, held_out=work.held_out, out=work.run, recipe=recipe, resume=True,
            data_root=work.data_root,
        )  # fmt: skip
    except (BiwaaError, OSError) as error:
        return _failed(work, str(error))
    except Exception as error:  # one run's bug must not end the others
        traceback.print_exc()
        return _failed(work, f"{type(error).__name__}: {error}")
    if not work.keep_models:
        shutil.rmtree(work.run / "checkpoints", ignore_errors=True)
        (work.run / "model.safetensors").unlink(missing_ok=True)
    return Outcome(work.name, "finished")


def _failed(work: Work, reason: str) -> Outcome:
    write_text(work.failed, reason + "\n")
    return Outcome(work.name, "failed", reason)


def local(works: list[Work], processes: int) -> Iterator[Outcome]:
    """Train on this machine, `processes` at a time, each with its share of the cores and one of the GPUs.

    Raises:
        BiwaaError: processes die before they can train.
    """
    context = multiprocessing.get_context("spawn")
    pending = {work.name: work for work in works}
    deaths = 0  # pools lost in a row without any run's outcome
    while pending:
        slots = context.Queue()
        for slot in range(processes):
            slots.put(slot)
        with ProcessPoolExecutor(processes, context, _start_worker, (slots, processes)) as pool:
            futures = [pool.submit(train_one, work) for work in pending.values()]
            try:
                for future in as_completed(futures):
                    outcome = future.result()
                    del pending[outcome.name]
                    deaths = 0
                    yield outcome
            except BrokenProcessPool:
                deaths += 1  # a new pool goes on with what is left
                if deaths > TRIES * processes:
                    raise BiwaaError("the processes that train die at their start; try --processes 1.") from None
            except BaseException:  # an interrupt, say: the runs' processes end with this one
                processes_left = list(getattr(pool, "_processes", {}).values())
                pool.shutdown(wait=False, cancel_futures=True)
                for process in processes_left:
                    process.terminate()
                raise


def _start_worker(slots: "multiprocessing.Queue[int]", processes: int) -> None:
    slot = slots.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench's own process decides
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As many as torch would take by itself, which is what OMP_NUM_THREADS says where it is set, or fewer.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // processes)))
    if gpus := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[slot % len(visible)]


def _leave(*_: Any) -> None:
    """Asked to end, by an interrupt or because a neighbour died: that is no death of the run in training."""
    for marker in _IN_TRAINING:
        marker.unlink(missing_ok=True)
    os._exit(143)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        _leave()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_cluster(cluster: str) -> None:
    """Make sure that this machine can hand runs to `cluster`: none, ray or slurm.

    Raises:
        BiwaaError: the extra [cluster] is missing, or Slurm is.
    """
    library = {"ray": "ray", "slurm": "submitit"}.get(cluster)
    if library and not importlib.util.find_spec(library):
        raise BiwaaError(f"--cluster {cluster} needs {library}: pip install 'biwaa[cluster]'.")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise BiwaaError("--cluster slurm: there is no sbatch here; start it on a machine that can submit Slurm jobs.")


def ray(works: list[Work], options: dict[str, Any]) -> Iterator[Outcome]:
    """Train on the Ray cluster at options["address"], or on a new local one; options are those of a Ray task.

    Every node must see the bench's folder and the data under the same paths.

    Raises:
        BiwaaError: there is no such cluster, or Ray does not know an option.
    """
    import ray as library

    options = {"num_cpus": 1, "max_retries": TRIES, **options}
    address = options.pop("address", None)
    if not library.is_initialized():
        try:
            library.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise BiwaaError(f"no Ray cluster at {address}: {one_line(error)}.") from None
    # Few threads a task, or neighbours on a node trample on each other.
    environment = {"env_vars": {"OMP_NUM_THREADS": str(max(1, int(options["num_cpus"])))}}
    try:
        task = library.remote(train_one).options(runtime_env=environment, **options)
        pending = {task.remote(work): work for work in works}
    except (ValueError, TypeError) as error:
        raise BiwaaError(f"Ray takes no such option: {one_line(error)}.") from None
    while pending:
        done, _ = library.wait(list(pending), num_returns=1)
        work = pending.pop(done[0])
        try:
            yield library.get(done[0])
        except library.exceptions.RayError as error:
            yield _failed(work, f"Ray lost the run: {one_line(error)}")


def slurm(works: list[Work], options: dict[str, Any]) -> Iterator[Outcome]:
    """Submit the runs as one Slurm job array and wait for it; options are sbatch's (time, partition, gpus_per_node ..).

    Raises:
        BiwaaError: Slurm refuses the job.
    """
    import submitit

    executor = submitit.SlurmExecutor(folder=works[0].folder / "slurm")
    try:
        executor.update_parameters(**{"time": 240, "cpus_per_task": 2, "array_parallelism": 64, **options})
        jobs = dict(zip(executor.map_array(train_one, works), works, strict=True))
    except (submitit.core.utils.FailedJobError, ValueError, TypeError, OSError) as error:
        raise BiwaaError(f"Slurm refused the runs: {one_line(error)}.") from None
    for job in submitit.helpers.as_completed(list(jobs), poll_frequency=5):
        try:
            yield job.result()
        except Exception as error:  # submitit raises what the job raised, or that it has no result
            yield _failed(jobs[job], f"Slurm lost the run: {one_line(error)}")


Engine = Callable[[list[Work]], Iterable[Outcome]]


def train_all(works: list[Work], engine: Engine) -> Iterator[Outcome]:
    """Every run's outcome once; runs that another process holds are waited for last."""
    todo: dict[str, Work] = {}
    for work in works:
        if work.result():
            yield Outcome(work.name, "finished")
        else:
            todo[work.name] = work
    left: list[Work] = []
    if todo:
        for outcome in engine(list(todo.values())):
            if outcome.state == "busy":
                left.append(dataclasses.replace(todo[outcome.name], wait=True))
            else:
                yield outcome
    if left:
        yield from engine(left)
