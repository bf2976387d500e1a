"""The pages: what people watch and decide on, made on the server and live in the browser."""
