"""Run the command line: `vconv`, or `python -m vconv`."""

from vconv.interruption import interruptible
from vconv.streams import open_streams


def main() -> None:
    """Prepare streams and signals, and only then import the command line, which takes a while."""
    open_streams()
    with interruptible():
        from vconv.cli import main as commands

        commands(prog_name="vconv")


if __name__ == "__main__":
    main()
