"""`python -m traitscope` is the command `traitscope`."""

from traitscope.cli import main

if __name__ == "__main__":
    main()
