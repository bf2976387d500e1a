"""Where language models answer: the protocol, and the parts that speak it."""
