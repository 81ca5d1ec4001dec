"""HTTP: routes, responses and errors. Pure ASGI wherever a stream passes."""
