"""The group of commands: errors become one line and an exit status, and the help groups the options."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from vconv.backends import without_autoload, without_torch_npu
from vconv.cli.examples import EXAMPLES
from vconv.cli.options import GROUPS
from vconv.errors import UnknownNameError, VconvError
from vconv.interruption import end_interrupted
from vconv.streams import printing


class Command(click.Command):
    """A command whose help lists the options under headings, which are the same in every command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments of the command, which prints its help if that is asked for; see click."""
        with printing():
            return super().make_context(info_name, args, parent, **extra)
        raise click.exceptions.Exit(0)  # a reader of the help has seen enough of it

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options; see click. Options that are in no group of :data:`GROUPS` go under Options."""
        headings = {name: heading for heading, names in GROUPS.items() for name in names}
        grouped: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*GROUPS, "Options")}
        options = (one for one in self.get_params(ctx) if isinstance(one, click.Option))
        for parameter in options:
            record = parameter.get_help_record(ctx)
            if record is not None:
                grouped[headings.get(parameter.name or "", "Options")].append(record)
        for heading, records in grouped.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples; see click."""
        lines = EXAMPLES.get(self.name or "", ())
        if lines:
            with formatter.section("Examples"):
                for line in lines:
                    formatter.write_text(f"vconv {self.name} {line}")


class Commands(click.Group):
    """A command group that turns a user's errors into one line and an exit status."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which they were defined; see click."""
        return list(self.commands)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments before the command; see click."""
        if not args:
            return super().make_context(info_name, args, parent, **extra)
        with _sentences(), printing():
            return super().make_context(info_name, args, parent, **extra)
        raise click.exceptions.Exit(0)  # likewise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; see click. The error for an unknown name lists the nearest names."""
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            raise UnknownNameError("command", name, self.commands, fix="`vconv --help` shows every command")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see click.

        torch_npu may be broken, so this method keeps other libraries from importing it; vconv imports
        torch_npu only for an NPU.
        """
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
                got=error.format_message().removeprefix("Got "),
                expected=f"what `{command} --help` shows",
                fix="correct the command and run it again",
            )
        )
    except OSError as error:
        from vconv.disk import refusal

        sentence = refusal(error)
        if sentence is None:
            raise
        _exit_with(sentence)
    except KeyboardInterrupt:
        end_interrupted()


def _exit_with(error: VconvError) -> NoReturn:
    with contextlib.suppress(OSError):  # the exit status says it too
        click.echo(f"error: {error}", err=True)
    sys.exit(error.exit_status)
