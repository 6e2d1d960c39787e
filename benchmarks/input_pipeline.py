"""Times the training input pipeline against an equivalent one in tf.data, over the same JPEGs.

    python benchmarks/input_pipeline.py [--images=FOLDER] [--rounds=5] [--output=FILE.csv]

Both shuffle file names, read, decode a random resized crop (Inception's, 224 pixels), flip and
batch uint8 images by 256. Every pipeline has processes of its own; they run in turns, stopped
(SIGSTOP) in between so that none reads ahead at another's expense. The table tells the median
images/s over the rounds, the median of the ratios to tf.data in the same round, the processor time
per image (of the pipeline's processes; less sensitive to other work on the machine), and the
memory of the process and its workers (each shared page counted once), in all and after each 1,000
images.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.table import write_table

RESULTS = Path(__file__).parent / "results"
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "imagenet_sample"
SIZE = 224
BATCH_SIZE = 256
WARM_UP_BATCHES = 2
MEMORY_EVERY_IMAGES = 1000
BASELINE = "tf.data"
PIPELINES = {BASELINE: None, "shift_jax, threads": 0, "shift_jax, 2 workers": 2}


def shift_jax_batches(folder: str, num_workers: int):
    from shift_jax.data import load_source, random_resized_crop, train_batches

    return train_batches(
        load_source("folder", "train", data_dir=folder, image_size=SIZE),
        random_resized_crop(SIZE),
        batch_size=BATCH_SIZE,
        seed=0,
        num_workers=num_workers,
    )


def tf_data_batches(folder: str):
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from shift_jax.data.augment.inception import crop_box

    classes = sorted(path for path in Path(folder, "train").iterdir())
    examples = [
        (str(path), label) for label, each in enumerate(classes) for path in sorted(each.iterdir())
    ]
    paths, labels = zip(*examples, strict=True)

    # The same crops for both: tf.image's own sampler draws smaller ones.
    rng = np.random.default_rng(0)
    sizes = {os.path.realpath(path): None for path, _ in examples}
    for path in sizes:
        with Image.open(path) as image:
            sizes[path] = image.height, image.width
    boxes = [
        crop_box(*sizes[os.path.realpath(path)], (0.08, 1.0), (3 / 4, 4 / 3), rng) for path in paths
    ]

    def example(path, label, window):
        image = tf.image.decode_and_crop_jpeg(tf.io.read_file(path), window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE))
        image = tf.image.random_flip_left_right(image)
        return {"image": tf.cast(tf.round(image), tf.uint8), "label": label}

    dataset = tf.data.Dataset.from_tensor_slices((list(paths), list(labels), boxes))
    dataset = dataset.shuffle(len(paths), seed=0).repeat()
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return iter(dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE).as_numpy_iterator())


def serve(name: str, folder: str) -> None:
    """Runs one pipeline: reads a number of batches from stdin, answers with what they took."""
    num_workers = PIPELINES[name]
    if num_workers is None:
        batches = tf_data_batches(folder)
    else:
        batches = shift_jax_batches(folder, num_workers)
    batch = next(batches)
    assert batch["image"].shape == (BATCH_SIZE, SIZE, SIZE, 3)
    assert batch["image"].dtype == "uint8"
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(WARM_UP_BATCHES):
            next(batches)
        cpu_s, start, images, memory = _cpu_s(), time.perf_counter(), 0, []
        not_counted_s = 0.0
        for _ in range(int(line)):
            next(batches)
            if images // MEMORY_EVERY_IMAGES != (images + BATCH_SIZE) // MEMORY_EVERY_IMAGES:
                before = time.perf_counter()
                memory.append(f"{_memory_mib():.0f}")
                not_counted_s += time.perf_counter() - before
            images += BATCH_SIZE
        seconds = time.perf_counter() - start - not_counted_s
        print(images / seconds, (_cpu_s() - cpu_s) / images, *memory, flush=True)


def _processes() -> list[int]:
    """This process and all that descend from it; Linux only."""
    found = [os.getpid()]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def _cpu_s() -> float:
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in _processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / ticks


def _memory_mib() -> float:
    total_kib = 0
    for pid in _processes():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kib / 1024


def lay_out(photos: list[Path], folder: Path, num_images: int) -> None:
    """Fills `folder`/train with class folders of links, each photo under several names."""
    for number, photo in zip(range(num_images), itertools.cycle(photos), strict=False):
        class_folder = folder / "train" / photo.name.partition("_")[0]
        class_folder.mkdir(parents=True, exist_ok=True)
        (class_folder / f"{number:06d}_{photo.name}").symlink_to(photo)


def machine() -> dict[str, str]:
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((li.split(": ")[1] for li in lines if li.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def measure(folder: str, rounds: int, batches: int) -> dict[str, list[list[float]]]:
    """Returns for each pipeline one answer of `serve` per round."""
    servers, answers = {}, {name: [] for name in PIPELINES}
    try:
        for name in PIPELINES:
            servers[name] = _start(name, folder)
        for number in range(rounds):
            for name, server in servers.items():
                os.killpg(server.pid, signal.SIGCONT)
                server.stdin.write(f"{batches}\n")
                server.stdin.flush()
                answers[name].append([float(value) for value in server.stdout.readline().split()])
                os.killpg(server.pid, signal.SIGSTOP)
            print(number + 1, {name: round(a[-1][0]) for name, a in answers.items()}, flush=True)
    finally:
        # A stopped process does not notice that its input has ended.
        for server in servers.values():
            os.killpg(server.pid, signal.SIGCONT)
            server.stdin.close()
            server.wait()
    return answers


def _start(name: str, folder: str) -> subprocess.Popen:
    server = subprocess.Popen(
        [sys.executable, __file__, f"--serve={name}", f"--images={folder}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if server.stdout.readline() != "ready\n":
        sys.exit(f"error: {name} did not start")
    os.killpg(server.pid, signal.SIGSTOP)
    return server


def table(answers: dict[str, list[list[float]]], num_images: int) -> list[dict]:
    rows = []
    baseline = [answer[0] for answer in answers[BASELINE]]
    for name, each in answers.items():
        memory = [value for answer in each for value in answer[2:]]
        rows.append(
            {
                "pipeline": name,
                "images_per_s": round(statistics.median(answer[0] for answer in each)),
                "ratio_to_tf_data": round(
                    statistics.median(
                        answer[0] / theirs for answer, theirs in zip(each, baseline, strict=True)
                    ),
                    2,
                ),
                "cpu_ms_per_image": round(1e3 * statistics.median(a[1] for a in each), 2),
                "peak_memory_mib": round(max(memory)),
                "memory_mib_each_1000_images": " ".join(f"{value:.0f}" for value in memory),
                "rounds": len(each),
                "different_images": num_images,
                **machine(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=PHOTOS, help="folder of JPEGs")
    parser.add_argument("--num_images", type=int, default=10_000, help="names they are given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=10, help="timed in each round")
    parser.add_argument("--output", type=Path, default=RESULTS / "input_pipeline.csv")
    parser.add_argument("--serve", choices=PIPELINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, str(arguments.images))
        return
    photos = sorted(
        path for path in arguments.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")
    )
    if not photos:
        sys.exit(
            f"error: {arguments.images} holds no JPEGs; give a folder that does with --images."
        )
    # So that the servers and the folder go then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: stopped by SIGTERM"))
    with tempfile.TemporaryDirectory() as folder:
        lay_out([photo.resolve() for photo in photos], Path(folder), arguments.num_images)
        answers = measure(folder, arguments.rounds, arguments.batches)
    rows = table(answers, len(photos))
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    write_table(arguments.output, rows)


if __name__ == "__main__":
    main()
