"""What a user sees of the work: lines of a phase, and the time left."""

import os
import pty
import re
import signal
import struct
import sys

import pytest

from orthoreg_jax import progress
from orthoreg_jax.hosts import interruption
from orthoreg_jax.progress import Progress
from orthoreg_jax.time_left import KNOWN_SECONDS, Plan, spoken


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    monkeypatch.setattr(progress, "time", clock := Clock())
    return clock


@pytest.fixture
def out(tmp_path):
    """No terminal."""
    with (tmp_path / "out").open("w+") as file:
        yield file


def lines_of(file):
    file.seek(0)
    return file.read().splitlines()


def take(clock, bar, steps, seconds, **values):
    for _ in range(steps):
        clock.now += seconds
        bar.update(**values)


def plan_of(*phases):
    plan = Plan()
    for label, kind, steps, stage in phases:
        plan.expect(label, kind, steps, stage)
    return plan


def test_nothing_is_said_before_it_is_known_and_the_least_while_a_stage_is_not(clock, out):
    plan = plan_of(
        ("a", "plain", 10, "train"), ("b", "plain", 20, "train"), ("c", "edited", 5, "measure")
    )
    with Progress("a", 10, out, plan=plan) as bar:
        take(clock, bar, 1, 60.0)  # it compiles
        assert plan.describe() == ""
        take(clock, bar, 2, KNOWN_SECONDS / 4)
        assert plan.describe() == ""
        take(clock, bar, 7, 2.0)
    # 9 steps of which two took 0.75 s: 15.5 s; c is not known.
    assert plan.left() == (pytest.approx(20 * 15.5 / 9), False, False)
    assert plan.describe() == "34 s+"
    with Progress("b", 20, out, plan=plan) as bar:
        take(clock, bar, 20, 2.0)
        assert not plan.left().whole
    with Progress("c", 5, out, plan=plan) as bar:
        assert plan.describe() == ""
        take(clock, bar, 5, 4.0)
        assert plan.left() == (0.0, False, True)
    assert plan.left() is None


def test_methods_that_have_not_run_count_at_the_speed_of_those_that_have(clock, out):
    """Ten fine-tunings, half of them with a penalty: after the first, nine are left."""
    tasks = [(f"{kind} {number}", kind, 100, "train")
             for kind in ("full", "full+orthoreg") for number in range(5)]  # fmt: skip
    plan = plan_of(*tasks, ("e", "edited", 20, "measure"))
    with Progress("full 0", 100, out, plan=plan) as bar:
        take(clock, bar, 100, 2.0)
    assert plan.left() == (pytest.approx(9 * 200.0), True, False)
    assert plan.describe() == "~30 min+"
    for number in range(1, 5):
        with Progress(f"full {number}", 100, out, plan=plan) as bar:
            take(clock, bar, 100, 2.0)
    with Progress("full+orthoreg 0", 100, out, plan=plan) as bar:
        take(clock, bar, 50, 4.0)  # its own speed is known now: 450 steps
        assert plan.left() == (pytest.approx(450 * 4.0), False, False)
    # Those that measure are no model for those that train.
    plan = plan_of(("e", "edited", 20, "measure"), ("full", "full", 100, "train"))
    with Progress("e", 20, out, plan=plan) as bar:
        take(clock, bar, 10, 2.0)
        assert plan.left() == (pytest.approx(20.0), False, False)


def test_work_of_known_kinds_is_all_that_is_left(clock, out):
    """100 steps of 1 s are done of 3 phases of 100; what follows a phase's last step counts."""
    phases = ((label, "full", 100, "train") for label in "abc")
    plan = plan_of(*phases, ("e", "edited", 10, "measure"))
    with Progress("e", 10, out, plan=plan) as bar:
        take(clock, bar, 10, 1.0)
        clock.now += 9.0
    with Progress("a", 101, out, plan=plan) as bar:
        take(clock, bar, 101, 1.0)
    assert plan.left() == (pytest.approx(200.0), False, True) and plan.describe() == "3 min"
    with Progress("b", 100, out, plan=plan, done=50) as bar:  # it was resumed: half is left
        assert plan.left() == (pytest.approx(150.0), False, True)
        take(clock, bar, 25, 1.0)
        assert plan.left() == (pytest.approx(125.0), False, True)
    plan.drop("c")
    assert plan.left() is None


def test_what_is_to_do_is_said_before_it_begins():
    plan = plan_of(
        ("a", "full", 300, "fine-tuning"), ("b", "lora", 200, "fine-tuning"),
        ("c", "edited", 25, "evaluation"),
    )  # fmt: skip
    assert plan.describe_work() == "2 x fine-tuning (500 steps), 1 x evaluation (25 steps)"
    assert Plan().describe_work() == ""


def test_a_phase_of_no_plan_speaks_of_itself_alone(clock, out):
    """The first step, which may compile, is in no rate; its line comes early all the same."""
    with Progress("merge", 5, out, unit="MB") as bar:
        take(clock, bar, 1, 6.0, loss=0.25, penalty=0.0)
        take(clock, bar, 2, 16.0)
        take(clock, bar, 1, 4.0)
        take(clock, bar, 1, 1.0)
    assert lines_of(out) == [
        "merge  1/5  loss 0.25",
        "merge  2/5  loss 0.25  48 s left  16.0 s/MB",
        "merge  3/5  loss 0.25  32 s left  16.0 s/MB",
        "merge  5/5  loss 0.25  43.0 s  9.2 s/MB",  # four in 37 s
    ]


def test_a_phase_that_is_resumed_counts_on(clock, out):
    with Progress("a", 300, out, done=150) as bar:
        take(clock, bar, 2, 0.5)
        take(clock, bar, 40, 0.1)
        take(clock, bar, 1, 1.6)
    assert lines_of(out) == [
        # 41 steps in 6.1 s since the first of them; 107 are left.
        "a  193/300  16 s left  6.9 it/s",
        "a  193/300  16 s left  6.9 it/s",
    ]


def test_lines_of_a_plan_show_the_whole_run(clock, out):
    plan = plan_of(
        ("a", "full", 10, "train"), ("b", "full", 50, "train"), ("c", "lora", 50, "train")
    )
    with Progress("a", 10, out, plan=plan) as bar:
        take(clock, bar, 9, 16.0)
    assert "a  5/10  80 s of ~28 min left  16.0 s/it" in lines_of(out)


def shown_on_a_terminal(columns, show):
    """Lines that `show` prints on a terminal of so many columns."""
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with os.fdopen(writing, "w") as terminal:
        show(terminal)
        shown = ""
        while not shown.endswith("\n"):
            shown += os.read(reading, 10_000).decode()
    os.close(reading)
    return [line.removesuffix("\x1b[K") for line in re.split(r"[\r\n]+", shown) if line]


@pytest.mark.parametrize("columns, width", [(0, 79), (80, 79), (40, 39), (300, 104)])
def test_a_terminal_shows_one_line_that_fits_even_if_it_has_no_size(clock, columns, width):
    def show(terminal):
        with Progress("finetune " + 60 * "x", 6, terminal) as bar:
            take(clock, bar, 6, 1.0, loss=0.5)

    lines = shown_on_a_terminal(columns, show)
    assert len(lines) == 8 and lines[0].startswith("finetune xxx")
    assert max(map(len, lines)) <= width
    assert lines[0] == ("finetune " + 60 * "x" + "  0/6")[:width]
    if columns == 300:
        assert lines[-1].endswith("6/6  loss 0.5  6.0 s  1.0 it/s")


def test_80_columns_show_the_loss_and_the_time_left(clock):
    """Of a long name; parts that do not fit are left out whole."""
    label = "full+orthoreg seed 0 fashion_mnist"
    plan = plan_of((label, 0, 500, "train"), ("b", 1, 9_500, "train"), ("e", 2, 9, "measure"))

    def show(terminal):
        with Progress(label, 500, terminal, plan=plan) as bar:
            for _ in range(5):
                clock.now += 8.0
                bar.update(80, loss=0.12345, penalty=212.1)

    *_, last = shown_on_a_terminal(80, show)
    assert last == f"{label}  400/500  loss 0.1235  10 s of ~16 min+ left"


def test_what_a_signal_leads_to_is_said_on_a_line_of_its_own(clock, monkeypatch):
    def show(terminal):
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress("a", 5, terminal) as bar, interruption.listening():
            take(clock, bar, 1, 1.0)
            with interruption.leading_to("all is well"):
                os.kill(os.getpid(), signal.SIGINT)
            take(clock, bar, 1, 1.0)

    said = "orthoreg: Ctrl-C: stopping; all is well (repeat to stop at once)"
    lines = shown_on_a_terminal(80, show)
    assert lines[:3] == ["a  0/5", "a  1/5", said] and lines[3].startswith("a  2/5")


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5_940, "99 min"), (6_000, "1 h 40 min"),
     (10_860, "3 h 01 min")],
)  # fmt: skip
def test_times_are_spoken(seconds, text):
    assert spoken(seconds) == text
