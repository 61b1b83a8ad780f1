"""Run the command line with `python -m vconv`."""

from vconv.cli import main

if __name__ == "__main__":
    main()
