"""Search sources: the documents of the user, the demo corpus, the web."""
