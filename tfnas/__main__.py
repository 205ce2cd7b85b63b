"""`python -m tfnas` is the command `tfnas`."""

from tfnas.cli.app import run

if __name__ == "__main__":
    run()
