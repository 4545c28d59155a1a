"""`python -m landslide`: the same as the command `landslide`."""

from landslide.cli import main

if __name__ == "__main__":
    main(prog_name="landslide")
