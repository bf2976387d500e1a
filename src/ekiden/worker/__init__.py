"""Workers: claim, execute, commit and hand on. They know no API and build no providers."""
