"""One module a scenario: ``async def run(site, short)`` returns its figures."""
