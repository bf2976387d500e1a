"""The same work for every engine, each in a virtual environment of its own."""
