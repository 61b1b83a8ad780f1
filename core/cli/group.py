"""The group of commands: errors become one line and an exit status."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from vconv.backends import without_autoload, without_torch_npu
from vconv.errors import VconvError


class Commands(click.Group):
    """A group that turns a user's errors into one line and an exit status."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse what stands before the command; see click."""
        if not args:
            return super().make_context(info_name, args, parent, **extra)
        with _sentences():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see click. A signal to end is an interruption.

        torch_npu is imported by nobody but vconv, and by vconv only for an NPU: it may be broken.
        """
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, _interrupt)
        with _sentences(), without_autoload(), without_torch_npu():
            return super().invoke(ctx)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Turn a user's errors into one line and an exit status."""
    try:
        yield
    except VconvError as error:
        _exit_with(error)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "vconv"
        _exit_with(
            VconvError(
                f"wrong use of {command}",
                got=error.format_message(),
                expected=f"what `{command} --help` shows",
                fix="mend the command and run it again",
            )
        )
    except OSError as error:
        from vconv.convert.room import refusal

        sentence = refusal(error)
        if sentence is None:
            raise
        _exit_with(sentence)
    except KeyboardInterrupt:
        click.echo("interrupted: nothing half-made is left", err=True)
        sys.exit(130)


def _exit_with(error: VconvError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_status)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
