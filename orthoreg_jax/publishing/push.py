"""Uploads an exported or merged model to the hub, with its card."""

from __future__ import annotations

import pathlib

from orthoreg_jax.clip.location import OPEN_CLIP_WEIGHTS
from orthoreg_jax.clip.open_clip import OPEN_CLIP

# A directory without these was not written by export or merge.
NEEDED = ("config.json", "model.safetensors", "README.md")
OF_OPEN_CLIP = (OPEN_CLIP, OPEN_CLIP_WEIGHTS, "README.md")


def push_model(directory: pathlib.Path, repository: str, private: bool = False) -> str:
    """Uploads a model's directory, and returns its address.

    Args:
      directory: as `export` and `merge` write it.
      repository: on the hub, as "user/name"; made if it is not there.
      private: make it for oneself alone.

    Raises:
      ValueError: not a model's directory, or the hub's refusal, in its own words.
    """
    needed = OF_OPEN_CLIP if (directory / OPEN_CLIP).is_file() else NEEDED
    missing = [name for name in needed if not (directory / name).is_file()]
    if missing:
        raise ValueError(
            f"--model {directory}: has no {', '.join(missing)}; give a directory that `orthoreg "
            "export` or `orthoreg merge` wrote"
        )
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=directory, commit_message="Upload by orthoreg push"
        )
    except Exception as error:  # no login, no network, no such user: the hub's words say which
        reason = error.__cause__ or error  # its own error may name the file alone
        raise ValueError(
            f"--to {repository}: the upload failed ({type(reason).__name__}: {reason}); log in "
            "with `hf auth login`, and check the name and the network"
        ) from error
    return f"{hub.endpoint}/{repository}"
