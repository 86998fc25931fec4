"""Fetches the data sets of tasks from the hub into its own cache.

What will be fetched is determined, and printed, before the download starts. Files that are already
in the cache are not fetched again, so an interrupted download resumes with the file it stopped at.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import write_json
from orthoreg_jax.words import counted, plural

from .catalogue import KNOWN
from .content import NotThereError, splits_to_read
from .hub import RECORD, hub_cache, present_splits, record_key, recorded, records, split_files
from .repositories import CONVERTED, REPOSITORIES, Repository
from .table import SPLITS, read_table
from .task import data_directory, entry_repository, load_task

MEGABYTE = 1_000_000


class File(NamedTuple):
    """A file of a set: path in it, bytes, SHA-256 ("" if the hub states none), whether cached."""

    path: str
    size: int
    sha256: str
    here: bool


class FetchPlan(NamedTuple):
    """What a task needs from the hub.

    Attributes:
      task: name of the task.
      ready: the data that already exists; "" if the files below must be fetched.
      set_: the data set on the hub.
      commit: its revision.
      files: files of the splits that are needed.
      licence: the licence, as the task's authors and as the hub's page state it.
    """

    task: str
    ready: str
    set_: Repository
    commit: str = ""
    files: tuple[File, ...] = ()
    licence: str = ""

    @property
    def missing(self) -> int:
        """Bytes to fetch."""
        return sum(file.size for file in self.files if not file.here)

    def __str__(self) -> str:
        """One line."""
        if self.ready:
            return f"{self.task}: ready ({self.ready})"
        here = sum(file.here for file in self.files)
        return (
            f"{self.task}: {self.set_.name}@{self.commit[:12]}, "
            f"{sum(file.size for file in self.files) / MEGABYTE:.1f} MB in "
            f"{counted(len(self.files), 'file')}"
            f"{f', {here} of them here' if here else ''}; licence: {self.licence}"
        )


def prepare_tasks(
    source: str, names: Sequence[str], control: str | None, say: Callable[[str], None]
) -> None:
    """Fetches the missing data of some tasks.

    Args:
      source: the data folder; created if it does not exist.
      names: names of the tasks.
      control: name of the control task, which needs no train split.
      say: called with each line about what is found and done.

    Raises:
      ValueError: a task is not on the hub, the disk has no room, or the hub refuses.
    """
    data = data_directory(source)
    data.mkdir(parents=True, exist_ok=True)
    table = read_table(source, data)
    splits = dict.fromkeys(names, SPLITS) | ({control: SPLITS[1:]} if control else {})
    plans: list[FetchPlan] = []
    problems: list[str] = []
    for name, needed in splits.items():
        with _collected(problems, name, say):
            plans.append(plan_task(data, table, name, needed))
            say(str(plans[-1]))
    missing, cache = sum(plan.missing for plan in plans), hub_cache()
    _check_room(missing, cache)
    if missing:
        say(f"to fetch: {missing / MEGABYTE:.1f} MB, into {cache}")
    for plan in plans:
        if not plan.ready:
            with _collected(problems, plan.task, say):
                fetch_task(data, plan)
                load_task(data, table, plan.task, splits[plan.task])
                say(f"{plan.task}: fetched")
    if problems:
        raise ValueError(f"{len(problems)} of {counted(len(splits), 'task')} "
                         f"{plural(len(problems), 'is', 'are')} not ready:\n  "
                         + "\n  ".join(problems))  # fmt: skip


@contextlib.contextmanager
def _collected(problems: list[str], name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Collects a task's error, so that the other tasks go on."""
    try:
        yield
    except (ValueError, OSError) as error:
        problems.append(f"{name}: {error}")
        say(f"{name}: NOT READY")


def plan_task(
    data: pathlib.Path, table: Mapping[str, Any], name: str, needed: Sequence[str]
) -> FetchPlan:
    """What must be fetched for a task; the hub is asked only if its data is not here.

    Raises:
      ValueError: the existing data is wrong, the task is not on the hub, or the hub refuses.
    """
    set_ = _repository(table, name)
    try:
        task = load_task(data, table, name, needed)
        counts = ", ".join(f"{len(data)} {split}" for split, data in task.splits.items())
        return FetchPlan(name, f"{counts} images", set_)
    except NotThereError:
        if not set_.name:
            raise
    if data == data_directory("embedded"):
        raise ValueError("is not among the embedded tasks; name your own data folder with --data")
    return _ask(name, set_, needed, recorded(data, set_).get("commit", ""))


def _repository(table: Mapping[str, Any], name: str) -> Repository:
    """The data set of a task; one without a name if the hub has none."""
    if name in table:
        entry = table[name] if isinstance(table[name], dict) else {}
        return entry_repository(entry) if "hub" in entry else Repository("")
    return REPOSITORIES.get(name, Repository(""))


def _ask(name: str, set_: Repository, needed: Sequence[str], commit: str) -> FetchPlan:
    """Asks the hub for a set's files, or for its parquet conversion of a set in another form."""
    import huggingface_hub.hf_api

    hub = huggingface_hub.HfApi()
    asked = [commit or set_.revision] if commit or set_.revision else ["main", CONVERTED]
    for revision in asked:
        with _in_the_hub_s_words(set_.name, revision):
            info = hub.dataset_info(set_.name, revision=revision)
            listing = hub.list_repo_tree(
                set_.name, recursive=True, revision=info.sha, repo_type="dataset"
            )
            files = {
                each.path: each
                for each in listing  # includes folders
                if isinstance(each, huggingface_hub.hf_api.RepoFile)
                and each.path.endswith(".parquet")
            }
        if files:
            break
    title = f"{set_.name}@{info.sha[:12]}"
    there = split_files(files, set_.config, title)
    present = present_splits(there, set_, needed, title)
    read = splits_to_read(needed, present)
    paths = [path for split, called in present.items() if split in read for path in there[called]]

    def describe(path: str) -> File:
        lfs, kept = files[path].lfs, huggingface_hub.try_to_load_from_cache(
            set_.name, path, revision=info.sha, repo_type="dataset"
        )  # fmt: skip
        return File(path, files[path].size, lfs.sha256 if lfs else "", isinstance(kept, str))

    stated = (info.card_data or {}).get("license") or "not stated there"
    stated = ", ".join(stated) if isinstance(stated, list) else stated
    licence = f"{KNOWN[name].licence if name in KNOWN else 'unknown'}; on the hub: {stated}"
    return FetchPlan(name, "", set_, info.sha, tuple(map(describe, paths)), licence)


@contextlib.contextmanager
def _in_the_hub_s_words(name: str, revision: str) -> Iterator[None]:
    """Turns the hub's refusals into errors that say what may help."""
    try:
        yield
    except Exception as error:  # no login, no network, no such set: its message says which
        cause = f" of {error.__cause__}" if error.__cause__ else ""
        reason = " ".join(f"{type(error).__name__}: {error}{cause}".split())
        raise ValueError(
            f"{name}@{revision}: the hub does not provide it ({reason}); "
            "check the network; for a gated set, request access there and `hf auth login`; or "
            "put the images into the data folder"
        ) from error


def _check_room(size: int, cache: pathlib.Path) -> None:
    """Raises ValueError if the disk does not have room for `size` bytes."""
    folder = next(each for each in (cache, *cache.absolute().parents) if each.exists())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"{cache}: {size / MEGABYTE:.1f} MB must be fetched, but only {free / MEGABYTE:.1f} "
            "MB are free; free some, prepare fewer tasks, or set HF_HUB_CACHE to another folder"
        )


def fetch_task(data: pathlib.Path, plan: FetchPlan) -> None:
    """Fetches a plan's missing files, and records the revision in the data folder.

    Raises:
      ValueError: the download fails, or its bytes are not those that the hub lists.
    """
    missing = [file for file in plan.files if not file.here]
    if missing:
        _download(plan, missing)
    record = {"commit": plan.commit, "files": [file.path for file in plan.files]}
    write_json(data / RECORD, records(data) | {record_key(plan.set_): record})


def _download(plan: FetchPlan, missing: Sequence[File]) -> None:
    """Downloads files into the hub's cache."""
    import huggingface_hub

    total = -(-plan.missing // MEGABYTE)
    with Progress(plan.task, total, unit="MB") as bar:
        meter = _meter(bar, total)
        for file in missing:
            with _in_the_hub_s_words(plan.set_.name, plan.commit):
                path = huggingface_hub.hf_hub_download(
                    plan.set_.name,
                    file.path,
                    repo_type="dataset",
                    revision=plan.commit,
                    tqdm_class=meter,
                )
            _check_content(pathlib.Path(path), file)
        meter.count(total * MEGABYTE)


def _check_content(path: pathlib.Path, file: File) -> None:
    """Removes a file and raises ValueError if its content is not what the hub lists."""
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if file.sha256 not in ("", found) or path.stat().st_size != file.size:
        path.resolve().unlink()
        path.unlink(missing_ok=True)  # the link to the content
        raise ValueError(
            f"{file.path}: the download is not what the hub lists (SHA-256 {found[:12]}, not "
            f"{file.sha256[:12]}); it was removed; run the same command to fetch it again"
        )


def _meter(bar: Progress, total: int) -> Any:
    """Progress bars as the hub's library wants them for its files; this one counts megabytes."""

    class Meter:
        done = 0  # bytes, over all files

        def __init__(self, *_: Any, total: int | None = None, initial: int = 0, **__: Any) -> None:
            self.total, self.n = total, initial

        @classmethod
        def count(cls, size: int) -> None:
            before = min(cls.done // MEGABYTE, total)
            cls.done += size
            bar.update(min(cls.done // MEGABYTE, total) - before)

        def update(self, size: float | None = 1) -> None:
            self.n += int(size or 0)
            self.count(int(size or 0))

        def update_transfer(self, size: float | None = 1) -> None:
            """Ignored: bytes in transit would be counted twice."""

        def set_postfix_str(self, *_: Any, **__: Any) -> None:
            """Ignored: we compute rates ourselves."""

        set_transfer_postfix_str = refresh = close = set_postfix_str

        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *_: Any) -> None:
            """Keeps the bar open, because it is shared by all files."""

    return Meter
