r"""A batch of singular value decompositions that stops for ever on a CPU, seen with jaxlib 0.10.2.

    python experiments/upstream/batched_svd_hang.py --seconds 60

`jaxlib/cpu/lapack_kernels.cc` cuts a batch into chunks, schedules them on XLA's intra-op thread
pool and waits for them (`ParallelBatchMap`, `absl::BlockingCounter::Wait`). The thread that waits
may be one of the pool's own: whichever finishes the last part of a kernel goes on with what depends
on it. When all threads of the pool wait so, none is left to run the chunks. Few cores and several
programs at once make it likely: on two cores the first or second call did not come back. A batch of
one is a single chunk, which runs where it is called: with `--batch 1` nothing stops.

Prints the call that has not come back, and ends with 1. In a process that hangs so, gdb's `thread
apply all bt` shows each "tf_XLAEigen" thread in BlockingCounter::Wait below lapack_sgesdd_ffi. From
JAX's revision 859992407 (July 2026) on, batches are no longer cut.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def watch(progress: dict[str, float], patience: float) -> None:
    """Ends the process once it has computed nothing for so many seconds."""
    spent, since = 0.0, time.monotonic()
    while True:
        time.sleep(1)
        if time.process_time() - spent > 0.1:
            spent, since = time.process_time(), time.monotonic()
        if time.monotonic() - since > patience:
            print(
                f"call {progress['calls']:.0f} has not come back, and no core is busy", flush=True
            )
            os._exit(1)


def main() -> None:
    """Calls until it hangs or time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--patience", type=float, default=15)
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {os.cpu_count()} cores")
    shape = (64, options.batch, 64, 64)
    values = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)

    @jax.jit
    def decompose(values: jax.Array) -> list[Any]:
        # A kernel that is cut into parts, too, so that the pool's threads come by here.
        sums = [jnp.sin(values * factor).sum(axis=0) for factor in (1.0, 2.0, 3.0, 4.0)]
        return [jnp.linalg.svd(each, full_matrices=False) for each in sums]

    progress = {"calls": 0.0}
    threading.Thread(target=watch, args=(progress, options.patience), daemon=True).start()
    began = time.monotonic()
    while time.monotonic() - began < options.seconds:
        jax.block_until_ready([decompose(values) for _ in range(4)])
        progress["calls"] += 1
    print(f"{progress['calls']:.0f} calls came back")


if __name__ == "__main__":
    main()
