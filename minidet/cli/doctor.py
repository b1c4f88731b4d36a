"""minidet doctor: what is installed, what can run and why not; with --data, whether a network learns eight images."""

import argparse
from pathlib import Path

from minidet.cli.common import (
    add_machine_options,
    add_out_option,
    add_seed_option,
    add_set_option,
    claim_folder,
    class_map,
    print_table,
    use_machine,
)

EPILOG = """example:
  minidet doctor
  minidet data make scenes --task localization
  minidet doctor --data scenes --out scenes-doctor

With --data the annotations are looked at as a whole: boxes in another layout or beside their images, labels shifted
against the names. Then a network has to learn eight images by heart: if it cannot, something is wrong with the data or
the training, and no longer training will help. The exit code is 1 if the annotations are wrong or it cannot."""

IMAGES = 8
STEPS = 100  # enough for most healthy networks to learn eight images by heart; a system's `doctor` may say more
LOSS_FALLS_TO = 0.1  # of what it was at the beginning, at most
METRIC_REACHES = 0.8  # the system's metric, or its doctor_metric, on the same images: boxes are decoded and match


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("--data", type=Path, metavar="DIR", help="data set whose first eight images are to be learned")
    parser.add_argument("--split", default="train", help="part of the data set (default: train)")
    parser.add_argument("--system", default="localizer", help="the network that learns them (default: localizer)")
    add_set_option(parser)
    add_out_option(parser, "minidet-doctor", "the picture of the eight images")
    add_seed_option(parser)
    add_machine_options(parser)


def run(args: argparse.Namespace) -> int:
    device = use_machine(args)
    describe_installation(device)
    return 0 if args.data is None else overfit(args, device)


def describe_installation(device: str) -> None:
    """Versions, processor, threads, and for each version of the kernels and each device whether it can be used."""
    import minidet_kernels
    from minidet.training.run import describe_environment

    environment = describe_environment(device)
    compiler = environment.pop("compiler", None)
    packages = environment.pop("packages")
    print_table(environment | packages)
    print("\nkernels:")
    runs = {name: "can run" if reason is None else f"cannot run: {reason}"
            for name, reason in minidet_kernels.available().items()}  # fmt: skip
    runs[minidet_kernels.current()] += ", is used"
    print_table(runs)
    print("\ndevices:")
    print_table(describe_devices())
    if compiler is not None:
        print("\ncompiler:")
        print_table(compiler)
        if compiler["threading_layer"] == "workqueue":
            print("  the threading layer workqueue is slow to start: install the OpenMP runtime (libgomp, libomp)")


def describe_devices() -> dict[str, str]:
    """For each value of --device whether it can be used, and why not."""
    from minidet.device import describe_device
    from minidet_kernels import available, emulator

    no_gpu, no_emulator = available()["cuda"], emulator.why_not()
    return {
        "cpu": "can be used",
        "cuda": f"cannot be used: {no_gpu}" if no_gpu else f"can be used: {describe_device('cuda')}",
        "emulated": f"cannot be used: {no_emulator}" if no_emulator else "can be used: CUDA's sources on the CPU, slow",
    }


def overfit(args: argparse.Namespace, device: str) -> int:
    """Trains on eight images and draws what was learned; 1 if the annotations are wrong as a whole, the loss does not
    fall or the boxes do not match."""
    from minidet.data.files import write_atomic
    from minidet.training import Training, complete, evaluate, load_system
    from minidet.training.run import encode_png

    system = load_system(args.system)
    overrides = [f"epochs={STEPS}", f"batch_size={IMAGES}", "warmup=10", "weight_decay=0"]
    if "augment" in system.defaults:
        overrides.append("augment=false")
    settings = system.configure([*overrides, *system.doctor, *args.set])
    whole, causes = examine(args.data, args.split, system)
    if causes:
        print(f"\nill: nothing can be learned from {args.data} as its split {args.split} is annotated now")
        print("\n".join(causes))
        return 1
    eight = whole.subset(range(min(IMAGES, len(whole))))
    if all(record.iscrowd.all() for record in eight.records):
        raise ValueError(
            f"{args.data}: expected objects in the first {IMAGES} images of {args.split}, found none in {len(eight)}; "
            "annotate one, or name another split"
        )
    eight.verify()
    system.check(eight, settings)
    out = args.out or Path("minidet-doctor")
    claim_folder(out, "doctor")
    if system.prepare is not None:
        system.prepare(eight, settings, out, args.split)
    training = Training(system, settings, whole.classes, eight, args.seed, device)
    losses = learn(training)
    complete(system, training.model, eight, settings, out)
    metrics, predictions = evaluate(system, training.model, eight, IMAGES)
    picture = system.draw(eight, predictions, whole.classes)
    write_atomic(out / "eight-images.png", encode_png(picture))
    print(f"\n{args.system} on {len(eight)} images of {args.data}:\n{class_map(whole)}")
    print_table({"steps": len(losses), "loss at first": losses[0], "loss at last": losses[-1], **metrics})
    print(f"\nto look at: {out / 'eight-images.png'}")
    return verdict(system, losses, metrics)


def examine(data: Path, split: str, system):
    """(data set, what is probably wrong with all of its annotations). Raises the first error that is not explained."""
    from minidet.data import open_dataset
    from minidet.data.diagnose import diagnose

    errors: list[ValueError] = []
    whole = open_dataset(data, split, masks=system.masks, joints=system.joints, on_problem=errors.append)
    causes = diagnose(data, split, whole, errors)
    if errors and not causes:
        raise errors[0]
    return whole, causes


def learn(training) -> list[float]:
    """All steps of the training; returns the loss of each."""
    from tqdm import tqdm

    from minidet.training.report import waiting

    losses = []
    training.begin_epoch()
    with waiting("compiling the kernels"):
        losses.append(sum(training.step(next(iter(training.loader))).values()))
    with tqdm(total=training.total_steps, initial=1, desc="learning eight images", disable=None) as bar:
        while not training.finished:
            training.begin_epoch()
            for batch in training.loader:
                losses.append(sum(training.step(batch).values()))
                bar.update()
    return losses


def verdict(system, losses: list[float], metrics: dict[str, float]) -> int:
    """Says what is wrong, if anything; returns the exit code."""
    complaints = []
    if not losses[-1] <= LOSS_FALLS_TO * losses[0]:
        complaints.append(
            f"the loss fell from {losses[0]:.4g} to {losses[-1]:.4g} only: check the labels and the learning rate"
        )
    metric = system.doctor_metric or system.metric
    if not metrics[metric] >= METRIC_REACHES:
        complaints.append(
            f"{metric} is {metrics[metric]:.3f}, expected {METRIC_REACHES} or more on images learned by "
            "heart: look at the picture whether the boxes belong to the objects"
        )
    print("\n" + ("\n".join(complaints) or "healthy: the loss falls and the predictions match"))
    return 1 if complaints else 0
