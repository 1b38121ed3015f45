"""Find the file of pretrained weights in the cache of the Hugging Face hub, or fetch it."""

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError
from timm.models import PretrainedCfg

from curricula.errors import UserError, message_of
from curricula.models.pretrained import fetched_file

SECONDS = 10.0  # for the hub's first answer
DEFAULT = "pytorch_model.bin"
SAFE = {
    DEFAULT: "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}
"""Names of the same weights as safetensors, which are preferred."""


def weights_file(config: PretrainedCfg, what: str) -> str:
    """Return the path of the file with pretrained weights, which is fetched if it is not cached.

    A cached file is taken as it is: the hub is not asked whether there is a newer one.

    Args:
        config: timm's description of the weights.
        what: the network, in messages.

    Raises:
        UserError: it is not in the cache and cannot be fetched.
    """
    if not config.hf_hub_id:
        return str(fetched_file(config.url, what))
    repository, names = config.hf_hub_id, _names(config)
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return cached
    try:
        return _fetched(repository, names)
    except Exception as error:  # the library of the network has its own errors
        folder = f"models--{repository.replace('/', '--')}"
        raise UserError(
            f"{what}: its pretrained weights, {names[0]} of {repository}, are not in the cache, "
            f"{constants.HF_HUB_CACHE} (folder hub of HF_HOME), and cannot be fetched "
            f"({message_of(error).split('. ')[0]}); copy the folder {folder} there from a machine "
            "that has it"
        ) from error


def _fetched(repository: str, names: list[str]) -> str:
    """Return the path of the first of the named files that a repository has, after fetching it."""
    name, *others = names
    try:
        # One question first: a download repeats it for half a minute where nothing answers.
        url = huggingface_hub.hf_hub_url(repository, name)
        huggingface_hub.get_hf_file_metadata(url, timeout=SECONDS)
        return str(huggingface_hub.hf_hub_download(repository, name, library_name="timm"))
    except EntryNotFoundError:
        if not others:
            raise
        return _fetched(repository, others)


def _names(config: PretrainedCfg) -> list[str]:
    """Return the names that a file of weights may have, the preferred one first."""
    name = config.hf_hub_filename or DEFAULT
    return [SAFE[name], name] if name in SAFE else [name]
