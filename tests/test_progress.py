"""What a user sees of the work: lines of a phase, and the time left."""

import os
import pty
import re
import struct

import pytest

from orthoreg_jax import progress
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
    for label, kind, steps in phases:
        plan.expect(label, kind, steps)
    return plan


def test_nothing_is_said_before_it_is_known_and_the_least_while_some_is_not(clock, out):
    plan = plan_of(("a", "plain", 10), ("b", "plain", 20), ("c", "penalty", 5))
    with Progress("a", 10, out, plan=plan) as bar:
        take(clock, bar, 1, 60.0)  # it compiles
        assert plan.describe() == ""
        take(clock, bar, 2, KNOWN_SECONDS / 4)
        assert plan.describe() == ""
        take(clock, bar, 7, 2.0)
    # 9 steps of which two took 0.75 s: 15.5 s; c is not known.
    assert plan.left() == (pytest.approx(20 * 15.5 / 9), False)
    assert plan.describe() == "over 34 s"
    with Progress("b", 20, out, plan=plan) as bar:
        take(clock, bar, 20, 2.0)
        assert plan.left()[1] is False
    with Progress("c", 5, out, plan=plan) as bar:
        assert plan.describe() == ""
        take(clock, bar, 5, 4.0)
        assert plan.left() == (0.0, True)
    assert plan.left() is None


def test_work_of_known_kinds_is_all_that_is_left(clock, out):
    """100 steps of 1 s are done of 3 phases of 100; what follows a phase's last step counts."""
    plan = plan_of(*((label, "full", 100) for label in "abc"), ("e", "evaluate", 10))
    with Progress("e", 10, out, plan=plan) as bar:
        take(clock, bar, 10, 1.0)
        clock.now += 9.0
    with Progress("a", 101, out, plan=plan) as bar:
        take(clock, bar, 101, 1.0)
    assert plan.left() == (pytest.approx(200.0), True) and plan.describe() == "3 min"
    with Progress("b", 50, out, plan=plan) as bar:  # it was resumed: half is left
        assert plan.left() == (pytest.approx(150.0), True)
        take(clock, bar, 25, 1.0)
        assert plan.left() == (pytest.approx(125.0), True)
    plan.drop("c")
    assert plan.left() is None


def test_a_phase_of_no_plan_speaks_of_itself_alone(clock, out):
    with Progress("merge", 4, out, unit="MB") as bar:
        take(clock, bar, 2, 16.0, loss=0.25, penalty=0.0)
        take(clock, bar, 2, 1.0)
    assert lines_of(out) == [
        "merge  1/4  48 s left  0.1 MB/s  loss 0.25",
        "merge  2/4  32 s left  0.1 MB/s  loss 0.25",
        "merge  4/4  34.0 s  0.1 MB/s  loss 0.25",
    ]


def test_lines_of_a_plan_show_the_whole_run(clock, out):
    plan = plan_of(("a", "full", 10), ("b", "full", 50), ("c", "lora", 50))
    with Progress("a", 10, out, plan=plan) as bar:
        take(clock, bar, 9, 16.0)
    assert "a  5/10  80 s left  run: over 15 min left  0.1 it/s" in lines_of(out)


@pytest.mark.parametrize("columns, width", [(0, 79), (80, 79), (40, 39), (300, 104)])
def test_a_terminal_shows_one_line_that_fits_even_if_it_has_no_size(clock, columns, width):
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with os.fdopen(writing, "w") as terminal:
        with Progress("finetune " + 60 * "x", 6, terminal) as bar:
            take(clock, bar, 6, 1.0, loss=0.5)
        shown = ""
        while not shown.endswith("\n"):
            shown += os.read(reading, 10_000).decode()
    os.close(reading)
    lines = [line.removesuffix("\x1b[K") for line in re.split(r"[\r\n]+", shown) if line]
    assert len(lines) == 8 and lines[0].startswith("finetune xxx")
    assert max(map(len, lines)) <= width
    assert lines[0] == ("finetune " + 60 * "x" + "  0/6")[:width]
    if columns == 300:
        assert lines[-1].endswith("6/6  6.0 s  1.0 it/s  loss 0.5")


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5_940, "99 min"), (6_000, "1 h 40 min"),
     (10_860, "3 h 01 min")],
)  # fmt: skip
def test_times_are_spoken(seconds, text):
    assert spoken(seconds) == text
