"""The command ``mlp-xp``: one module per subcommand, imported when it is chosen."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import mlp_xp
from mlp_xp.errors import MLPXPError

COMMANDS = {
    "train": "train a network and record the run",
    "compare": "train the same network on several backends and hold their curves against each other",
    "predict": "apply a recorded run's network to new data",
    "verify": "train a recorded run, or some of its epochs, again and compare it to the last bit",
    "certify": "show that no sum of a training in exact arithmetic can round",
    "study": "show what holds of gradients, of principal components and of k-means, in a table and a picture",
    "backends": "list the array libraries: installed or not, devices, and whether they compute rightly",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        0, or what the subcommand says; 2 if the user has something to mend; 130 after Ctrl-C, 143 after SIGTERM and
        141 if nobody reads the output any more (what a shell reports of a program that SIGINT, SIGTERM or SIGPIPE
        ended).
    """
    _open_what_is_closed()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error: not every console has every character
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="mlp-xp", description=mlp_xp.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"mlp-xp {mlp_xp.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    try:
        for name, summary in COMMANDS.items():
            subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
            if name == chosen:
                import_module(f"mlp_xp.cli.{name}").add_arguments(subparser)
        options = parser.parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _remark  # type: ignore[assignment]  # takes any arguments
            result: int = import_module(f"mlp_xp.cli.{options.command}").run(options)
        sys.stdout.flush()
    except MLPXPError as error:
        print(f"mlp-xp: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        fewer = "fewer --replicas, " if getattr(options, "replicas", None) else ""
        remedy = f"give {fewer}less data, a smaller network (--hidden) or smaller batches (--batch-size)"
        print(f"mlp-xp: error: the memory does not suffice{reason}; {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mlp-xp: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `mlp-xp … | head`
        drop_output()
        return 141
    except OSError as error:  # every file has its own message; what is left is standard output, on a full disk
        what = "the output cannot be written" if error.filename is None else error.filename
        print(f"mlp-xp: error: {what}: {error.strerror or error}", file=sys.stderr)
        drop_output()
        return 2
    return result


def _open_what_is_closed() -> None:
    """Send nowhere what the caller has closed (``>&-``), lest the next file to be opened is taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # has the least number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115 - to the end


def _remark(message: Warning | str, *_: object) -> None:
    """Print a warning as the remark that it is to who runs a command, without a line of this program's source."""
    import_module("mlp_xp.cli.progress").note(str(message))


def drop_output() -> None:
    """Send what is still buffered nowhere: Python flushes standard output when it ends, and would complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
