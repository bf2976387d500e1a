"""The command line: where settings become concrete parts, and people meet them."""
