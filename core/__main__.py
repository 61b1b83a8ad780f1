"""`python -m vconv` is the command line."""

from vconv.cli import main

if __name__ == "__main__":
    main()
