"""``python -m dvbench``."""

from dvbench.cli import main

if __name__ == "__main__":
    main()
