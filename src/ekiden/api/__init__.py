"""The REST API: FastAPI over the store. It knows no flow and runs no step."""
