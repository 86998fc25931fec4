"""Two processes are one run: they do the same, and when one ends, both do, and say why."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from orthoreg_jax.config import flatten_config, load_config
from orthoreg_jax.hosts.agreement import Agreement
from orthoreg_jax.hosts.interruption import _Interruption
from orthoreg_jax.hosts.watch import Watch
from orthoreg_jax.storage import only_one

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
    assert "coordination" not in said[other] and "stack trace" not in said[other]


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


def test_both_save_after_the_same_steps(inputs, tmp_path):
    """As soon as one of them wants to: one that saved alone would wait for the other for ever."""
    common = ["--config.methods=full", "--config.tasks=first", "--config.training.steps=400"]
    common += ["--config.evaluation.disentanglement_tasks=", "--config.evaluation.feature_images=0"]
    common += ["--config.evaluation.analogies="]
    trees = []
    for name, minutes in (("often", "1e-9"), ("never", "0.0")):
        options = [*common, f"--config.training.checkpoint_minutes={minutes}"]
        saves = {"SAVES": str(tmp_path / f"{name}-saves")}
        with Pair(inputs, tmp_path / name, options, options, program=COUNTED, **saves) as pair:
            codes, said = pair.ends()
        assert codes == [0, 0], said
        trees.append(tmp_path / name / "full" / "seed3" / "first" / "vector.safetensors")
    steps = [(tmp_path / f"often-saves{process}").read_text().split() for process in range(2)]
    assert steps[0] == steps[1] and steps[0]
    assert not (tmp_path / "never-saves0").exists()
    assert trees[0].read_bytes() == trees[1].read_bytes()


class Board(Watch):
    """A watch of threads in place of processes."""

    def __init__(self, process, processes, entries):
        self.process, self.processes, self._entries, self.on_poll = process, processes, entries, []

    def post(self, name, text):
        self._entries.setdefault(name, {})[self.process] = text

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
        own, board = _Interruption(), Board(process, 4, entries)
        own.agree_by(board)
        finished = threading.Event()

        def poll():
            while not finished.is_set():
                time.sleep(0.01)
                found = board.read()
                for call in board.on_poll:
                    call(found)

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
        thread.join(60)
    assert len(stopped) == 4 and len(set(stopped.values())) == 1, stopped


@pytest.mark.parametrize("seed", range(4))
def test_agreements_follow_one_another(seed):
    """Three that want to act again and again; after each step agreed on they meet."""
    rng, entries, acted, counts = random.Random(seed), {}, [[] for _ in range(3)], [0] * 3
    barrier, finished = threading.Barrier(3), threading.Event()
    wants = [{rng.randrange(1, 300) for _ in range(20)} for _ in range(3)]

    def run(process):
        board = Board(process, 3, entries)
        own = Agreement(board, "save")

        def poll():
            while not finished.is_set():
                time.sleep(0.003)
                own.read(board.read())

        threading.Thread(target=poll, daemon=True).start()
        for step in range(1, 301):
            while step > min(counts) + 10:
                time.sleep(0.0005)
            counts[process] = step
            time.sleep(0.001)
            if step in wants[process]:
                own.ask()
            if own.pass_step():
                own.renew()
                acted[process].append(step)
                barrier.wait(30)

    threads = [threading.Thread(target=run, args=(process,), daemon=True) for process in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    finished.set()
    assert acted[0] == acted[1] == acted[2] and len(acted[0]) > 3
