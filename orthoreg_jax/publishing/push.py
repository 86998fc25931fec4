"""Uploads an exported or merged model to the hub, with its card."""

from __future__ import annotations

import pathlib

from orthoreg_jax.clip.location import OPEN_CLIP_WEIGHTS
from orthoreg_jax.clip.open_clip import OPEN_CLIP

# A directory without these was not written by export or merge.
NEEDED = ("config.json", "model.safetensors", "README.md")
OF_OPEN_CLIP = (OPEN_CLIP, OPEN_CLIP_WEIGHTS, "README.md")


def push_model(directory: pathlib.Path, repository: str, private: bool = False) -> str:
    """Uploads a model's directory and returns its address on the hub.

    Args:
      directory: a directory that `export` or `merge` wrote.
      repository: the repository on the hub, as "user/name"; created if it does not exist.
      private: create a private repository.

    Raises:
      ValueError: the directory is not a model's, or the hub refused; the error quotes its reason.
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
    except Exception as error:  # no login, no network, no such user: the hub's message says which
        reason = error.__cause__ or error  # the outer error may name only the file
        raise ValueError(
            f"--to {repository}: the upload failed ({type(reason).__name__}: {reason}); log in "
            "with `hf auth login`, and check the name and the network"
        ) from error
    return f"{hub.endpoint}/{repository}"
