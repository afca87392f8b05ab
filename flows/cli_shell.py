"""The verb of the `csr` command that teaches a shell to complete it."""

from __future__ import annotations

from typing import Literal

from cyclopts import App

from csr.errors import EnvironmentFault
from flows.cli_options import SHELL, Flag, examples, say

app = App()

Shell = Literal["bash", "zsh", "fish"]


@app.command(
    group=SHELL,
    sort_key=1,
    help_epilogue=examples(
        "csr completion --install                 # for the shell you are in",
        "csr completion bash > csr.bash           # or put it where you like",
    ),
)
def completion(shell: Shell | None = None, /, *, install: Flag = False) -> int:
    """Print the script by which a shell completes this command.

    Commands, options, runs and iterations are completed at the Tab key. zsh completes where
    `.zshrc` runs `compinit`; a file of your own must be named `_cyclopts_csr` there.

    Parameters
    ----------
    shell
        Which shell; by default the one that runs this command.
    install
        Put the script into the shell's own folder, and name it in its start-up file.
    """
    from cyclopts.completion import ShellDetectionError

    from flows.cli import app as csr

    try:
        if not install:
            return say(csr.generate_completion(shell=shell))
        return say(f"{csr.install_completion(shell=shell)} (new shells complete `csr`)")
    except ShellDetectionError:
        raise EnvironmentFault(
            "The shell that runs this command cannot be told. Name it: `csr completion bash`, "
            "`zsh` or `fish`."
        ) from None
    except OSError as error:
        raise EnvironmentFault(
            f"{error.filename} cannot be written ({error.strerror}). Print the script instead, "
            "`csr completion bash`, and put it where your shell reads it."
        ) from None
