"""Where pages go: written one by one, and then committed or aborted."""
