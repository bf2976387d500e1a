"""``python -m ekiden.cli``: how ``ekiden up`` starts its children."""

from ekiden.cli.main import main

if __name__ == "__main__":
    main()
