"""What a batch on a processor costs at once and in parts: its time, its memory, the loss after it.

`python benchmarks/at_once.py` runs each size in a process of its own and prints a line for each.
It is where `AT_ONCE` in ftkit/models/hardware.py comes from.
"""

import argparse
import resource
import subprocess
import sys
import time

BATCH = 16  # examples of an update


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 8, 4, 2])
    parser.add_argument("--max-length", type=int, nargs="+", default=[48, 128, 512])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measured(*options.one, options.dtype), flush=True)
        return
    for length in options.max_length:
        for size in options.sizes:
            subprocess.run([sys.executable, __file__, "--one", str(length), str(size),
                            "--dtype", options.dtype], check=True, stderr=subprocess.DEVNULL)


def measured(length, size, dtype):
    """Train SmolLM2 for six updates, `size` examples at once. Returns a line of what it took."""
    import ftkit as ft

    base = ft.load_model("smollm2-135m-instruct")
    data = ft.load_data("phenotype-definitions", n_train=6 * BATCH, n_validation=BATCH)
    began = time.process_time()
    run = ft.fit(base, data, epochs=1, batch_size=BATCH, max_length=length, dtype=dtype,
                 quiet=True, per_device_train_batch_size=size,
                 gradient_accumulation_steps=BATCH // size)
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (f"{dtype}, up to {length} tokens, {size:2} of {BATCH} at once: {took:.1f} s of the "
            f"processor, peak {peak:.1f} GB, validation loss {run.metrics['eval_loss']:.6f}")


if __name__ == "__main__":
    main()
