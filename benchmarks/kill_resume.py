"""kill -9 in the middle of training, again and again, then --resume: python -m benchmarks.kill_resume

The localizer is trained once without a break, and once with its process killed 20 times: half of the kills at random
moments, half as soon as a checkpoint's file begins to be written. The SHA-256 of the final weights must be equal. Then
the newest checkpoint of a stopped run is damaged: it must be refused by name, the one before used, the weights equal.
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minidet.cli.common import make_training_data
from minidet.cli.train import reopen_splits, start_run
from minidet.training import load_system, open_run, train
from minidet.training.checkpoint import list_checkpoints

SETTINGS = ["images=256", "val_images=32", "test_images=32", "size=32", "batch_size=32", "epochs=80", "warmup=20"]
CHECKPOINT_SECONDS = 0.3  # often, so that kills meet saves
LONGEST_LIFE = 4.0  # seconds between the start of training and a random kill; loading the kernels takes one
WEIGHTS = ("last.safetensors", "best.safetensors")


def train_in(folder: Path, data: Path) -> None:
    """What the killed process does: starts the run, or resumes it."""
    system = load_system("localizer")
    resume = (folder / "config.json").is_file()
    if resume:
        run = open_run(folder)
        splits = reopen_splits(system, run)
    else:
        run, splits = start_run(system, folder, data, 0, SETTINGS)
    print("training", flush=True)
    train(system, run, *splits.values(), resume=resume, checkpoint_seconds=CHECKPOINT_SECONDS)


def start(folder: Path, data: Path) -> subprocess.Popen:
    """A process that trains, past its imports."""
    command = [sys.executable, "-m", "benchmarks.kill_resume", "--child", str(folder), "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process.stdout.readline()
    return process


def half_written(folder: Path) -> list[str]:
    """Checkpoints whose temporary file is there: they are being written, or their writer was killed."""
    checkpoints = folder / "checkpoints"
    return [path.name for path in checkpoints.glob(".step-*")] if checkpoints.is_dir() else []


def wait_for_save(process: subprocess.Popen, folder: Path) -> None:
    """Until a checkpoint begins to be written (not one left over by an earlier kill), or the process ends."""
    before = set(half_written(folder))
    while process.poll() is None and set(half_written(folder)) <= before:
        time.sleep(0.0002)


def kill_many_times(folder: Path, data: Path, kills: int, moments: random.Random) -> None:
    print(f"{'kill':>4}  {'seconds':>7}  {'moment':<13}  newest checkpoint   left half-written")
    for number in range(1, kills + 1):
        process, began = start(folder, data), time.monotonic()
        in_save = number % 2 == 0
        time.sleep(moments.uniform(0.0, LONGEST_LIFE))
        if in_save:
            wait_for_save(process, folder)
        process.kill()
        lived = time.monotonic() - began
        output = process.communicate()[0]
        if process.returncode != -9:
            raise SystemExit(f"the run ended before kill {number}, use more epochs:\n{output}")
        newest = "".join(path.stem for path in list_checkpoints(folder / "checkpoints")[:1])
        moment = "within a save" if in_save else "random"
        print(
            f"{number:>4}  {lived:>7.2f}  {moment:<13}  {''.join(newest):<18}  {len(half_written(folder))}", flush=True
        )


def finish(folder: Path, data: Path) -> list[str]:
    """Trains to the end; returns what the process printed."""
    process = start(folder, data)
    output = process.communicate()[0]
    if process.returncode != 0:
        raise SystemExit(f"the run in {folder} failed:\n{output}")
    return output.splitlines()


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WEIGHTS]


def damage_newest(folder: Path, moments: random.Random) -> Path:
    """Flips one bit of the newest checkpoint of an unfinished run."""
    newest = list_checkpoints(folder / "checkpoints")[0]
    content = bytearray(newest.read_bytes())
    content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
    newest.write_bytes(content)
    return newest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        train_in(args.child, args.data)
        return 0
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        system = load_system("localizer")
        data = make_training_data(Path(folder) / "data", system, system.configure(SETTINGS))
        whole, killed, damaged = (Path(folder) / name for name in ("whole", "killed", "damaged"))
        finish(whole, data)
        kill_many_times(killed, data, args.kills, moments)
        finish(killed, data)
        process = start(damaged, data)
        while len(list_checkpoints(damaged / "checkpoints") if damaged.is_dir() else []) < 2:
            time.sleep(0.01)
        time.sleep(1.0)
        process.kill()
        process.communicate()
        name = damage_newest(damaged, moments).name
        told = [line for line in finish(damaged, data) if line.startswith(("refused", "continuing"))]
        print(f"\none bit of {name} flipped:", *(line.replace(folder + os.sep, "") for line in told), sep="\n  ")
        results = {run.name: digests(run) for run in (whole, killed, damaged)}
    print("\nSHA-256 of " + " and ".join(WEIGHTS))
    for run, both in results.items():
        print(f"  {run:<8}", *(digest[:32] for digest in both))
    equal = results["whole"] == results["killed"] == results["damaged"]
    print("equal, byte for byte" if equal else "NOT EQUAL")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
