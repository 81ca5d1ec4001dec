"""Places where bytes stay, without policy."""
