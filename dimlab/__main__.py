"""``python -m dimlab`` is the command line."""

from dimlab.cli import run

if __name__ == "__main__":
    run()
