"""An export onto a hub, through huggingface_hub.

The token is the user's login or HF_TOKEN: no argument, record or message of ours ever holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from csr.errors import ConfigError, CSRError, EnvironmentFault, shown
from flows.exporting.output import RECORD

IGNORED = {".gitattributes"}
"""What a new repository holds by itself."""


class HubApi(Protocol):
    """What of `huggingface_hub.HfApi` is used."""

    def whoami(self) -> Any:
        """Whose login it is; an error of the hub for one that it does not know."""

    def repo_exists(self, repo_id: str, *, repo_type: str) -> bool:
        """Whether the repository is there, and may be seen."""

    def list_repo_files(self, repo_id: str, *, repo_type: str) -> list[str]:
        """Paths of its files."""

    def create_repo(
        self, repo_id: str, *, repo_type: str, private: bool | None, exist_ok: bool
    ) -> Any:
        """Make it; its URL."""

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: Path,
        commit_message: str,
        delete_patterns: list[str] | None,
    ) -> Any:
        """Everything in the folder, as one commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Where an export goes on the hub."""

    repo_id: str
    """owner/name."""
    repo_type: str
    """"model" or "dataset"."""
    private: bool
    overwrite: bool
    """Whether an older export may be replaced there."""


def connect() -> HubApi:
    """The hub's client. EnvironmentFault without a login, or where the hub is switched off."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise EnvironmentFault(
            "HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it, or export without --push "
            "and upload the folder from elsewhere."
        )
    if not get_token():
        raise EnvironmentFault(
            "There is no login for the hub, and --push needs one that may write. Log in with "
            "`hf auth login`, or set HF_TOKEN in the environment."
        )
    api: HubApi = HfApi()
    return api


def check_name(repo_id: str, option: str) -> None:
    """ConfigError where `repo_id`, given as `option`, is no owner/name that a hub takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{option} {shown(repo_id)} names no repository: {error}") from None
    if "/" not in repo_id:
        raise ConfigError(f"{option} {shown(repo_id)} has no owner. Write owner/name.")


def refuse_taken(api: HubApi, push: Push) -> None:
    """ConfigError where the name belongs to something else, or to an export that must stay.

    EnvironmentFault where the hub does not know the login: it would otherwise say so only when all
    is written.
    """
    with _hub_errors(push):
        api.whoami()
        if not api.repo_exists(push.repo_id, repo_type=push.repo_type):
            return
        files = set(api.list_repo_files(push.repo_id, repo_type=push.repo_type)) - IGNORED
    if files and RECORD not in files:
        raise ConfigError(
            f"The {push.repo_type} {push.repo_id} on the hub holds something else than an export "
            f"of csr (there is no {RECORD}). It stays as it is; choose another name."
        )
    if files and not push.overwrite:
        raise ConfigError(
            f"The {push.repo_type} {push.repo_id} on the hub holds an export already. Choose "
            "another name, or give --overwrite to replace it there and in --output."
        )


def upload(api: HubApi, push: Push, folder: Path, message: str) -> str:
    """Put the finished export there, as one commit; the repository's URL."""
    with _hub_errors(push, f" The export itself is complete, in {folder}; push it with the same "
                     "command and --overwrite."):  # fmt: skip
        url = api.create_repo(
            push.repo_id,
            repo_type=push.repo_type,
            private=push.private or None,
            exist_ok=True,
        )
        api.upload_folder(
            repo_id=push.repo_id,
            repo_type=push.repo_type,
            folder_path=folder,
            commit_message=message,
            delete_patterns=["*"] if push.overwrite else None,
        )
    return str(url)


@contextmanager
def _hub_errors(push: Push, kept: str = "") -> Iterator[None]:
    """Whatever the client raises, as EnvironmentFault without its traceback."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    where = f"the {push.repo_type} {push.repo_id} on the hub"
    try:
        yield
    except CSRError:
        raise
    except OfflineModeIsEnabled:
        raise EnvironmentFault(f"HF_HUB_OFFLINE is set: unset it to push.{kept}") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise EnvironmentFault(
                f"The hub does not let this login write {where} (status {status}). Log in with a "
                f"token that may write there, or choose an owner that is yours.{kept}"
            ) from None
        raise EnvironmentFault(
            f"The hub did not take {where} (status {status}: {shown(str(error))}). Try again "
            f"later.{kept}"
        ) from None
    except ValueError as error:  # what the hub says of a card's metadata
        raise EnvironmentFault(
            f"The hub does not take {where} as it is ({shown(str(error))}).{kept}"
        ) from None
    except (httpx.HTTPError, OSError, RuntimeError) as error:  # the last are its uploader's own
        raise EnvironmentFault(
            f"The hub cannot be reached for {where} ({type(error).__name__}). Check the network "
            f"and HF_ENDPOINT.{kept}"
        ) from None
