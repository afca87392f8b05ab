"""A recorded stand-in for the hub's client, behind `flows.exporting.hub.HubApi`."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class FakeHub:
    """Repositories are folders below `root`; every call is recorded."""

    root: Path
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fails: Exception | None = None
    """What a write raises."""

    def whoami(self) -> dict[str, str]:
        return {"name": "me"}

    def repo_exists(self, repo_id: str, *, repo_type: str) -> bool:
        return (self.root / repo_type / repo_id).is_dir()

    def list_repo_files(self, repo_id: str, *, repo_type: str) -> list[str]:
        folder = self.root / repo_type / repo_id
        return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]

    def create_repo(self, repo_id: str, *, repo_type: str, **facts: Any) -> str:
        self._write("create_repo", repo_id=repo_id, repo_type=repo_type, **facts)
        folder = self.root / repo_type / repo_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitattributes").touch()
        return f"https://hub.example/{repo_type}s/{repo_id}"

    def upload_folder(self, **facts: Any) -> None:
        self._write("upload_folder", **facts)
        folder = self.root / facts["repo_type"] / facts["repo_id"]
        if facts["delete_patterns"]:
            shutil.rmtree(folder)
        shutil.copytree(facts["folder_path"], folder, dirs_exist_ok=True)

    def _write(self, call: str, **facts: Any) -> None:
        self.calls.append((call, facts))
        if self.fails:
            raise self.fails
