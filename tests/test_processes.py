"""Two processes are one run: they do the same, and when one ends, both do, and say why."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from orthoreg_jax.config import flatten_config, load_config
from orthoreg_jax.hosts.decisions import KEPT, Decisions
from orthoreg_jax.hosts.interruption import _Interruption
from orthoreg_jax.hosts.watch import Watch
from orthoreg_jax.storage import only_one
from tests.small_run import relative_difference

GONE = (
    "orthoreg: process {} of 2 stops because process {} ended: it stopped responding; it was killed"
)
ENDLESS = ("--config.training.steps=1000000", "--config.methods=full")

# Each process writes after which steps it saved a state.
COUNTED = ("-c", """
import os, sys
from orthoreg_jax import cli
from orthoreg_jax.training.saved_states import StateFolder

save = StateFolder.save
def save_and_say(self, state):
    save(self, state)
    with open(os.environ["SAVES"] + sys.argv[-1], "a") as file:
        print(int(state.step), file=file)

StateFolder.save = save_and_say
cli.main(sys.argv[1:])
""")  # fmt: skip


class Pair:
    """`orthoreg finetune` in two processes, and what they write to standard error."""

    def __init__(self, inputs, workdir, *options, program=("-m", "orthoreg_jax.cli"), **variables):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        command = [sys.executable, *program, "finetune", "--config", str(inputs)]
        command += ["--workdir", str(workdir), "--coordinator", f"127.0.0.1:{port}"]
        self.files = [workdir.with_name(f"stderr{process}") for process in range(2)]
        self.running = []
        for process, file in enumerate(self.files):
            own = [*options[process], "--processes", "2", "--process", str(process)]
            with file.open("w") as stderr:
                environment = os.environ | variables
                started = subprocess.Popen([*command, *own], stderr=stderr, env=environment)
                self.running.append(started)

    def wait_for(self, text):
        """Until the first process has written it."""
        while text not in self.files[0].read_text():
            assert self.running[0].poll() is None, self.files[0].read_text()
            time.sleep(0.05)

    def ends(self, seconds=120):
        """Exit codes and what was said."""
        codes = [process.wait(timeout=seconds) for process in self.running]
        return codes, [file.read_text() for file in self.files]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_says_so_and_ends(inputs, tmp_path, victim):
    with Pair(inputs, tmp_path / "run", ENDLESS, ENDLESS) as pair:
        pair.wait_for("model ")
        pair.running[victim].kill()
        codes, said = pair.ends(30)
    other = 1 - victim
    assert codes[victim] == -signal.SIGKILL and codes[other] == 1
    lines = [line for line in said[other].splitlines() if line.startswith("orthoreg: ")]
    assert len(lines) == 1 and lines[0].startswith(GONE.format(other, victim))
    assert said[other].splitlines()[-1] == lines[0]  # in place of what JAX says
    # A request that was under way when the other process died may leave a warning of JAX's, one
    # line; what JAX says before it aborts, it does not say.
    assert "Terminating process" not in said[other] and "stack trace" not in said[other]


def test_processes_with_other_options_refuse_to_train(inputs, tmp_path):
    options = ["--config.training.learning_rate=0.1"], ["--config.methods=full"]
    with Pair(inputs, tmp_path / "run", *options) as pair:
        codes, said = pair.ends()
    assert codes == [1, 1] and not (tmp_path / "run").exists()
    expected = "config.training.learning_rate: 0.1 in process 0, 0.001 in 1"
    assert all(expected in text and "config.methods" in text for text in said)


def test_what_one_refuses_ends_both(inputs, tmp_path):
    locked = tmp_path / "run" / "full" / "seed3"
    with only_one(locked):
        config = json.dumps(flatten_config(load_config(inputs)))
        (tmp_path / "run" / "config.json").write_text(config)
        with Pair(inputs, tmp_path / "run", *[["--config.methods=full"]] * 2) as pair:
            codes, said = pair.ends()
    reason = f"{locked}: another process is using it"
    assert codes == [1, 1] and f"orthoreg: {reason}" in said[0]
    assert f"process 1 of 2 stops because process 0 ended: {reason}" in said[1]


def test_both_save_and_stop_after_the_same_step(inputs, tmp_path):
    with Pair(inputs, tmp_path / "run", ENDLESS, ENDLESS) as pair:
        pair.wait_for("model ")
        pair.running[1].send_signal(signal.SIGTERM)
        codes, said = pair.ends()
    assert codes == [143, 143]
    ends = [text.splitlines()[-1] for text in said]
    assert ends[0] == ends[1] and "updates; repeat the command to resume" in ends[0]
    (state,) = (tmp_path / "run" / "full" / "seed3" / "first" / "state").iterdir()
    assert f"stopped after {state.name} updates" in ends[0]


def test_both_save_by_the_first_ones_clock(finished, inputs, tmp_path):
    """A state after every step: one that saved alone would wait for the other for ever."""
    options = ["--config.methods=full", "--config.training.checkpoint_minutes=1e-9"]
    environment = {"SAVES": str(tmp_path / "saves")}
    with Pair(inputs, tmp_path / "run", options, options, program=COUNTED, **environment) as pair:
        codes, said = pair.ends()
    assert codes == [0, 0], said
    for process in range(2):
        saves = (tmp_path / f"saves{process}").read_text().split()
        assert saves == [*"12345"] * 2  # of two tasks
    for task in ("first", "second"):
        file = pathlib.Path("full", "seed3", task, "vector.safetensors")
        assert relative_difference(tmp_path / "run" / file, finished / file) < 1e-4


class Board(Watch):
    """A watch of threads in place of processes."""

    def __init__(self, process, processes, entries):
        self.process, self.processes, self._entries, self.on_poll = process, processes, entries, []

    def post(self, name, text):
        self._entries.setdefault(name, {})[self.process] = text

    def read_one(self, name, process):
        return self._entries.get(name, {}).get(process)

    def read(self):
        return json.loads(
            json.dumps(self._entries), object_hook=lambda d: {_key(k): v for k, v in d.items()}
        )


def _key(text):
    return int(text) if text.isdigit() else text


@pytest.mark.parametrize("seed", range(8))
def test_an_agreement_is_the_same_step_wherever_each_one_is(seed):
    """Four that run ahead of one another by up to ten steps, asked at any moment."""
    rng, entries, stopped, counts = random.Random(seed), {}, {}, [0] * 4
    pauses = [rng.choice([0, 0.001, 0.004]) for _ in range(4)]

    def run(process):
        own = _Interruption()
        own.watch = Board(process, 4, entries)
        finished = threading.Event()

        def poll():
            while not finished.is_set():
                time.sleep(0.01)
                own.read(own.watch.read())

        threading.Thread(target=poll, daemon=True).start()
        for step in range(1, 100_000):
            while step > min(counts) + 10:  # all-reduces hold the fast ones back
                time.sleep(0.0005)
            counts[process] = step
            time.sleep(pauses[process])
            if process == 2 and step == 20 + seed:
                own.note(signal.SIGTERM)
            if own.pass_step():
                stopped[process] = step
                counts[process] = 10**9
                break
        finished.set()

    threads = [threading.Thread(target=run, args=(process,), daemon=True) for process in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert len(stopped) == 4 and len(set(stopped.values())) == 1, stopped


@pytest.mark.parametrize("seed", range(4))
def test_all_hear_the_first_ones_answers_wherever_each_one_is(seed):
    """Three processes, of which the first says yes now and then; after a yes they wait for all."""
    rng, entries, heard = random.Random(seed), {}, [[] for _ in range(3)]
    answers = [rng.random() < 0.1 for _ in range(400)]
    barrier = threading.Barrier(3)

    def run(process, pauses):
        own = Decisions(Board(process, 3, entries))
        for answer, pause in zip(answers, pauses, strict=True):
            time.sleep(pause)
            heard[process].append(own.ask(answer if process == 0 else rng.random() < 0.5))
            if heard[process][-1]:
                barrier.wait(240)

    threads = [
        threading.Thread(target=run, args=(i, rng.choices([0, 0.001], k=len(answers))), daemon=True)
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert sum(answers) > KEPT and heard == [answers] * 3
